//! The picture in the READMEs: cold starts of three languages, and the cost of a million of each operation.

use plotters::prelude::*;
use serde_json::Value;

use crate::BenchError;
use crate::programs::{COMPARED, Language, root};
use crate::report;

const FILE: &str = "tests/bench/figures.svg";
const SIZE: (u32, u32) = (960, 360);
const MARGIN: i32 = 24;
const INK: RGBColor = RGBColor(0x33, 0x33, 0x33);
const COLOURS: [RGBColor; 3] = [
    RGBColor(0xc4, 0x4e, 0x2b),
    RGBColor(0x5f, 0x8a, 0x5a),
    RGBColor(0x4a, 0x6f, 0xa5),
];

/// A bar: its label, its parts, and the text behind it.
struct Bar {
    label: String,
    parts: Vec<(f64, RGBColor)>,
    value: String,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, plotters::coord::Shift>;

/// A heading, a legend, and bars one below the other; the longest fills the width.
fn panel(area: &Area<'_>, title: &str, legend: &[(&str, RGBColor)], bars: &[Bar]) -> Result<(), BenchError> {
    const LABEL: i32 = 150;
    const VALUE: i32 = 70;
    let text = |size: i32| ("sans-serif", size).into_font().color(&INK);
    area.draw(&Text::new(title.to_owned(), (MARGIN, 16), text(18)))?;
    let mut left = MARGIN;
    for (name, colour) in legend {
        area.draw(&Rectangle::new([(left, 46), (left + 10, 56)], colour.filled()))?;
        area.draw(&Text::new((*name).to_owned(), (left + 15, 45), text(12)))?;
        left += 30 + 7 * i32::try_from(name.len())?;
    }
    let total = |bar: &Bar| bar.parts.iter().map(|(value, _)| value).sum::<f64>();
    let longest = bars.iter().map(total).fold(0.0, f64::max);
    let (width, height) = area.dim_in_pixel();
    let room = f64::from(i32::try_from(width)? - LABEL - VALUE - 2 * MARGIN);
    let step = (i32::try_from(height)? - 90) / i32::try_from(bars.len())?;
    for (place, bar) in bars.iter().enumerate() {
        let top = 76 + step * i32::try_from(place)?;
        let middle = top + step / 2 - 8;
        area.draw(&Text::new(bar.label.clone(), (MARGIN, middle), text(13)))?;
        let mut from = f64::from(MARGIN + LABEL);
        for (value, colour) in &bar.parts {
            let to = from + value / longest * room;
            let corners = [
                (from as i32, top + 3),
                ((to as i32).max(from as i32 + 1), top + step - 3),
            ];
            area.draw(&Rectangle::new(corners, colour.filled()))?;
            from = to;
        }
        area.draw(&Text::new(bar.value.clone(), (from as i32 + 6, middle), text(13)))?;
    }
    Ok(())
}

/// Draws the picture.
pub(crate) fn run() -> Result<(), BenchError> {
    let (cold, money) = (report::recorded("cold")?, report::recorded("money")?);
    let number = |value: &Value| value.as_f64().unwrap_or_default();
    let path = root().join(FILE);
    let picture = SVGBackend::new(&path, SIZE).into_drawing_area();
    picture.fill(&WHITE)?;
    let (left, right) = picture.split_horizontally(SIZE.0 / 2);

    let mut bars = Vec::new();
    for function in COMPARED {
        for (language, colour) in Language::ALL.into_iter().zip(COLOURS) {
            let took = number(&cold["compared"][language.name()][function]);
            bars.push(Bar {
                label: match language {
                    Language::Rust => function.to_owned(),
                    _ => String::new(),
                },
                parts: vec![(took, colour)],
                value: format!("{} ms", report::short(took)),
            });
        }
    }
    let languages = Language::ALL.map(Language::name);
    let legend: Vec<_> = languages.into_iter().zip(COLOURS).collect();
    panel(&left, "Cold start, spawn to first answer", &legend, &bars)?;

    let parts = ["api", "lambda", "dynamodb"];
    let bars: Vec<_> = money
        .as_object()
        .into_iter()
        .flatten()
        .map(|(name, cost)| Bar {
            label: name.split(',').next().unwrap_or_default().to_owned(),
            parts: parts
                .iter()
                .zip(COLOURS)
                .map(|(part, colour)| (number(&cost[*part]), colour))
                .collect(),
            value: format!("${:.2}", number(&cost["total"])),
        })
        .collect();
    let legend: Vec<_> = ["API Gateway", "Lambda", "DynamoDB"].into_iter().zip(COLOURS).collect();
    panel(&right, "A million of each, list prices", &legend, &bars)?;
    picture.present()?;
    report::print(&format!("wrote {FILE}"));
    Ok(())
}
