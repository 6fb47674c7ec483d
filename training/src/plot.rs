//! Curves as SVG: those of a run while it goes on, and those of experiments.

mod space;

use std::{collections::BTreeMap, ops::Range, path::Path};

use fs_err as fs;
use plotters::prelude::*;
use serde::Deserialize;

pub use space::draw_space;

const SIZE: (u32, u32) = (760, 440);
/// Of Okabe and Ito (2008), which the color-blind can tell apart.
const COLORS: [RGBColor; 7] = [
    RGBColor(213, 94, 0),
    RGBColor(204, 121, 167),
    RGBColor(0, 114, 178),
    RGBColor(0, 158, 115),
    RGBColor(230, 159, 0),
    RGBColor(86, 180, 233),
    RGBColor(0, 0, 0),
];

/// An SVG, or why there is none.
type Painted = Result<String, Box<dyn std::error::Error + Send + Sync>>;

/// Points of a curve at most; more are averaged.
const POINTS: usize = 400;

/// A picture of curves.
pub struct Plot<'a> {
    /// What the horizontal axis shows.
    pub x: &'a str,
    /// What the vertical axis shows.
    pub y: &'a str,
    /// From where to where the horizontal axis goes.
    pub x_range: Range<f64>,
    /// The same of the vertical one.
    pub y_range: Range<f64>,
    /// Where a line is drawn across, if any.
    pub rule: Option<f64>,
    /// What is drawn; colors begin again after seven.
    pub curves: Vec<Curves>,
}

/// Curves of one color.
pub struct Curves {
    /// What they are called.
    pub name: String,
    /// Points of each.
    pub runs: Vec<Vec<(f64, f64)>>,
}

