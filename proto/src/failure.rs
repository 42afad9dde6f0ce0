//! Errors across the wire: one exhaustive map from what was refused or failed to a gRPC code,
//! with the reason itself as details, so that the CLI can choose exit code and hint.

use godwit_types::{CommandFailure, FailureKind, Refusal};
use serde::{Deserialize, Serialize};
use tonic::{Code, Status};

/// What a status of ours carries in its details.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Problem {
    /// The cluster said no; nothing was changed.
    Refused(Refusal),
    /// A host tried and failed; what it had begun was undone.
    Failed(CommandFailure),
}

/// The whole chain of an error in one line, the outermost first.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        text.push_str(": ");
        text.push_str(&source.to_string());
        next = source.source();
    }
    text
}

pub fn refused(refusal: Refusal) -> Status {
    let code = match &refusal {
        Refusal::UnknownContainer { .. }
        | Refusal::UnknownHost { .. }
        | Refusal::UnknownNetwork { .. }
        | Refusal::UnknownMigration { .. }
        | Refusal::UnknownVolume { .. }
        | Refusal::UnknownMember { .. } => Code::NotFound,
        Refusal::NameInUse { .. } | Refusal::NetworkInUse { .. } | Refusal::MemberInUse { .. } => {
            Code::AlreadyExists
        }
        Refusal::AmbiguousContainer { .. }
        | Refusal::SubnetOverlaps { .. }
        | Refusal::Invalid { .. } => Code::InvalidArgument,
        Refusal::NoFreeAddress { .. } | Refusal::NoRoom { .. } => Code::ResourceExhausted,
        Refusal::HostDown { .. } => Code::Unavailable,
        Refusal::VolumeInUse { .. }
        | Refusal::PortInUse { .. }
        | Refusal::NetworkElsewhere { .. }
        | Refusal::NetworkShared { .. }
        | Refusal::HostNetwork { .. }
        | Refusal::NetworkUsed { .. }
        | Refusal::VolumeElsewhere { .. }
        | Refusal::VolumeGoing { .. }
        | Refusal::VolumeShared { .. }
        | Refusal::NoHostForImage { .. }
        | Refusal::ImageMissing { .. }
        | Refusal::HostDraining { .. }
        | Refusal::NoCriu { .. }
        | Refusal::NoHostMeets { .. }
        | Refusal::Constrained { .. }
        | Refusal::Changing { .. }
        | Refusal::CantBe { .. }
        | Refusal::AlreadyThere { .. }
        | Refusal::NotRunning { .. }
        | Refusal::StillRunning { .. }
        | Refusal::Migrating { .. }
        | Refusal::WrongPhase { .. }
        | Refusal::PastCommit { .. }
        | Refusal::NotRecoverable { .. }
        | Refusal::RunsThere { .. }
        | Refusal::StaleGeneration { .. }
        | Refusal::QuorumAtRisk { .. }
        | Refusal::MembersChanging { .. }
        | Refusal::CannotLead { .. } => Code::FailedPrecondition,
    };
    status(code, refusal.to_string(), &Problem::Refused(refusal))
}

pub fn failed(failure: CommandFailure) -> Status {
    let code = match failure.kind {
        FailureKind::NotFound => Code::NotFound,
        FailureKind::Stale
        | FailureKind::WrongState
        | FailureKind::CommandNotFound
        | FailureKind::CommandNotExecutable
        | FailureKind::NotConverging
        | FailureKind::NeverResumed
        | FailureKind::Unfit
        | FailureKind::Unmovable => Code::FailedPrecondition,
        FailureKind::Peer | FailureKind::Registry => Code::Unavailable,
        FailureKind::Internal => Code::Internal,
    };
    status(code, failure.message.clone(), &Problem::Failed(failure))
}

fn status(code: Code, message: String, problem: &Problem) -> Status {
    let details = serde_json::to_vec(problem).expect("a problem serializes to JSON");
    // Statuses travel in HTTP headers, which have a limit: a long text stays whole at its start.
    let message: String = message.chars().take(3000).collect();
    let details = if details.len() <= 4096 {
        details
    } else {
        Vec::new()
    };
    Status::with_details(code, message, details.into())
}

/// The problem that a status carries, None when it is not one of ours.
pub fn problem(status: &Status) -> Option<Problem> {
    serde_json::from_slice(status.details()).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_survives_the_status() {
        let refusal = Refusal::UnknownHost { host: "x".into() };
        let status = refused(refusal.clone());
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(problem(&status), Some(Problem::Refused(refusal)));
        assert_eq!(problem(&Status::internal("x")), None);
    }
}
