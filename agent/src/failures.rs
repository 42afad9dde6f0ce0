//! Errors of the runtime as what the leader is told: whose fault, and the whole chain of causes.

use godwit_proto::failure::chain;
use godwit_runtime::RuntimeError;
use godwit_types::{CommandFailure, FailureKind, HostName};

/// The one map from the runtime's errors to kinds of failure.
pub fn of_runtime(error: &RuntimeError) -> CommandFailure {
    let kind = match error {
        RuntimeError::NotFound(_) => FailureKind::NotFound,
        RuntimeError::WrongState { .. } => FailureKind::WrongState,
        RuntimeError::CommandNotFound(_)
        | RuntimeError::NoCommand(_)
        | RuntimeError::NoWorkingDir(_) => FailureKind::CommandNotFound,
        RuntimeError::CommandNotExecutable { .. } => FailureKind::CommandNotExecutable,
        RuntimeError::MemoryLost(_) => FailureKind::WrongState,
        RuntimeError::NoImage(_)
        | RuntimeError::NoRoom { .. }
        | RuntimeError::NoMemory { .. }
        | RuntimeError::NoBindSource(_)
        | RuntimeError::NoCriu(_) => FailureKind::Unfit,
        RuntimeError::Bundle(_) | RuntimeError::Sysctl { .. } => FailureKind::Unfit,
        RuntimeError::Unmovable(_) => FailureKind::Unmovable,
        RuntimeError::Io { .. }
        | RuntimeError::Stored { .. }
        | RuntimeError::ShimStart { .. }
        | RuntimeError::Shim(_)
        | RuntimeError::Image(_)
        | RuntimeError::Author(_)
        | RuntimeError::LeftBehind { .. }
        | RuntimeError::Memory(_)
        | RuntimeError::Rootfs(_)
        | RuntimeError::Diff(_)
        | RuntimeError::Volume(_)
        | RuntimeError::Network(_)
        | RuntimeError::Cgroup(_)
        | RuntimeError::User(_) => FailureKind::Internal,
    };
    CommandFailure::new(kind, chain(error))
}

pub fn internal(error: &(dyn std::error::Error + 'static)) -> CommandFailure {
    CommandFailure::new(FailureKind::Internal, chain(error))
}

/// Names the host, since the reader sees the failures of several.
pub fn on_host(host: &HostName, mut failure: CommandFailure) -> CommandFailure {
    failure.message = format!("host `{host}`: {}", failure.message);
    failure
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_has_its_kind_and_names_its_host() {
        let failure = of_runtime(&RuntimeError::NoRoom { need: 2, free: 1 });
        assert_eq!(failure.kind, FailureKind::Unfit);
        let failure = on_host(&HostName::new("h1").unwrap(), failure);
        assert_eq!(
            failure.message,
            "host `h1`: no room: 2 bytes needed, 1 free"
        );
    }
}
