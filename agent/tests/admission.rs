//! Fencing and repetition, as the container's task decides them: admit, conclude, admit again.

use godwit_agent::{
    container::{
        admission::{Admission, Meanwhile, admit, meanwhile},
        effect::{self, After},
    },
    ledger::{Record, Role},
};
use godwit_types::{
    AgentCommand, CommandFailure, ContainerId, ContainerSpec, Exit, FailureKind, Generation,
    HostName, InstanceState, MigrationId, OperationId, Outcome, Verb,
};

fn id() -> ContainerId {
    ContainerId::from_bytes([1; 32])
}

fn migration(byte: u8) -> MigrationId {
    MigrationId::from_bytes([byte; 8])
}

fn spec() -> Box<ContainerSpec> {
    Box::new(ContainerSpec {
        name: "web".parse().unwrap(),
        image: "redis:7".parse().unwrap(),
        image_id: format!("sha256:{}", "0a".repeat(32)).parse().unwrap(),
        command: vec![],
        env: vec![],
        limits: Default::default(),
        network: None,
        hostname: String::new(),
        options: godwit_types::Options::default(),
    })
}

fn run(generation: u64) -> Verb {
    Verb::Run {
        container: id(),
        generation: Generation(generation),
        spec: spec(),
    }
}

fn prepare(by: u8, generation: u64) -> Verb {
    Verb::Prepare {
        migration: migration(by),
        container: id(),
        generation: Generation(generation),
        spec: spec(),
        from: HostName::new("h1").unwrap(),
        options: Default::default(),
        details: Default::default(),
    }
}

macro_rules! of_migration {
    ($($name:ident $verb:ident),*) => {$(
        fn $name(by: u8, generation: u64) -> Verb {
            Verb::$verb {
                migration: migration(by),
                container: id(),
                generation: Generation(generation),
            }
        }
    )*};
}
of_migration!(stage Stage, resume Resume, thaw Thaw);

fn release(by: u8, generation: u64) -> Verb {
    Verb::Release {
        migration: migration(by),
        container: id(),
        generation: Generation(generation),
        after: None,
    }
}

fn freeze(by: u8, generation: u64) -> Verb {
    Verb::Freeze {
        migration: migration(by),
        container: id(),
        generation: Generation(generation),
        options: Default::default(),
    }
}

fn pre_copy(by: u8, generation: u64) -> Verb {
    Verb::PreCopy {
        migration: migration(by),
        container: id(),
        generation: Generation(generation),
        to: HostName::new("h2").unwrap(),
        address: "10.0.0.2:1".into(),
        options: Default::default(),
    }
}

fn sample(generation: u64) -> Verb {
    Verb::Sample {
        container: id(),
        generation: Generation(generation),
        millis: 10,
        options: Default::default(),
    }
}

fn discard(by: u8) -> Verb {
    Verb::Discard {
        migration: migration(by),
        container: id(),
        generation: None,
    }
}

fn transfer(by: u8, generation: u64) -> Verb {
    Verb::Transfer {
        migration: migration(by),
        container: id(),
        generation: Generation(generation),
        to: HostName::new("h2").unwrap(),
        address: "10.0.0.2:1".into(),
    }
}

/// A container's task without its runtime: what would be done succeeds with `outcome`.
struct Host {
    record: Record,
    known: Option<InstanceState>,
    asked: u8,
}

impl Host {
    fn new() -> Self {
        Self {
            record: Record::unknown(id(), 0),
            known: None,
            asked: 0,
        }
    }

    fn command(&mut self, verb: Verb) -> AgentCommand {
        self.asked += 1;
        AgentCommand {
            operation: OperationId::from_bytes([self.asked; 16]),
            verb,
        }
    }

    fn admit(&mut self, verb: Verb) -> Admission {
        let command = self.command(verb);
        admit(&self.record, self.known.as_ref(), &command)
    }

