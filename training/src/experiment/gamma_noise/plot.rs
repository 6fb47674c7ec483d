//! The runs as curves.

use std::path::Path;

use fs_err as fs;
use plotters::prelude::*;

const SIZE: (u32, u32) = (760, 440);
/// Of Okabe and Ito (2008), which the color-blind can tell apart.
const COLORS: [RGBColor; 4] = [
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
];

/// The runs of one method, as weight over optimum at equal distances.
pub struct Curves {
    /// Its name.
    pub name: &'static str,
    /// Points by run.
    pub runs: Vec<Vec<f64>>,
}

/// Writes the curves of `steps` steps as SVG.
pub fn draw(file: &Path, steps: usize, curves: &[Curves]) -> std::io::Result<()> {
    let mut svg = String::new();
    paint(&mut svg, steps, curves).map_err(std::io::Error::other)?;
    fs::write(file, svg)
}

type Problem = Box<dyn std::error::Error + Send + Sync>;

fn paint(svg: &mut String, steps: usize, curves: &[Curves]) -> Result<(), Problem> {
    let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
    area.fill(&WHITE)?;
    let end = steps as f64;
    let mut chart = ChartBuilder::on(&area)
        .margin(12)
        .x_label_area_size(36)
        .y_label_area_size(48)
        .build_cartesian_2d(0.0..end, 0.4..2.0)?;
    chart
        .configure_mesh()
        .x_desc("steps")
        .y_desc("weight / optimum")
        .x_label_formatter(&|x| format!("{x:.0}"))
        .light_line_style(TRANSPARENT)
        .draw()?;
    chart.draw_series(LineSeries::new(
        [(0.0, 1.0), (end, 1.0)],
        BLACK.stroke_width(1),
    ))?;
    for (curves, color) in curves.iter().zip(COLORS) {
        for (i, run) in curves.runs.iter().enumerate() {
            let each = end / run.len() as f64;
            let points = run.iter().enumerate();
            let points = points.map(|(at, y)| ((at as f64 + 0.5) * each, *y));
            let drawn = chart.draw_series(LineSeries::new(points, color.mix(0.7)))?;
            if i == 0 {
                let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color);
                drawn.label(curves.name).legend(key);
            }
        }
    }
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .draw()?;
    area.present()?;
    Ok(())
}
