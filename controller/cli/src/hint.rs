//! What to do next about a failure, where there is something to do.

use std::error::Error;

use godwit_proto::failure::Problem;
use godwit_types::{CommandFailure, FailureKind, Refusal};
use tonic::Code;

use crate::{cluster::InitError, error::ClientError};

/// The hint for the first error of the chain that has one.
pub fn hint(error: &(dyn Error + 'static)) -> Option<String> {
    let mut next = Some(error);
    while let Some(error) = next {
        let found = if let Some(error) = error.downcast_ref::<ClientError>() {
            of_client(error)
        } else if let Some(failure) = error.downcast_ref::<CommandFailure>() {
            of_failure(failure)
        } else {
            error.downcast_ref::<InitError>().and_then(of_init)
        };
        if found.is_some() {
            return found;
        }
        next = error.source();
    }
    None
}

fn of_client(error: &ClientError) -> Option<String> {
    let text = match error {
        ClientError::NoConfig { .. } => {
            "`godwit cluster init` makes a cluster; copy its `admin` directory here, or name it \
             with `--config` or GODWIT_CONFIG"
        }
        ClientError::Role { .. } | ClientError::Credentials(_) => {
            "use the `admin` directory that `godwit cluster init` made"
        }
        ClientError::Unreachable { tried } => {
            if tried
                .iter()
                .any(|tried| tried.reason == "permission denied")
            {
                "who may open the socket is in the group `godwit`: `usermod -aG godwit USER`, then \
                 log in again"
            } else if tried
                .iter()
                .any(|tried| tried.reason.contains("certificate"))
            {
                "the credentials may be of another cluster: use the `admin` directory that \
                 `godwit cluster init` made for this one"
            } else {
                "check that `godwit-controller` runs on these machines and that they can be \
                 reached from here"
            }
        }
        ClientError::Broken(broken) if broken.is_refused_certificate() => {
            "the credentials may be of another cluster or out of date: use the `admin` directory \
             that `godwit cluster init` made for this one"
        }
        ClientError::Broken(_) => {
            "whether the request was carried out is not known: `godwit ps -a` and \
             `godwit migration ls` show it"
        }
        ClientError::Answer(answer) => {
            return match &answer.problem {
                Some(Problem::Refused(refusal)) => of_refusal(refusal),
                Some(Problem::Failed(failure)) => of_failure(failure),
                None => of_code(answer.code),
            };
        }
        ClientError::NoMigration => "`godwit migration ls` shows whether it began",
        ClientError::NoMember { .. } => "`godwit member ls` lists the members",
        ClientError::Config(_) | ClientError::NoMembers { .. } | ClientError::Document { .. } => {
            return None;
        }
    };
    Some(text.to_owned())
}

/// The hint for a refusal.
pub fn of_refusal(refusal: &Refusal) -> Option<String> {
    let text = match refusal {
        Refusal::UnknownContainer { .. } => "`godwit ps -a` lists the containers".into(),
        Refusal::AmbiguousContainer { .. } => {
            "give more of the id, or the name; `godwit ps -a` lists both".into()
        }
        Refusal::UnknownHost { .. } => "`godwit host ls` lists the hosts".into(),
        Refusal::UnknownNetwork { .. } => "`godwit network ls` lists the networks".into(),
        Refusal::UnknownMigration { .. } => "`godwit migration ls` lists the migrations".into(),
        Refusal::NameInUse { name } => {
            format!("choose another name, or remove that one with `godwit rm {name}`")
        }
        Refusal::NetworkInUse { .. } => "`godwit network ls` lists the networks".into(),
        Refusal::SubnetOverlaps { .. } => "without `--subnet` a free one is chosen".into(),
        Refusal::NoFreeAddress { .. } => {
            "remove containers that have ended, or make a larger network with \
             `godwit network create`"
                .into()
        }
        Refusal::NoHostForImage { .. } => {
            "load it with `godwit image load -i FILE`, or say which registry has it, as in \
             HOST/NAME; `godwit image ls` lists what hosts have"
                .into()
        }
        Refusal::HostDown { .. } => {
            "start `godwit-agent` there; `godwit host ls` shows when it is up".into()
        }
        Refusal::HostDraining { host } => {
            format!("`godwit host activate {host}` lets it take containers again")
        }
        Refusal::ImageMissing { host, .. } => {
            format!("`godwit image load -i FILE --host {host}` loads it there")
        }
        Refusal::NoRoom { .. } => "`godwit host ls` shows which host has room".into(),
        Refusal::NoCriu { .. } => "`godwit host ls -v` says what each host lacks".into(),
        Refusal::NotRunning { name, status } if status == "paused" => {
            format!("`godwit unpause {name}` lets it go on")
        }
        Refusal::NotRunning { name, status } if status == "created" => {
            format!("`godwit start {name}` starts it")
        }
        Refusal::NotRunning { .. } => "`godwit ps -a` shows what it is doing".into(),
        Refusal::StillRunning { name } => {
            format!("`godwit stop {name}` stops it, `godwit rm -f {name}` kills and removes it")
        }
        Refusal::Migrating { migration, .. } => {
            format!(
                "`godwit migration inspect {migration}` shows how far it is, `godwit migration \
                 cancel {migration}` takes it back"
            )
        }
        Refusal::PastCommit { migration } => {
            format!("`godwit migration inspect {migration}` says what it waits for, if it does")
        }
        Refusal::UnknownMember { .. } | Refusal::MemberInUse { .. } => {
            "`godwit member ls` lists the members".into()
        }
        Refusal::QuorumAtRisk { .. } => {
            "start what is down, or remove that instead; `godwit member ls` shows who is up".into()
        }
        Refusal::MembersChanging { .. } => {
            "`godwit member ls` shows how far it is; try again then".into()
        }
        Refusal::UnknownVolume { .. } => "`godwit volume ls` lists the volumes".into(),
        Refusal::VolumeInUse { name, .. } => {
            format!("`godwit rm {name}` removes that container; its named volumes stay")
        }
        Refusal::VolumeElsewhere { host, .. } => {
            format!("run it with `--host {host}`, or without `--host`")
        }
        Refusal::VolumeGoing { .. } => "try again when `godwit volume ls` shows it no more".into(),
        Refusal::VolumeShared { other, .. } => {
            format!("remove `{other}` with `godwit rm {other}`, or leave both where they are")
        }
        Refusal::PortInUse { name, .. } => {
            format!("publish another port, or stop that container with `godwit stop {name}`")
        }
        Refusal::NetworkElsewhere { host, .. } => {
            format!("run it with `--host {host}`, or without `--host`")
        }
        Refusal::NetworkShared { other, .. } => {
            format!("remove `{other}` with `godwit rm {other}`, or leave both where they are")
        }
        Refusal::HostNetwork { .. } => {
            "run it on a network of the cluster, and publish its ports with `-p`".into()
        }
        Refusal::NetworkUsed { name, .. } => format!("`godwit rm {name}` removes that container"),
        Refusal::Changing { .. } => "`godwit ps -a` shows when it is done; then ask again".into(),
        Refusal::CantBe { name, status, .. } if status == "paused" => {
            format!("`godwit unpause {name}` lets it go on")
        }
        Refusal::CantBe { .. } => "`godwit ps -a` shows what it is doing".into(),
        Refusal::NoHostMeets { .. } | Refusal::Constrained { .. } => {
            "`godwit host ls --labels` lists the labels, `godwit host update --label` sets them"
                .into()
        }
        Refusal::AlreadyThere { .. }
        | Refusal::CannotLead { .. }
        | Refusal::WrongPhase { .. }
        | Refusal::NotRecoverable { .. }
        | Refusal::RunsThere { .. }
        | Refusal::StaleGeneration { .. }
        | Refusal::Invalid { .. } => return None,
    };
    Some(text)
}

fn of_failure(failure: &CommandFailure) -> Option<String> {
    let text = match failure.kind {
        FailureKind::CommandNotFound => "the image has no such program; check COMMAND",
        FailureKind::CommandNotExecutable => {
            "check the program's mode, and that it is built for this host's architecture"
        }
        FailureKind::Unfit => "`godwit host ls -v` says what each host lacks",
        FailureKind::Unmovable => {
            "have the program do without it, or stop the container here and run it there"
        }
        FailureKind::Registry => {
            "check the name and the registry; `godwit login` gives credentials, and the \
             configuration of the agents' images has mirrors and insecure registries"
        }
        FailureKind::Peer => "check that the hosts reach each other's agents, and try again",
        FailureKind::NotConverging => {
            "raise `--max-downtime` or `--max-bandwidth`, or accept the freeze with `--mode stop`"
        }
        FailureKind::Stale => "the container has moved on meanwhile; try again",
        FailureKind::NeverResumed => "the container is back where it was; try again",
        FailureKind::NotFound | FailureKind::WrongState | FailureKind::Internal => return None,
    };
    Some(text.to_owned())
}

fn of_code(code: Code) -> Option<String> {
    let text = match code {
        Code::Unavailable => {
            "the members have no leader: a majority must run; `godwit member ls` shows them when \
             one answers"
        }
        Code::Unauthenticated | Code::PermissionDenied => {
            "use the `admin` directory that `godwit cluster init` made"
        }
        Code::Unimplemented => "the members run another version than this program",
        _ => return None,
    };
    Some(text.to_owned())
}

fn of_init(error: &InitError) -> Option<String> {
    match error {
        InitError::NotEmpty(_) => Some(
            "a cluster's certificate authority is never overwritten; give another directory".into(),
        ),
        InitError::MemberCount(_) => Some(
            "3 members survive the loss of one, 5 of two; an even number survives no more".into(),
        ),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use godwit_proto::failure;
    use godwit_types::HostName;

    use super::*;

    fn client(status: tonic::Status) -> Option<String> {
        hint(&ClientError::of_status("m1", status))
    }

    #[test]
    fn a_refusal_leads_to_the_command_that_helps() {
        let refused = failure::refused(Refusal::UnknownHost { host: "h9".into() });
        assert_eq!(client(refused).unwrap(), "`godwit host ls` lists the hosts");
        let missing = failure::refused(Refusal::ImageMissing {
            host: HostName::new("h2").unwrap(),
            image: "redis".into(),
        });
        assert_eq!(
            client(missing).unwrap(),
            "`godwit image load -i FILE --host h2` loads it there"
        );
    }

    #[test]
    fn a_failure_and_a_bare_code_have_hints_too() {
        let failed = failure::failed(CommandFailure::new(FailureKind::Unfit, "no CRIU"));
        assert!(client(failed).unwrap().contains("host ls -v"));
        assert!(
            client(tonic::Status::permission_denied("x"))
                .unwrap()
                .contains("admin")
        );
        assert_eq!(client(tonic::Status::internal("x")), None);
    }

    #[test]
    fn the_hint_is_found_below_context() {
        let error = anyhow::Error::new(InitError::MemberCount(2)).context("no cluster was made");
        assert!(hint(error.as_ref()).unwrap().contains("3 members"));
    }
}