    /// Why it is refused.
    fn refused(&mut self, verb: Verb) -> FailureKind {
        match self.admit(verb) {
            Admission::Refuse(failure) => failure.kind,
            other => panic!("not refused: {other:?}"),
        }
    }

    fn done(&mut self, verb: Verb, answer: Result<Outcome, CommandFailure>) -> AgentCommand {
        let command = self.command(verb);
        self.finish(&command, answer);
        command
    }

    fn finish(&mut self, command: &AgentCommand, answer: Result<Outcome, CommandFailure>) {
        let admission = admit(&self.record, self.known.as_ref(), command);
        assert_eq!(admission, Admission::Perform, "{command:?}");
        if let Some(intent) = effect::begin(&self.record, command) {
            self.record = intent;
        }
        self.record = effect::conclude(&self.record, command, &answer, 5);
        match effect::state(&self.record, &command.verb, &answer) {
            After::Same | After::Ask => {}
            After::Is(state) => self.known = Some(state),
            After::Gone => self.known = None,
        }
    }

    fn running(generation: u64) -> Self {
        let mut host = Self::new();
        host.done(run(generation), Ok(Outcome::Running { pid: 7 }));
        host
    }

    fn frozen(generation: u64, by: u8) -> Self {
        let mut host = Self::running(generation);
        host.done(
            freeze(by, generation),
            Ok(Outcome::Frozen { steps: vec![] }),
        );
        host
    }

    fn prepared(generation: u64, by: u8) -> Self {
        let mut host = Self::new();
        host.done(prepare(by, generation), Ok(Outcome::Done));
        host
    }
}

fn broken() -> Result<Outcome, CommandFailure> {
    Err(CommandFailure::new(FailureKind::Internal, "broken"))
}

#[test]
fn an_operation_that_was_answered_is_answered_again() {
    let mut host = Host::new();
    let command = host.done(run(1), Ok(Outcome::Running { pid: 7 }));
    // The instance has ended since; the answer is the same.
    host.known = Some(InstanceState::Exited {
        exit: Exit { code: 0, at_ms: 1 },
    });
    let again = Admission::Again(Ok(Outcome::Running { pid: 7 }));
    assert_eq!(admit(&host.record, host.known.as_ref(), &command), again);

    // A failure too, where what it had begun was undone.
    let mut host = Host::new();
    let command = host.done(run(1), broken());
    assert_eq!(
        admit(&host.record, None, &command),
        Admission::Again(broken())
    );
    assert!(matches!(host.record.role, Role::None { .. }));
}

#[test]
fn what_must_succeed_in_the_end_is_tried_again() {
    let mut host = Host::frozen(1, 9);
    let command = host.done(release(9, 1), broken());
    assert_eq!(
        admit(&host.record, host.known.as_ref(), &command),
        Admission::Perform
    );
    host.finish(&command, Ok(Outcome::Done));
    let again = Admission::Again(Ok(Outcome::Done));
    assert_eq!(admit(&host.record, host.known.as_ref(), &command), again);
}

#[test]
fn a_lower_generation_is_stale_even_after_the_container_left() {
    let mut host = Host::running(3);
    assert_eq!(host.refused(freeze(9, 2)), FailureKind::Stale);
    let frozen = host.done(freeze(9, 3), Ok(Outcome::Frozen { steps: vec![] }));
    assert_eq!(frozen.verb.name(), "freeze");
    host.done(release(9, 3), Ok(Outcome::Done));
    assert_eq!(host.known, None);
    assert_eq!(host.record.highest, Generation(3));
    for verb in [run(2), prepare(8, 2)] {
        assert_eq!(host.refused(verb), FailureKind::Stale);
    }
    // Nor does the one it left with bring it back; the next one does.
    for verb in [run(3), prepare(8, 3)] {
        assert_eq!(host.refused(verb), FailureKind::Stale);
    }
    assert_eq!(host.admit(prepare(8, 5)), Admission::Perform);
}

