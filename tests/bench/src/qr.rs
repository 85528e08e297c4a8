//! QR codes as PNGs: time and size, compared with commonly used libraries. Each image is read back.

use std::hint::black_box;
use std::process::Command;
use std::time::{Duration, Instant};

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use deliver_esim::draw;
use domain::ActivationCode;
use serde::Deserialize;
use serde_json::json;

use crate::BenchError;
use crate::programs::{Language, Programs};
use crate::report::{self, Table, millis, quantile, short, thousands};

const CODE: &str = "LPA:1$smdp.example.test$QX7PD-3M8ZK-A91TR$$1";

/// How many images each library draws; the first tenth is not counted.
const IMAGES: usize = 500;

/// The line that a script prints for each library.
#[derive(Deserialize)]
struct Drawn {
    library: String,
    milliseconds: f64,
    png: String,
}

/// The text in an image, as a phone's camera reads it.
fn read(png: &[u8]) -> Result<String, BenchError> {
    let mut decoder = png::Decoder::new(std::io::Cursor::new(png));
    decoder.set_transformations(png::Transformations::normalize_to_color8());
    let mut reader = decoder.read_info()?;
    let mut pixels = vec![0; reader.output_buffer_size().ok_or("too large an image")?];
    let frame = reader.next_frame(&mut pixels)?;
    let samples = frame.color_type.samples();
    let (width, height) = (frame.width as usize, frame.height as usize);
    let mut image =
        rqrr::PreparedImage::prepare_from_greyscale(width, height, |x, y| pixels[y * frame.line_size + x * samples]);
    let grid = image.detect_grids().into_iter().next().ok_or("no code in the image")?;
    Ok(grid.decode()?.1)
}

fn ours() -> Result<Drawn, BenchError> {
    let code = ActivationCode::parse(CODE)?;
    let mut times: Vec<Duration> = Vec::new();
    for _ in 0..IMAGES {
        let began = Instant::now();
        black_box(draw(black_box(&code)));
        times.push(began.elapsed());
    }
    Ok(Drawn {
        library: "here, `fast_qr` and `png`".to_owned(),
        milliseconds: millis(quantile(&times[IMAGES / 10..], 0.5)),
        png: STANDARD.encode(draw(&code).png),
    })
}

/// Measures and publishes.
pub(crate) fn run(programs: &Programs) -> Result<(), BenchError> {
    programs.others()?;
    let mut all = vec![ours()?];
    for (language, script) in [(Language::Node, "src/qr.mjs"), (Language::Python, "qr.py")] {
        let command = programs.script(language, &[script, CODE, &IMAGES.to_string()]);
        let output = Command::new(&command[0]).args(&command[1..]).output()?;
        for line in String::from_utf8(output.stdout)?.lines() {
            all.push(serde_json::from_str(line)?);
        }
    }
    let mut table = Table::new(&["QR code with PNG", "ms, median", "bytes", ""]);
    let mut figures = json!({});
    let ours = all[0].milliseconds;
    for drawn in &all {
        let png = STANDARD.decode(&drawn.png)?;
        if read(&png)? != CODE {
            return Err(format!("{} drew something else", drawn.library).into());
        }
        figures[&drawn.library] = json!({"ms": drawn.milliseconds, "bytes": png.len()});
        let times = match drawn.milliseconds / ours {
            1.0 => String::new(),
            times => format!("{} ×", short(times)),
        };
        let bytes = thousands(&png.len().to_string());
        table.row(&[drawn.library.clone(), short(drawn.milliseconds), bytes, times]);
    }
    table.publish("qr")?;
    report::record("qr", figures)
}
