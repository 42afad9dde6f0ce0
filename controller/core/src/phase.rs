//! The hand-over as a table: what leads to each phase, and what undoes it.
//!
//! ```text
//! Pending → Preflight → Reserved → PreCopy → Frozen → Transferred → Staged → COMMITTED
//!      └──────── anything before COMMITTED: Aborting → Aborted     Done ← Resumed ←┤
//!                                              └──────── recovered ───────────────┘
//! ```
//!
//! After the commit one way leads back, and not by this table: [`Command::TakeBack`] makes the source
//! the owner again by a third generation, where the destination never resumed. Its acts are those
//! of the undo.
//!
//! [`Command::TakeBack`]: crate::Command::TakeBack
//!
//! A stored phase says what *has been done*: a leader that finds one repeats the act of the next
//! row, by the same operation id. That is why an act may have been done already when its phase
//! is not stored yet, and why every row before the commit has the whole undo.

use godwit_types::Phase;

/// Who is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Side {
    Source,
    Destination,
}

/// What is asked of a host. The numbers are part of operation ids: never reuse one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Act {
    CheckSource = 1,
    CheckDestination = 2,
    Prepare = 3,
    Freeze = 4,
    Transfer = 5,
    Stage = 6,
    Resume = 7,
    Release = 8,
    Discard = 9,
    Thaw = 10,
    PreCopy = 11,
}

impl Act {
    pub fn side(self) -> Side {
        match self {
            Self::CheckSource
            | Self::PreCopy
            | Self::Freeze
            | Self::Transfer
            | Self::Release
            | Self::Thaw => Side::Source,
            Self::CheckDestination | Self::Prepare | Self::Stage | Self::Resume | Self::Discard => {
                Side::Destination
            }
        }
    }
}

/// How a row is taken back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Undo {
    /// Ask all of these, in any order, until each has answered.
    Ask(&'static [Act]),
    /// It is not: only forward.
    Never,
}

/// One line of the table.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// Stored when all acts were answered.
    pub phase: Phase,
    /// In this order. Empty: Raft alone decides.
    pub acts: &'static [Act],
    pub undo: Undo,
}

/// Discard wipes the destination, Thaw lets the source run. They need no order between them:
/// the destination can't run without a commit, and after `Aborting` there is none.
const BOTH: Undo = Undo::Ask(&[Act::Discard, Act::Thaw]);

const fn entry(phase: Phase, acts: &'static [Act], undo: Undo) -> Row {
    Row { phase, acts, undo }
}

pub const TABLE: [Row; 9] = [
    entry(
        Phase::Preflight,
        &[Act::CheckSource, Act::CheckDestination],
        BOTH,
    ),
    entry(Phase::Reserved, &[Act::Prepare], BOTH),
    entry(Phase::PreCopy, &[Act::PreCopy], BOTH),
    entry(Phase::Frozen, &[Act::Freeze], BOTH),
    entry(Phase::Transferred, &[Act::Transfer], BOTH),
    entry(Phase::Staged, &[Act::Stage], BOTH),
    entry(Phase::Committed, &[], Undo::Never),
    entry(Phase::Resumed, &[Act::Resume], Undo::Never),
    entry(Phase::Done, &[Act::Release], Undo::Never),
];

/// The table's line for this phase; None for the first phase and those of an abort.
pub fn row(phase: Phase) -> Option<&'static Row> {
    TABLE.iter().find(|row| row.phase == phase)
}

/// The line that comes after this phase, None when nothing does or the migration is aborted.
pub fn next(phase: Phase) -> Option<&'static Row> {
    match phase {
        Phase::Pending => TABLE.first(),
        Phase::Done | Phase::Aborting | Phase::Aborted => None,
        _ => {
            let at = TABLE.iter().position(|row| row.phase == phase)?;
            TABLE.get(at + 1)
        }
    }
}

/// Whether `to` may be stored right after `from`.
pub fn follows(from: Phase, to: Phase) -> bool {
    match to {
        Phase::Aborting => abortable(from),
        Phase::Aborted => from == Phase::Aborting,
        _ => next(from).is_some_and(|row| row.phase == to),
    }
}

/// Whether a migration in this phase can still be taken back.
pub fn abortable(phase: Phase) -> bool {
    !phase.is_committed() && !matches!(phase, Phase::Aborting | Phase::Aborted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_way_forward_and_one_point_of_no_return() {
        let mut phase = Phase::Pending;
        let mut way = vec![phase];
        while let Some(row) = next(phase) {
            assert!(follows(phase, row.phase));
            assert_eq!(row.undo == Undo::Never, row.phase.is_committed());
            phase = row.phase;
            way.push(phase);
        }
        assert_eq!(way, Phase::ALL[..10]);
        for from in Phase::ALL {
            let forward = Phase::ALL
                .into_iter()
                .filter(|to| follows(from, *to))
                .count();
            let expected = match from {
                Phase::Done | Phase::Aborted => 0,
                Phase::Aborting | Phase::Committed | Phase::Resumed => 1,
                _ => 2,
            };
            assert_eq!(forward, expected, "{from}");
            assert!(!follows(from, from));
        }
    }
}