#[test]
fn the_way_in_has_one_order_and_ends_as_owner() {
    let mut host = Host::prepared(2, 9);
    assert!(matches!(host.known, Some(InstanceState::Staged { .. })));
    assert_eq!(host.refused(stage(8, 2)), FailureKind::WrongState);
    assert_eq!(host.refused(stage(9, 3)), FailureKind::WrongState);
    assert_eq!(host.refused(freeze(9, 2)), FailureKind::WrongState);
    host.done(stage(9, 2), Ok(Outcome::Staged { steps: vec![] }));
    host.done(
        resume(9, 2),
        Ok(Outcome::Resumed {
            pid: 8,
            steps: vec![],
        }),
    );
    let Role::Owner { generation, .. } = host.record.role else {
        panic!("not the owner")
    };
    assert_eq!(generation, Generation(2));
    assert_eq!(host.known, Some(InstanceState::Running { pid: 8 }));
    // After the commit there is no way back.
    assert_eq!(host.refused(discard(9)), FailureKind::WrongState);
    assert_eq!(host.admit(resume(9, 2)), Admission::Perform);
}

#[test]
fn nothing_of_a_migration_begins_after_its_end() {
    let mut host = Host::prepared(2, 9);
    host.done(discard(9), Ok(Outcome::Done));
    assert_eq!(host.known, None);
    for verb in [prepare(9, 2), stage(9, 2), resume(9, 2)] {
        assert_eq!(host.refused(verb), FailureKind::WrongState);
    }
    // The undo itself may be asked again, and the next migration has the same generation.
    assert_eq!(host.admit(discard(9)), Admission::Already(Outcome::Done));
    assert_eq!(host.admit(prepare(8, 2)), Admission::Perform);

    let mut host = Host::frozen(1, 9);
    host.done(thaw(9, 1), Ok(Outcome::Done));
    host.known = Some(InstanceState::Running { pid: 7 });
    for verb in [freeze(9, 1), transfer(9, 1), release(9, 1)] {
        assert_eq!(host.refused(verb), FailureKind::WrongState);
    }
    assert_eq!(host.admit(thaw(9, 1)), Admission::Perform);
    assert_eq!(host.admit(freeze(8, 1)), Admission::Perform);
}

#[test]
fn rounds_are_the_owners_and_end_with_the_migration() {
    let mut host = Host::running(1);
    assert_eq!(host.admit(sample(1)), Admission::Perform);
    let copied = Outcome::PreCopied {
        rounds: vec![],
        bytes: 0,
        predicted_freeze_us: 0,
    };
    let command = host.done(pre_copy(9, 1), Ok(copied.clone()));
    assert_eq!(host.known, Some(InstanceState::Running { pid: 7 }));
    let again = admit(&host.record, host.known.as_ref(), &command);
    assert_eq!(again, Admission::Again(Ok(copied)));
    // The undo of what only sent rounds, and then nothing of it any more.
    host.done(thaw(9, 1), Ok(Outcome::Done));
    host.known = Some(InstanceState::Running { pid: 7 });
    assert_eq!(host.refused(pre_copy(9, 1)), FailureKind::WrongState);
    assert_eq!(host.refused(pre_copy(8, 0)), FailureKind::Stale);
    assert_eq!(host.refused(sample(2)), FailureKind::WrongState);
    host.known = Some(InstanceState::Frozen {
        migration: migration(8),
    });
    assert_eq!(host.refused(pre_copy(7, 1)), FailureKind::WrongState);
    assert_eq!(Host::new().refused(pre_copy(9, 1)), FailureKind::NotFound);
}

#[test]
fn a_late_undo_of_another_migration_does_nothing() {
    let mut host = Host::frozen(1, 9);
    assert_eq!(host.admit(thaw(8, 1)), Admission::Already(Outcome::Done));
    assert_eq!(host.refused(release(8, 1)), FailureKind::WrongState);
    let mut host = Host::prepared(2, 9);
    assert_eq!(host.admit(discard(8)), Admission::Already(Outcome::Done));
}

