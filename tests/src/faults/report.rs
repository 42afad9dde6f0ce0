//! What came of the matrix, for people and for programs.

use std::{collections::BTreeMap, fmt::Write, fs, path::Path};

use anyhow::{Result, ensure};
use serde::Serialize;

use super::cell::Verdict;

/// `report.json`.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Cells that were run, whatever came of them.
    pub cells: usize,
    pub violations: usize,
    pub unreachable: usize,
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub phase: String,
    pub fault: String,
    /// `done` or `aborted`; null where it did not come so far.
    pub ended: Option<String>,
    pub violation: Option<String>,
    pub unreachable: Option<String>,
}

impl Report {
    pub fn add(&mut self, phase: String, fault: String, verdict: Verdict) {
        let mut row = Row {
            phase,
            fault,
            ended: None,
            violation: None,
            unreachable: None,
        };
        match verdict {
            Verdict::Held(phase) => row.ended = Some(phase),
            Verdict::Unreachable(why) => {
                self.unreachable += 1;
                row.unreachable = Some(why);
            }
            Verdict::Violated(how) => {
                self.violations += 1;
                row.violation = Some(how);
            }
        }
        self.cells += 1;
        self.rows.push(row);
    }

    /// A line a fault, a column a phase.
    pub fn table(&self) -> String {
        let mut phases: Vec<&str> = Vec::new();
        let mut lines: BTreeMap<&str, BTreeMap<&str, &str>> = BTreeMap::new();
        for row in &self.rows {
            if !phases.contains(&row.phase.as_str()) {
                phases.push(&row.phase);
            }
            let sign = match (&row.violation, &row.unreachable, &row.ended) {
                (Some(_), ..) => "VIOLATED",
                (_, Some(_), _) => "-",
                (.., Some(phase)) => phase.as_str(),
                _ => "?",
            };
            lines
                .entry(&row.fault)
                .or_default()
                .insert(&row.phase, sign);
        }
        let mut table = format!("{:<28}", "");
        for phase in &phases {
            let _ = write!(table, "{phase:<13}");
        }
        table.push('\n');
        for (fault, cells) in lines {
            let _ = write!(table, "{fault:<28}");
            for phase in &phases {
                let _ = write!(table, "{:<13}", cells.get(phase).copied().unwrap_or(""));
            }
            table.push('\n');
        }
        let _ = writeln!(
            table,
            "{} cells, {} violations, {} unreachable",
            self.cells, self.violations, self.unreachable
        );
        for row in &self.rows {
            if let Some(reason) = &row.unreachable {
                let _ = writeln!(
                    table,
                    "{} at {}: unreachable, {reason}",
                    row.fault, row.phase
                );
            }
        }
        for row in &self.rows {
            if let Some(violation) = &row.violation {
                let _ = writeln!(table, "{} at {}: {violation}", row.fault, row.phase);
            }
        }
        table
    }

    /// An error: something did not.
    pub fn holds(&self) -> Result<()> {
        ensure!(self.violations == 0, "{} violations", self.violations);
        Ok(())
    }

    pub fn write(&self, path: &Path) -> Result<()> {
        Ok(fs::write(path, serde_json::to_vec_pretty(self)?)?)
    }
}
