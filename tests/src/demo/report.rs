//! What the demo measured.

use std::fmt::Write;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::workload::redis::{Gap, Summary};

/// `report.json`
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Report {
    pub replies: u64,
    pub replies_wrong: u64,
    pub connections_lost: u64,
    /// How many.
    pub migrations: usize,
    pub moves: Vec<Move>,
    pub footprint: Footprint,
}

/// One migration.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Move {
    pub from: String,
    pub to: String,
    /// Stopped until running, as the leader measured it.
    pub freeze_ms: f64,
    /// The longest pause between two replies around it, as the client measured it.
    pub client_gap_ms: f64,
    pub total_ms: f64,
    pub bytes: u64,
    /// The freeze, step by step: name and milliseconds.
    pub steps: Vec<(String, f64)>,
    started_ms: u64,
}

/// Resident memory in MiB.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Footprint {
    pub agent_mib: f64,
    pub member_mib: f64,
    pub shim_mib: f64,
}

impl Move {
    /// From what `godwit migrate --format json` prints.
    pub fn of(migration: &Value) -> Result<Self> {
        let text = |key: &str| {
            migration[key]
                .as_str()
                .map(str::to_owned)
                .with_context(|| format!("no `{key}`"))
        };
        let micros = |value: &Value| value.as_f64().map(|micros| micros / 1000.0);
        let times = &migration["times"];
        let steps = times["steps"].as_array().cloned().unwrap_or_default();
        Ok(Self {
            from: text("from")?,
            to: text("to")?,
            freeze_ms: micros(&times["freeze_us"]).context("no `freeze_us`")?,
            client_gap_ms: 0.0,
            total_ms: micros(&times["total_us"]).context("no `total_us`")?,
            bytes: times["bytes"].as_u64().context("no `bytes`")?,
            steps: steps
                .iter()
                .filter_map(|step| {
                    Some((step["name"].as_str()?.to_owned(), micros(&step["micros"])?))
                })
                .collect(),
            started_ms: migration["started_ms"]
                .as_u64()
                .context("no `started_ms`")?,
        })
    }

    /// The longest pause that ended between the move's start and a second after its end.
    pub fn find_gap(&mut self, gaps: &[Gap]) {
        let end = self.started_ms + self.total_ms as u64 + 1000;
        self.client_gap_ms = gaps
            .iter()
            .filter(|gap| (self.started_ms..=end).contains(&gap.at_ms))
            .map(|gap| gap.gap_ms)
            .fold(0.0, f64::max);
    }

    pub fn line(&self) -> String {
        format!(
            "{} → {}: freeze {:.0} ms, total {:.0} ms, {:.1} MiB",
            self.from,
            self.to,
            self.freeze_ms,
            self.total_ms,
            self.bytes as f64 / 1_048_576.0
        )
    }
}

impl Report {
    pub fn new(summary: Summary, moves: Vec<Move>, footprint: Footprint) -> Self {
        Self {
            replies: summary.replies,
            replies_wrong: summary.replies_wrong,
            connections_lost: summary.connections_lost,
            migrations: moves.len(),
            moves,
            footprint,
        }
    }

    pub fn table(&self) -> String {
        let mut text = String::new();
        let _ = writeln!(
            text,
            "\n{:<10} {:>10} {:>14} {:>10} {:>10}",
            "MOVE", "FREEZE ms", "CLIENT GAP ms", "TOTAL ms", "MiB"
        );
        for moved in &self.moves {
            let _ = writeln!(
                text,
                "{:<10} {:>10.1} {:>14.1} {:>10.1} {:>10.1}",
                format!("{} → {}", moved.from, moved.to),
                moved.freeze_ms,
                moved.client_gap_ms,
                moved.total_ms,
                moved.bytes as f64 / 1_048_576.0
            );
        }
        let _ = writeln!(
            text,
            "\n{} replies, {} wrong, {} connections lost; resident: agent {:.0} MiB, \
             member {:.0} MiB, shim {:.0} MiB\n",
            self.replies,
            self.replies_wrong,
            self.connections_lost,
            self.footprint.agent_mib,
            self.footprint.member_mib,
            self.footprint.shim_mib
        );
        text
    }
}
