//! Whether and when an instance that has ended is started again. Pure.

use std::time::Duration;

use godwit_types::{Exit, InstanceState};

use crate::ledger::{Record, Role};

const FIRST: Duration = Duration::from_millis(100);
const LONGEST: Duration = Duration::from_secs(60);
/// Whoever ran so long is not about to fail at once again.
const RAN_WELL: Duration = Duration::from_secs(10);

/// How it ended, if it is to be started again. Never while a migration may take it elsewhere: the
/// cluster may have given it to another host by then.
pub fn due(record: &Record, known: Option<&InstanceState>) -> Option<Exit> {
    let Role::Owner { spec, .. } = &record.role else {
        return None;
    };
    let Some(InstanceState::Exited { exit }) = known else {
        return None;
    };
    let life = &record.life;
    let policy = spec.options.policy.restart;
    let wanted = !life.stopped
        && life.leaving.is_none()
        && record.begun.is_none()
        && policy.applies(exit.code, life.details.restarts);
    wanted.then_some(*exit)
}

/// How long to wait before the next start. `last`: the wait before the run that has ended, None
/// for the first; `ran`: how long that was.
pub fn pause(last: Option<Duration>, ran: Duration) -> Duration {
    match last {
        Some(last) if ran < RAN_WELL => (last * 2).min(LONGEST),
        _ => FIRST,
    }
}

#[cfg(test)]
mod tests {
    use godwit_types::{
        ContainerId, ContainerSpec, Digest, Generation, Limits, MigrationId, Options, RestartPolicy,
    };

    use super::*;

    fn record(restart: RestartPolicy) -> Record {
        let mut options = Options::default();
        options.policy.restart = restart;
        let spec = ContainerSpec {
            name: "web".parse().unwrap(),
            image: "web".parse().unwrap(),
            image_id: Digest::from_sha256([1; 32]),
            command: Vec::new(),
            env: Vec::new(),
            limits: Limits::default(),
            network: None,
            hostname: String::new(),
            options,
        };
        let mut record = Record::unknown(ContainerId::from_bytes([1; 32]), 0);
        record.role = Role::Owner {
            generation: Generation::FIRST,
            spec: Box::new(spec),
            arrived: None,
        };
        record
    }

    fn exited(code: i32) -> InstanceState {
        InstanceState::Exited {
            exit: Exit { code, at_ms: 1 },
        }
    }

    #[test]
    fn what_was_stopped_or_is_leaving_stays_down() {
        let mut record = record(RestartPolicy::Always);
        assert!(due(&record, Some(&exited(0))).is_some());
        record.life.leaving = Some(MigrationId::from_bytes([1; 8]));
        assert_eq!(due(&record, Some(&exited(0))), None);
        record.life.leaving = None;
        record.life.stopped = true;
        assert_eq!(due(&record, Some(&exited(0))), None);
    }

    #[test]
    fn only_an_owner_starts_and_only_what_has_ended() {
        let mut record = record(RestartPolicy::Always);
        assert_eq!(due(&record, Some(&InstanceState::Running { pid: 1 })), None);
        assert_eq!(due(&record, None), None);
        // After the host was started again only the leader knows whose it is.
        let lost = InstanceState::Lost { reason: "x".into() };
        assert_eq!(due(&record, Some(&lost)), None);
        record.role = Role::None { since_ms: 0 };
        assert_eq!(due(&record, Some(&exited(0))), None);
    }

    #[test]
    fn failures_are_counted() {
        let mut record = record(RestartPolicy::OnFailure { retries: 2 });
        assert!(due(&record, Some(&exited(1))).is_some());
        assert_eq!(due(&record, Some(&exited(0))), None);
        record.life.details.restarts = 2;
        assert_eq!(due(&record, Some(&exited(1))), None);
    }

    #[test]
    fn the_pause_doubles_up_to_a_minute_and_begins_anew_after_a_good_run() {
        let short = Duration::from_millis(5);
        let mut last = None;
        let mut all = Vec::new();
        for _ in 0..12 {
            let next = pause(last, short);
            all.push(next.as_millis());
            last = Some(next);
        }
        assert_eq!(&all[..4], [100, 200, 400, 800]);
        assert_eq!(all[11], 60_000);
        assert_eq!(pause(last, RAN_WELL), FIRST);
    }
}
