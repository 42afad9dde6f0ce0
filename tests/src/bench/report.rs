//! The figures: `migrate.json` and the table.

use std::fmt::Write;

use serde::{Deserialize, Serialize};

/// One system in one scenario: medians. None where it does not apply or was not seen.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Row {
    pub system: String,
    /// Of each process.
    pub rss_mib: Option<u64>,
    pub processes: Option<u64>,
    pub writer_mb_s: Option<u64>,
    pub link_mbit: Option<u64>,
    /// Stopped until running, as the system says.
    pub freeze_ms: Option<f64>,
    /// The longest pause between two answers, as a client on another host saw it.
    pub client_gap_ms: Option<f64>,
    pub total_ms: Option<f64>,
    pub wire_bytes: Option<u64>,
    /// What of the container's memory is not zero, before the first move.
    pub nonzero_bytes: Option<u64>,
    pub peak_rss_ratio: Option<f64>,
    /// To all clients together, in the second before a move.
    pub answers_per_s: Option<f64>,
    /// Answers a second from the start of a move to its freeze, by those before it.
    pub throughput_ratio: Option<f64>,
}

/// The middle one; of an even number the mean of the middle two.
pub fn median(mut values: Vec<f64>) -> Option<f64> {
    values.sort_by(f64::total_cmp);
    let middle = values.len() / 2;
    let upper = *values.get(middle)?;
    if values.len() % 2 == 1 {
        return Some(upper);
    }
    Some((values[middle - 1] + upper) / 2.0)
}

impl Row {
    /// MB on the wire a second.
    fn rate(&self) -> Option<f64> {
        Some(self.wire_bytes? as f64 / 1000.0 / self.total_ms?)
    }

    fn wire_ratio(&self) -> Option<f64> {
        Some(self.wire_bytes? as f64 / self.nonzero_bytes? as f64)
    }

    pub fn line(&self) -> String {
        format!(
            "freeze {} ms, client gap {} ms, total {} ms, {} MB/s",
            show(self.freeze_ms, 1),
            show(self.client_gap_ms, 1),
            show(self.total_ms, 0),
            show(self.rate(), 0)
        )
    }
}

/// Everything that was measured.
pub struct Report {
    pub rows: Vec<Row>,
}

impl Report {
    /// For a terminal.
    pub fn table(&self) -> String {
        let mut text = format!(
            "\n{:<12} {:>6} {:>5} {:>6} {:>6} {:>10} {:>10} {:>10} {:>10} {:>7} {:>6} {:>6} {:>9} {:>6}\n",
            "SYSTEM",
            "MiB",
            "PROCS",
            "MB/s",
            "Mb/s",
            "FREEZE ms",
            "GAP ms",
            "TOTAL ms",
            "WIRE MB",
            "WIRE/NZ",
            "MB/s",
            "PEAK",
            "ANSWERS/s",
            "KEPT"
        );
        for row in &self.rows {
            let count = |value: Option<u64>| show(value.map(|value| value as f64), 0);
            let _ = writeln!(
                text,
                "{:<12} {:>6} {:>5} {:>6} {:>6} {:>10} {:>10} {:>10} {:>10} {:>7} {:>6} {:>6} {:>9} {:>6}",
                row.system,
                count(row.rss_mib),
                count(row.processes),
                count(row.writer_mb_s),
                count(row.link_mbit),
                show(row.freeze_ms, 1),
                show(row.client_gap_ms, 1),
                show(row.total_ms, 0),
                show(row.wire_bytes.map(|bytes| bytes as f64 / 1e6), 1),
                show(row.wire_ratio(), 3),
                show(row.rate(), 0),
                show(row.peak_rss_ratio, 2),
                show(row.answers_per_s, 0),
                show(row.throughput_ratio, 2)
            );
        }
        text += "\nMB/s: the writer, then the wire over the whole move. WIRE/NZ: bytes on the wire \
                 per byte of\nmemory that is not zero. PEAK: extra memory on the destination per \
                 byte of the container's.\nANSWERS/s: to all clients of a Redis before the move. \
                 KEPT: what is left of it during the move, before\nthe freeze.\n\n";
        text
    }
}

fn show(value: Option<f64>, digits: usize) -> String {
    value.map_or("-".into(), |value| format!("{value:.digits$}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_median_is_in_the_middle() {
        assert_eq!(median(vec![]), None);
        assert_eq!(median(vec![3.0, 1.0, 2.0]), Some(2.0));
        assert_eq!(median(vec![4.0, 1.0, 2.0, 3.0]), Some(2.5));
    }

    #[test]
    fn what_does_not_apply_is_null() {
        let row = Row {
            system: "podman+runc".into(),
            freeze_ms: Some(1.5),
            ..Row::default()
        };
        let json = serde_json::to_value(&row).unwrap();
        assert_eq!(json["freeze_ms"], 1.5);
        assert!(json["wire_bytes"].is_null());
        assert_eq!(json.as_object().unwrap().len(), 13);
        let table = Report { rows: vec![row] }.table();
        assert!(table.contains("podman+runc       -     -"), "{table}");
    }
}
