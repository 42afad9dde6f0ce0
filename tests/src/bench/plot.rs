//! Freeze against memory, a line for each system and kind of move, as SVG.

use std::{collections::BTreeMap, path::Path};

use anyhow::{Result, anyhow};
use plotters::prelude::*;

use super::report::Row;

const COLOURS: [RGBColor; 6] = [
    RGBColor(31, 119, 180),
    RGBColor(255, 127, 14),
    RGBColor(44, 160, 44),
    RGBColor(148, 103, 189),
    RGBColor(214, 39, 40),
    RGBColor(127, 127, 127),
];

/// Of containers with one process. Writes nothing when there is nothing to show.
pub fn freeze(rows: &[Row], path: &Path) -> Result<()> {
    let lines = lines(rows);
    let points = || lines.values().flatten().copied();
    if points().next().is_none() {
        return Ok(());
    }
    let bounds = |value: fn((f64, f64)) -> f64| {
        points()
            .map(value)
            .fold((f64::MAX, 0f64), |(low, high), value| {
                (low.min(value), high.max(value))
            })
    };
    let ((left, right), (low, high)) = (bounds(|point| point.0), bounds(|point| point.1));
    draw(&lines, path, decades(left, right), decades(low, high))
        .map_err(|error| anyhow!("`{}`: {error}", path.display()))
}

/// Whole ones, since only their ends are labelled.
fn decades(low: f64, high: f64) -> std::ops::Range<f64> {
    10f64.powf((low / 1.2).log10().floor())..10f64.powf((high * 1.2).log10().ceil())
}

type Lines = BTreeMap<String, Vec<(f64, f64)>>;

fn lines(rows: &[Row]) -> Lines {
    let mut lines = Lines::new();
    for row in rows {
        if let (Some(rss), Some(1), Some(freeze)) = (row.rss_mib, row.processes, row.freeze_ms) {
            let mut name = row.system.clone();
            match row.writer_mb_s {
                Some(0) | None => name += ", idle",
                Some(rate) => name += &format!(", {rate} MB/s written"),
            }
            if let Some(link) = row.link_mbit {
                name += &format!(", {link} Mb/s");
            }
            lines.entry(name).or_default().push((rss as f64, freeze));
        }
    }
    for points in lines.values_mut() {
        points.sort_by(|a, b| a.0.total_cmp(&b.0));
    }
    lines
}

fn draw(
    lines: &Lines,
    path: &Path,
    memory: std::ops::Range<f64>,
    freeze: std::ops::Range<f64>,
) -> Result<(), Box<dyn std::error::Error>> {
    let area = SVGBackend::new(path, (860, 520)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption("Freeze by memory", ("sans-serif", 22))
        .margin(16)
        .x_label_area_size(44)
        .y_label_area_size(70)
        .build_cartesian_2d(memory.log_scale(), freeze.log_scale())?;
    chart
        .configure_mesh()
        .label_style(("sans-serif", 16))
        .x_desc("memory, MiB")
        .y_desc("freeze, ms")
        .x_label_formatter(&|value| format!("{value:.0}"))
        .y_label_formatter(&|value| format!("{value:.0}"))
        .draw()?;
    for ((name, points), colour) in lines.iter().zip(COLOURS.into_iter().cycle()) {
        chart
            .draw_series(LineSeries::new(
                points.iter().copied(),
                colour.stroke_width(2),
            ))?
            .label(name)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], colour.stroke_width(2)));
        let dots = points
            .iter()
            .map(|&point| Circle::new(point, 3, colour.filled()));
        chart.draw_series(dots)?;
    }
    chart
        .configure_series_labels()
        .label_font(("sans-serif", 16))
        .position(SeriesLabelPosition::UpperLeft)
        .background_style(WHITE.mix(0.85))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    area.present()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_move_has_its_line() {
        let row = |system: &str, rss_mib, freeze_ms| Row {
            system: system.into(),
            rss_mib: Some(rss_mib),
            processes: Some(1),
            freeze_ms: Some(freeze_ms),
            ..Row::default()
        };
        let rows = [
            row("a", 1024, 60.0),
            row("a", 16, 40.0),
            row("b", 16, 900.0),
        ];
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("freeze.svg");
        freeze(&rows, &path).unwrap();
        let svg = std::fs::read_to_string(&path).unwrap();
        assert!(svg.starts_with("<svg") && svg.contains("a, idle") && svg.contains("b, idle"));
        freeze(&[], &dir.path().join("none.svg")).unwrap();
        assert!(!dir.path().join("none.svg").exists());
    }
}
