//! Draws an activation code as a QR code in a PNG. Not here: the text of the code, and how the mail shows the image.

use domain::ActivationCode;
use fast_qr::{ECL, QRBuilder};
use miniz_oxide::deflate::compress_to_vec_zlib;
use png::{BitDepth, ColorType, Encoder, chunk};

/// Width of the white margin around the symbol, in modules (ISO/IEC 18004 section 9.1).
const QUIET_ZONE: usize = 4;
/// Minimum width of the image, in pixels.
const MIN_SIDE: usize = 300;

/// A QR code as a PNG: black on white, one bit per pixel, including the quiet zone.
pub struct QrImage {
    /// The bytes of the PNG file.
    pub png: Vec<u8>,
    /// Width and height in pixels, 300 to 400. At this size every module is a whole number of pixels.
    pub side: u32,
}

/// Draws the code with error correction level M.
pub fn draw(code: &ActivationCode) -> QrImage {
    let symbol = QRBuilder::new(code.expose())
        .ecl(ECL::M)
        .build()
        .expect("the longest activation code is 202 bytes, and a symbol holds 2,331");
    let modules = symbol.size + 2 * QUIET_ZONE;
    let scale = MIN_SIDE.div_ceil(modules);
    let side = modules * scale;

    // One bit per pixel; 1 is white. Each row is a byte for the filter type (0, none) and then the pixels from a byte
    // boundary on.
    let stride = 1 + side.div_ceil(8);
    let mut rows = vec![0xff; stride * side];
    rows.iter_mut().step_by(stride).for_each(|filter| *filter = 0);
    for y in 0..symbol.size {
        let top = (y + QUIET_ZONE) * scale * stride;
        for x in (0..symbol.size).filter(|&x| symbol[y][x].value()) {
            let left = (x + QUIET_ZONE) * scale;
            for column in left..left + scale {
                rows[top + 1 + column / 8] &= !(0x80 >> (column % 8));
            }
        }
        for copy in 1..scale {
            rows.copy_within(top..top + stride, top + copy * stride);
        }
    }

    let side = u32::try_from(side).expect("the largest symbol is 177 modules");
    let mut png = Vec::with_capacity(1024);
    let mut encoder = Encoder::new(&mut png, side, side);
    encoder.set_color(ColorType::Grayscale);
    encoder.set_depth(BitDepth::One);
    // The rows are compressed in one call, because the encoder would clear its buffer of 32 KB before each row. For
    // such images level 9 takes twice the time and gives a larger file; filters make the file larger too.
    encoder
        .write_header()
        .and_then(|mut writer| writer.write_chunk(chunk::IDAT, &compress_to_vec_zlib(&rows, 4)))
        .expect("writing to a Vec cannot fail");
    QrImage { png, side }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// Decodes the QR code in the PNG.
    pub(crate) fn decode(png: &[u8]) -> String {
        let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
        decoder.set_transformations(png::Transformations::EXPAND);
        let mut reader = decoder.read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        let (width, height) = (frame.width as usize, frame.height as usize);
        let mut image =
            rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * frame.line_size + x]);
        let grids = image.detect_grids();
        assert_eq!(grids.len(), 1);
        grids[0].decode().unwrap().1
    }

    #[test]
    fn image_decodes_and_has_the_right_size() {
        let long_host = format!("{}example", "rsp-smdp.".repeat(13));
        for (smdp, tail, at_most) in [
            ("smdp.example.test", "", 600),
            ("smdp.example.test", "$$1", 600),
            ("rsp-0042.prod.ondemandconnectivity.example", "$$1", 750),
            ("a.nl", "", 600),
            (long_host.as_str(), "$$1", 1400),
        ] {
            let text = format!("LPA:1${smdp}$QX7PD-3M8ZK-A91TR{tail}");
            let image = draw(&ActivationCode::parse(&text).unwrap());
            assert_eq!(decode(&image.png), text);
            assert!((300..=400).contains(&image.side), "{}", image.side);
            assert!(image.png.len() <= at_most, "{smdp}: {}", image.png.len());
        }
    }

    #[test]
    fn quiet_zone_is_four_white_modules_wide() {
        let code = ActivationCode::parse("LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR$$1").unwrap();
        let image = draw(&code);
        let mut reader = png::Decoder::new(std::io::Cursor::new(&image.png)).read_info().unwrap();
        let mut pixels = vec![0; reader.output_buffer_size().unwrap()];
        let frame = reader.next_frame(&mut pixels).unwrap();
        assert_eq!(
            (frame.color_type, frame.bit_depth),
            (ColorType::Grayscale, BitDepth::One)
        );
        // Version 4 has 33 modules plus the quiet zone. A module is 8 pixels wide, so each byte of a row is one module.
        assert_eq!(image.side, (33 + 8) * 8);
        for (index, row) in pixels.chunks(frame.line_size).enumerate() {
            let inside = (32..32 + 33 * 8).contains(&index);
            let (left, right) = (&row[..4], &row[37..]);
            assert!(left.iter().chain(right).all(|&module| module == 0xff));
            assert_eq!(row.contains(&0), inside, "row {index}");
        }
    }
}