#[test]
fn an_undo_is_done_where_there_is_nothing_to_undo() {
    let mut host = Host::new();
    assert_eq!(host.admit(discard(9)), Admission::Already(Outcome::Done));
    assert_eq!(host.admit(thaw(9, 1)), Admission::Already(Outcome::Done));
}

#[test]
fn the_undo_of_a_container_that_has_ended_lets_go_of_what_pre_copy_keeps() {
    let mut host = Host::running(1);
    host.known = Some(InstanceState::Exited {
        exit: Exit { code: 1, at_ms: 1 },
    });
    assert_eq!(host.admit(thaw(9, 1)), Admission::Perform);
    let command = host.done(thaw(9, 1), Ok(Outcome::Done));
    let after = effect::state(&host.record, &command.verb, &Ok(Outcome::Done));
    assert_eq!(after, After::Ask);
}

#[test]
fn an_intent_makes_a_begun_run_ours_after_a_crash() {
    let mut host = Host::new();
    let command = host.command(run(1));
    host.record = effect::begin(&host.record, &command).unwrap();
    // The container was started before the crash, or it was not.
    let running = Some(InstanceState::Running { pid: 7 });
    let already = Admission::Already(Outcome::Running { pid: 7 });
    assert_eq!(admit(&host.record, running.as_ref(), &command), already);
    assert_eq!(admit(&host.record, None, &command), Admission::Perform);
    // Another operation does not take it over.
    host.known = running;
    assert_eq!(host.refused(run(1)), FailureKind::WrongState);
}

#[test]
fn a_resume_that_was_not_written_is_found_by_its_effect() {
    let host = Host::prepared(2, 9);
    let staged = InstanceState::Staged {
        migration: migration(9),
    };
    assert_eq!(effect::found(&host.record, &staged), host.record);
    let found = effect::found(&host.record, &InstanceState::Running { pid: 3 });
    assert!(matches!(found.role, Role::Owner { .. }));
}

#[test]
fn a_freeze_that_was_not_written_is_found_by_its_effect() {
    let mut host = Host::running(1);
    host.known = Some(InstanceState::Frozen {
        migration: migration(9),
    });
    let already = Admission::Already(Outcome::Frozen { steps: vec![] });
    assert_eq!(host.admit(freeze(9, 1)), already);
    assert_eq!(host.refused(freeze(8, 1)), FailureKind::WrongState);
}

#[test]
fn only_the_undo_of_the_same_migration_interrupts() {
    let mut host = Host::frozen(1, 9);
    let current = host.command(transfer(9, 1));
    let asks = |host: &mut Host, verb| {
        let next = host.command(verb);
        meanwhile(&host.record, host.known.as_ref(), &current, &next)
    };
    assert_eq!(asks(&mut host, thaw(9, 1)), Meanwhile::Interrupt);
    assert_eq!(asks(&mut host, thaw(8, 1)), Meanwhile::Wait);
    // Stale: it will be refused, and must not have stopped anything.
    assert_eq!(asks(&mut host, thaw(9, 0)), Meanwhile::Wait);
    assert_eq!(asks(&mut host, release(9, 1)), Meanwhile::Wait);
    assert_eq!(
        meanwhile(&host.record, None, &current, &current),
        Meanwhile::Join
    );

    // The rounds go on while the container runs, and after it has ended.
    let mut host = Host::running(1);
    let current = host.command(pre_copy(9, 1));
    let asks = |host: &mut Host, verb| {
        let next = host.command(verb);
        meanwhile(&host.record, host.known.as_ref(), &current, &next)
    };
    assert_eq!(asks(&mut host, thaw(9, 1)), Meanwhile::Interrupt);
    assert_eq!(asks(&mut host, thaw(8, 1)), Meanwhile::Wait);
    assert_eq!(asks(&mut host, thaw(9, 0)), Meanwhile::Wait);
    assert_eq!(asks(&mut host, freeze(9, 1)), Meanwhile::Wait);
    host.known = Some(InstanceState::Exited {
        exit: Exit { code: 1, at_ms: 1 },
    });
    assert_eq!(asks(&mut host, thaw(9, 1)), Meanwhile::Interrupt);

    let mut host = Host::prepared(2, 9);
    let current = host.command(stage(9, 2));
    let next = host.command(discard(9));
    let meanwhile = meanwhile(&host.record, host.known.as_ref(), &current, &next);
    assert_eq!(meanwhile, Meanwhile::Interrupt);
}

