//! Pictures of the shared space: the modality gap, and cosines of pairs and of others.

use std::{io, path::Path};

use embedding::Embedding;
use fs_err as fs;
use plotters::prelude::*;

use super::{COLORS, Painted, SIZE};
use crate::geometry::{BINS, Cosines, Plane, cosines, mean, modality_gap};

/// Points of each modality at most.
const MOST: usize = 1500;
/// Of images and of texts; of pairs and of others.
const TWO: [RGBColor; 2] = [COLORS[0], COLORS[2]];

/// Draws images and their texts: on their first two principal components as `gap.svg`, and the cosines of
/// pairs and of others as `similarities.svg`. Nothing is drawn of less than two pairs or dimensions.
///
/// # Errors
/// When a file cannot be written.
pub fn draw_space(folder: &Path, images: &[Embedding], texts: &[Embedding]) -> io::Result<()> {
    if images.len() < 2 || images[0].dim() < 2 {
        return Ok(());
    }
    let gap = gap(images, texts).map_err(io::Error::other)?;
    fs::write(folder.join("gap.svg"), gap)?;
    let similarities = similarities(&cosines(images, texts)).map_err(io::Error::other)?;
    fs::write(folder.join("similarities.svg"), similarities)
}

fn gap(images: &[Embedding], texts: &[Embedding]) -> Painted {
    let rows: Vec<&[f32]> = images
        .iter()
        .chain(texts)
        .map(Embedding::as_slice)
        .collect();
    let plane = Plane::of(&rows);
    let points = |of: &[Embedding]| -> Vec<(f64, f64)> {
        let each = of.len().div_ceil(MOST).max(1);
        let thinned = of.iter().step_by(each);
        thinned.map(|e| plane.project(e.as_slice())).collect()
    };
    let clouds = [points(images), points(texts)];
    let range = |of: fn(&(f64, f64)) -> f64| {
        let all = || clouds.iter().flatten().map(of);
        let (low, high) = (
            all().fold(f64::INFINITY, f64::min),
            all().fold(-1.0, f64::max),
        );
        let margin = 0.05 * (high - low).max(1e-6);
        low - margin..high + margin
    };
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let title = format!(
            "modality gap {:.3} ({} held-out pictures and their names)",
            modality_gap(images, texts),
            images.len()
        );
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(36)
            .caption(title, ("sans-serif", 16))
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(range(|p| p.0), range(|p| p.1))?;
        let axis = |which: &str, share: f64| {
            format!(
                "{which} principal component, {:.0} % of the variance",
                100.0 * share
            )
        };
        chart
            .configure_mesh()
            .x_desc(axis("first", plane.explained[0]))
            .y_desc(axis("second", plane.explained[1]))
            .light_line_style(TRANSPARENT)
            .draw()?;
        for ((cloud, color), name) in clouds.iter().zip(TWO).zip(["pictures", "names"]) {
            let dots = cloud
                .iter()
                .map(|at| Circle::new(*at, 2, color.mix(0.5).filled()));
            let key = move |(x, y)| Circle::new((x + 8, y), 4, color.filled());
            chart.draw_series(dots)?.label(name).legend(key);
        }
        let means = [images, texts].map(|of| {
            let mean: Vec<f32> = mean(of).into_iter().map(|x| x as f32).collect();
            plane.project(&mean)
        });
        chart.draw_series(LineSeries::new(means, BLACK.stroke_width(2)))?;
        keys(&mut chart)?;
        area.present()?;
    }
    Ok(svg)
}

fn similarities(found: &[Cosines; 2]) -> Painted {
    let shares = found.each_ref().map(Cosines::shares);
    let filled = |bin: &usize| shares.iter().any(|shares| shares[*bin] > 0.0);
    let first = (0..BINS).find(filled).unwrap_or(0);
    let last = (0..BINS).rfind(filled).unwrap_or(BINS - 1);
    let left_of = |bin: usize| 2.0 * bin as f64 / BINS as f64 - 1.0;
    let highest = shares.iter().flatten().copied().fold(0.0, f64::max);
    let mut svg = String::new();
    {
        let area = SVGBackend::with_string(&mut svg, SIZE).into_drawing_area();
        area.fill(&WHITE)?;
        let mut chart = ChartBuilder::on(&area)
            .margin(12)
            .margin_right(36)
            .x_label_area_size(36)
            .y_label_area_size(52)
            .build_cartesian_2d(left_of(first)..left_of(last + 1), 0.0..highest * 1.05)?;
        chart
            .configure_mesh()
            .x_desc("cosine of a picture and a name")
            .y_desc("share")
            .light_line_style(TRANSPARENT)
            .draw()?;
        let names = ["its own", "of another picture"];
        for (((shares, found), color), name) in shares.iter().zip(found).zip(TWO).zip(names) {
            let bars = (first..=last).map(|bin| {
                let corners = [(left_of(bin), 0.0), (left_of(bin + 1), shares[bin])];
                Rectangle::new(corners, color.mix(0.5).filled())
            });
            let key = move |(x, y)| Rectangle::new([(x, y - 4), (x + 14, y + 4)], color.filled());
            let label = format!("{name}: mean {:.3}", found.mean());
            chart.draw_series(bars)?.label(label).legend(key);
        }
        keys(&mut chart)?;
        area.present()?;
    }
    Ok(svg)
}

type Chart<'a, 'b> = ChartContext<
    'a,
    SVGBackend<'b>,
    Cartesian2d<plotters::coord::types::RangedCoordf64, plotters::coord::types::RangedCoordf64>,
>;

fn keys<'a, 'b: 'a>(
    chart: &mut Chart<'a, 'b>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    chart
        .configure_series_labels()
        .position(SeriesLabelPosition::UpperRight)
        .background_style(WHITE.mix(0.85))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(degrees: f32) -> Embedding {
        let angle = degrees.to_radians();
        Embedding::normalized(vec![angle.cos(), angle.sin(), 0.2]).expect("a unit row")
    }

    #[test]
    fn the_space_is_drawn_with_its_numbers() {
        let folder = tempfile::tempdir().expect("a folder");
        let images: Vec<Embedding> = (0..20).map(|i| at(i as f32)).collect();
        let texts: Vec<Embedding> = (0..20).map(|i| at(60.0 + i as f32)).collect();
        draw_space(folder.path(), &images, &texts).expect("draws");
        let read = |name: &str| fs::read_to_string(folder.path().join(name)).expect(name);
        let (gap, similarities) = (read("gap.svg"), read("similarities.svg"));
        let title = format!("modality gap {:.3}", modality_gap(&images, &texts));
        assert!(gap.contains(&title) && gap.contains("names"), "{title}");
        assert_eq!(gap.matches("<circle").count(), 20 + 20 + 2);
        let [own, others] = cosines(&images, &texts);
        for (name, found) in [("its own", own), ("of another picture", others)] {
            let label = format!("{name}: mean {:.3}", found.mean());
            assert!(similarities.contains(&label), "{label}");
        }
    }

    #[test]
    fn too_little_to_draw_draws_nothing() {
        let folder = tempfile::tempdir().expect("a folder");
        draw_space(folder.path(), &[], &[]).expect("draws nothing");
        draw_space(folder.path(), &[at(1.0)], &[at(2.0)]).expect("draws nothing");
        assert_eq!(fs::read_dir(folder.path()).expect("lists").count(), 0);
    }
}
