//! What `godwit run` exits with when the container did not start, as Docker does it.

use godwit_proto::failure::Problem;
use godwit_types::FailureKind;

/// Anything that kept the container from running.
pub const NOT_STARTED: u8 = 125;
/// The container's command can't be executed.
pub const NOT_EXECUTABLE: u8 = 126;
/// The container's command does not exist.
pub const NOT_FOUND: u8 = 127;
/// Ended by the user's Ctrl-C, as a shell reports SIGINT.
pub const INTERRUPTED: u8 = 130;
/// Ended by SIGKILL, as a shell reports it.
pub const KILLED: u8 = 137;

/// For a run that failed with this problem; None: it never came to a host.
pub fn of_start(problem: Option<&Problem>) -> u8 {
    match problem {
        Some(Problem::Failed(failure)) => match failure.kind {
            FailureKind::CommandNotExecutable => NOT_EXECUTABLE,
            FailureKind::CommandNotFound => NOT_FOUND,
            _ => NOT_STARTED,
        },
        Some(Problem::Refused(_)) | None => NOT_STARTED,
    }
}

/// For a container that ended with this code: a process can exit with no other than a byte.
pub fn of_container(code: i32) -> u8 {
    u8::try_from(code).unwrap_or(1)
}

#[cfg(test)]
mod tests {
    use godwit_types::{CommandFailure, Refusal};

    use super::*;

    #[test]
    fn the_kind_of_failure_chooses_the_code() {
        let failed = |kind| Problem::Failed(CommandFailure::new(kind, "x"));
        for (kind, code) in [
            (FailureKind::CommandNotFound, 127),
            (FailureKind::CommandNotExecutable, 126),
            (FailureKind::Internal, 125),
        ] {
            assert_eq!(of_start(Some(&failed(kind))), code);
        }
        let refused = Problem::Refused(Refusal::UnknownHost { host: "x".into() });
        assert_eq!(of_start(Some(&refused)), 125);
        assert_eq!(of_start(None), 125);
        assert_eq!(
            (of_container(0), of_container(143), of_container(-1)),
            (0, 143, 1)
        );
    }
}