#[test]
fn what_was_resumed_can_be_removed_though_none_of_it_was_written() {
    let mut host = Host::prepared(3, 1);
    let remove = |generation| Verb::Remove {
        container: id(),
        generation: Generation(generation),
        force: true,
    };
    // The source's own, before the commit.
    assert_eq!(host.refused(remove(2)), FailureKind::Stale);
    assert_eq!(host.admit(remove(3)), Admission::Perform);
    host.done(remove(3), Ok(Outcome::Done));
    assert!(matches!(host.record.role, Role::None { .. }));
    assert_eq!(host.record.left, Some(Generation(3)));
}

#[test]
fn a_run_stands_on_its_intent_where_its_record_cannot_be_written() {
    let mut host = Host::new();
    let ok = Ok(Outcome::Running { pid: 7 });
    assert!(effect::is_intended(&run(1), &ok));
    assert!(!effect::is_intended(&run(1), &broken()));
    let done = Ok(Outcome::Done);
    assert!(!effect::is_intended(&prepare(1, 2), &done));
    // What the intent says to the next agent.
    let command = host.command(run(1));
    host.record = effect::begin(&host.record, &command).unwrap();
    // Nothing is to be written for a repeat.
    assert_eq!(
        effect::begin(&host.record, &command).as_ref(),
        Some(&host.record)
    );
    host.known = Some(InstanceState::Running { pid: 7 });
    let again = admit(&host.record, host.known.as_ref(), &command);
    assert_eq!(again, Admission::Already(Outcome::Running { pid: 7 }));
    assert_eq!(
        host.admit(Verb::Stop {
            container: id(),
            generation: Generation(1),
            grace_ms: 1,
        }),
        Admission::Perform
    );
}

fn never_resumed() -> Result<Outcome, CommandFailure> {
    Err(CommandFailure::new(FailureKind::NeverResumed, "lost"))
}

fn fenced(by: u8, generation: u64) -> Verb {
    Verb::Discard {
        migration: migration(by),
        container: id(),
        generation: Some(Generation(generation)),
    }
}

fn lost() -> Option<InstanceState> {
    Some(InstanceState::Lost {
        reason: "its shim ended".into(),
    })
}

#[test]
fn who_said_that_it_never_resumed_never_does() {
    let mut host = Host::prepared(2, 1);
    host.known = lost();
    host.done(resume(1, 2), never_resumed());
    assert!(effect::must_be_stored(&never_resumed()));
    assert!(!effect::may_wait(&resume(1, 2), &never_resumed()));
    // As it is read again by the next agent, too.
    let text = serde_json::to_string(&host.record).unwrap();
    host.record = serde_json::from_str(&text).unwrap();
    let staged = Some(InstanceState::Staged {
        migration: migration(1),
    });
    for known in [lost(), None, staged] {
        host.known = known;
        assert_eq!(host.refused(resume(1, 2)), FailureKind::NeverResumed);
        assert_eq!(host.refused(prepare(1, 2)), FailureKind::Stale);
        assert_eq!(host.refused(stage(1, 2)), FailureKind::Stale);
    }
    host.done(fenced(1, 3), Ok(Outcome::Done));
    assert!(matches!(host.record.role, Role::None { .. }));
    assert_eq!(host.refused(resume(1, 2)), FailureKind::NeverResumed);
    // By a newer generation it may come again.
    assert_eq!(host.admit(prepare(2, 4)), Admission::Perform);
}