impl Plot<'_> {
    /// Writes the SVG.
    ///
    /// # Errors
    /// When the file cannot be written.
    pub fn write(&self, file: &Path) -> std::io::Result<()> {
        let mut svg = String::new();
        self.paint(&mut svg).map_err(std::io::Error::other)?;
        fs::write(file, svg)
    }

    fn paint(&self, svg: &mut String) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
        let area = SVGBackend::with_string(svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let Range { start, end } = self.x_range;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(36)
            .x_label_area_size(36)
            .y_label_area_size(48)
            .build_cartesian_2d(start..end, self.y_range.clone())?;
        chart
            .configure_mesh()
            .x_desc(self.x)
            .y_desc(self.y)
            .x_label_formatter(&|x| format!("{x:.0}"))
            .light_line_style(TRANSPARENT)
            .draw()?;
        if let Some(rule) = self.rule {
            let line = [(start, rule), (end, rule)];
            chart.draw_series(LineSeries::new(line, BLACK.stroke_width(1)))?;
        }
        for (curves, color) in self.curves.iter().zip(COLORS.into_iter().cycle()) {
            for (i, run) in curves.runs.iter().enumerate() {
                let drawn =
                    chart.draw_series(LineSeries::new(run.iter().copied(), color.mix(0.7)))?;
                if i == 0 {
                    let key = move |(x, y)| PathElement::new([(x, y), (x + 16, y)], color);
                    drawn.label(&curves.name).legend(key);
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
}

/// What is drawn of one line of `metrics.jsonl`.
#[derive(Deserialize)]
struct Line {
    step: f64,
    loss: f64,
    #[serde(default)]
    held_out: BTreeMap<String, Recall>,
    #[serde(default)]
    validation: BTreeMap<String, f64>,
}

#[derive(Deserialize)]
struct Recall {
    recall_at_10: f64,
    base_recall_at_10: f64,
}

/// Draws what the run in `folder` has written so far: its loss as `loss.svg`, and recall on held-out styles
/// as `recall.svg` once it was measured twice. `steps` is where the run ends.
///
/// # Errors
/// When a file cannot be read or written.
pub fn draw_run(folder: &Path, steps: usize) -> std::io::Result<()> {
    let text = fs::read_to_string(folder.join("metrics.jsonl"))?;
    // A line that is being written is drawn the next time.
    let lines = text
        .lines()
        .filter_map(|line| serde_json::from_str::<Line>(line).ok());
    let (mut loss, mut recall) = (Vec::new(), BTreeMap::<String, Vec<(f64, f64)>>::new());
    for line in lines {
        loss.push((line.step, line.loss));
        for (name, value) in line.validation {
            if name.ends_with("@1") || name.ends_with("@10") {
                recall.entry(name).or_default().push((line.step, value));
            }
        }
        for (style, found) in line.held_out {
            let mut add =
                |name: String, value| recall.entry(name).or_default().push((line.step, value));
            add(
                format!("{style}, without skin tones"),
                found.base_recall_at_10,
            );
            add(style, found.recall_at_10);
        }
    }
    let x_range = 0.0..steps.max(1) as f64;
    let loss = thinned(&loss);
    let values = || loss.iter().map(|(_, value)| *value);
    let (low, high) = (
        values().fold(f64::INFINITY, f64::min),
        values().fold(0.0, f64::max),
    );
    if low < high {
        let margin = (high - low) * 0.05;
        let plot = Plot {
            x: "steps",
            y: "loss in nats",
            x_range: x_range.clone(),
            y_range: low - margin..high + margin,
            rule: None,
            curves: vec![Curves {
                name: "loss".to_owned(),
                runs: vec![loss],
            }],
        };
        plot.write(&folder.join("loss.svg"))?;
    }
    if recall.values().any(|points| points.len() > 1) {
        let curves = recall.into_iter().map(|(name, points)| Curves {
            name,
            runs: vec![points],
        });
        let plot = Plot {
            x: "steps",
            y: "recall",
            x_range,
            y_range: 0.0..1.0,
            rule: None,
            curves: curves.collect(),
        };
        plot.write(&folder.join("recall.svg"))?;
    }
    Ok(())
}

/// Means of neighbors where there are more than [`POINTS`].
fn thinned(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let each = points.len().div_ceil(POINTS).max(1);
    let mean = |part: &[(f64, f64)]| {
        let n = part.len() as f64;
        let sum = part
            .iter()
            .fold((0.0, 0.0), |sum, p| (sum.0 + p.0, sum.1 + p.1));
        (sum.0 / n, sum.1 / n)
    };
    points.chunks(each).map(mean).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_run_is_drawn_as_far_as_it_went() {
        let folder = tempfile::tempdir().expect("a folder");
        let mut lines = Vec::new();
        for step in 1..=1000 {
            let recall = if step % 250 == 0 {
                r#","held_out":{"ink":{"pictures":4,"recall_at_10":0.5,"base_recall_at_10":0.75}}"#
            } else {
                ""
            };
            let loss = 5.0 / f64::from(step);
            lines.push(format!("{{\"step\":{step},\"loss\":{loss}{recall}}}"));
        }
        lines.push("{\"step\":1001,\"lo".to_owned());
        let text = lines.join("\n");
        fs::write(folder.path().join("metrics.jsonl"), text).expect("writes");
        draw_run(folder.path(), 2000).expect("draws");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect(name);
        let (loss, recall) = (read("loss.svg"), read("recall.svg"));
        assert!(loss.contains("loss in nats") && loss.trim_end().ends_with("</svg>"));
        assert!(recall.contains("ink, without skin tones"), "{recall}");
    }

    #[test]
    fn a_run_of_one_step_has_nothing_to_draw() {
        let folder = tempfile::tempdir().expect("a folder");
        fs::write(
            folder.path().join("metrics.jsonl"),
            "{\"step\":1,\"loss\":2.0}\n",
        )
        .expect("writes");
        draw_run(folder.path(), 10).expect("draws nothing");
        assert!(!folder.path().join("loss.svg").exists());
    }

    #[test]
    fn long_curves_are_averaged_and_short_ones_left_alone() {
        let points: Vec<(f64, f64)> = (0..1000).map(|i| (f64::from(i), 2.0)).collect();
        let thin = thinned(&points);
        assert!(thin.len() <= POINTS && thin.iter().all(|(_, y)| (y - 2.0).abs() < 1e-9));
        assert_eq!(thinned(&points[..5]), points[..5]);
        assert!(thinned(&[]).is_empty());
    }
}
