//! Which cells of the matrix there are: what can break at which point. The only ones that are left
//! out are those in which the program that would break does not run; each with its reason.

use godwit_types::Phase;

use super::{
    fault::{Fault, Program, Whose},
    point::{Point, all as points},
};

/// Why there is nothing to break. None: there is.
pub fn unreachable(fault: Fault, phase: Phase) -> Option<&'static str> {
    let (whose, program) = match fault {
        Fault::Kill(whose, program) | Fault::Stop(whose, program) => (whose, program),
        Fault::Cut(..)
        | Fault::Full(..)
        | Fault::Reset
        | Fault::Twice(_)
        | Fault::Late(_)
        | Fault::User(_) => return None,
    };
    match (whose, program, phase) {
        (_, Program::Agent | Program::Member, _) | (Whose::Source, Program::Shim, _) => None,
        (Whose::Destination, Program::Shim, Phase::Pending | Phase::Preflight) => {
            Some("the container has no shim there before it is prepared")
        }
        (Whose::Destination, Program::Shim, _) => None,
        (
            Whose::Source,
            Program::Criu,
            Phase::Pending | Phase::Preflight | Phase::Reserved | Phase::PreCopy,
        ) => Some("criu is started by the freeze"),
        (Whose::Source, Program::Criu, _) => None,
        (Whose::Destination, Program::Criu, Phase::Pending | Phase::Preflight) => {
            Some("criu is started when the container is prepared")
        }
        (Whose::Destination, Program::Criu, Phase::Resumed) => Some("criu ends with the resume"),
        (Whose::Destination, Program::Criu, _) => None,
        (Whose::Leader | Whose::Follower, Program::Shim | Program::Criu, _) => {
            Some("a member has no container")
        }
    }
}

/// A cell for every fault, so that every point comes, too.
pub fn fast() -> Vec<(Point, Fault)> {
    let points = points();
    let faults = Fault::all().into_iter().enumerate();
    faults
        .filter_map(|(number, fault)| {
            let turned = (0..points.len()).map(|next| points[(number + next) % points.len()]);
            let mut reached = turned.filter(|point| unreachable(fault, point.phase).is_none());
            Some((reached.next()?, fault))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn the_fast_part_has_every_fault_and_every_phase() {
        let cells = fast();
        assert_eq!(cells.len(), Fault::all().len());
        let phases: BTreeSet<_> = cells
            .iter()
            .map(|(point, _)| point.phase.to_string())
            .collect();
        assert_eq!(phases.len(), points().len(), "{phases:?}");
    }

    #[test]
    fn every_fault_is_reached_somewhere() {
        for fault in Fault::all() {
            let reached = points()
                .iter()
                .filter(|point| unreachable(fault, point.phase).is_none())
                .count();
            assert!(reached >= 5, "{fault}: {reached}");
        }
    }
}