#[test]
fn a_frozen_source_is_the_owner_again_by_a_newer_generation() {
    let mut host = Host::frozen(1, 1);
    host.done(thaw(1, 3), Ok(Outcome::Done));
    host.known = Some(InstanceState::Running { pid: 7 });
    assert_eq!(host.record.generation(), Some(Generation(3)));
    assert_eq!(host.refused(release(1, 1)), FailureKind::Stale);
    assert_eq!(host.refused(thaw(1, 1)), FailureKind::Stale);
    assert_eq!(host.admit(freeze(2, 3)), Admission::Perform);
    // Asked again after a crash that lost the record.
    let mut host = Host::frozen(1, 1);
    host.known = Some(InstanceState::Running { pid: 7 });
    host.done(thaw(1, 3), Ok(Outcome::Done));
    assert_eq!(host.record.generation(), Some(Generation(3)));
}

#[test]
fn a_newer_owner_ends_what_runs_here_and_an_older_word_does_not() {
    let mut host = Host::prepared(2, 1);
    host.done(
        resume(1, 2),
        Ok(Outcome::Resumed {
            pid: 7,
            steps: vec![],
        }),
    );
    assert_eq!(host.refused(discard(1)), FailureKind::WrongState);
    host.done(fenced(1, 3), Ok(Outcome::Done));
    assert_eq!(
        (host.record.generation(), host.known.as_ref()),
        (None, None)
    );
    assert_eq!(host.refused(resume(1, 2)), FailureKind::Stale);
    // What came since is newer, and stays.
    let mut host = Host::prepared(4, 2);
    assert_eq!(host.refused(fenced(1, 3)), FailureKind::Stale);
}

#[test]
fn what_was_resumed_and_lost_before_it_was_written_can_be_stopped_and_removed() {
    let mut host = Host::prepared(2, 1);
    host.known = lost();
    let stop = |generation| Verb::Stop {
        container: id(),
        generation: Generation(generation),
        grace_ms: 1,
    };
    let remove = |generation| Verb::Remove {
        container: id(),
        generation: Generation(generation),
        force: true,
    };
    let Admission::Already(Outcome::Stopped { exit }) = host.admit(stop(2)) else {
        panic!("it has stopped");
    };
    assert_eq!(exit.code, 137);
    // By another generation it is another's.
    assert_eq!(host.refused(stop(3)), FailureKind::WrongState);
    assert_eq!(host.refused(remove(3)), FailureKind::WrongState);
    host.done(remove(2), Ok(Outcome::Done));
    assert_eq!(host.record.generation(), None);
}

#[test]
fn what_was_resumed_and_lost_before_it_was_written_can_be_started_again() {
    let start = |generation| Verb::Start {
        container: id(),
        generation: Generation(generation),
        spec: spec(),
    };
    let mut host = Host::prepared(2, 1);
    // It may still come, or be taken back.
    host.known = Some(InstanceState::Staged {
        migration: migration(1),
    });
    assert_eq!(host.refused(start(2)), FailureKind::WrongState);
    host.known = lost();
    assert_eq!(host.refused(start(1)), FailureKind::Stale);
    assert_eq!(host.refused(start(3)), FailureKind::WrongState);
    assert_eq!(host.admit(start(2)), Admission::Perform);
    host.done(start(2), Ok(Outcome::Running { pid: 7 }));
    assert!(matches!(host.record.role, Role::Owner { .. }));

    let mut host = Host::prepared(2, 1);
    host.known = lost();
    host.done(resume(1, 2), never_resumed());
    assert_eq!(host.refused(start(2)), FailureKind::WrongState);
}
