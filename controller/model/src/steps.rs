//! Everything that can happen next.

use std::fmt;

use godwit_agent::container::admission::Meanwhile;

use crate::{message::host_name, world::World};

/// Who hears an answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Who {
    Leader,
    /// Deposed and not aware of it: it can ask hosts, and write nothing any more.
    Former,
}

/// What a command that was broken off has done.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Part {
    Nothing,
    /// See [`crate::instance::Instance::halve`].
    Half,
    Whole,
}

/// One step. Numbers are hosts; commands and answers are named by their place in the network.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Step {
    /// The user asks for a migration.
    Start,
    /// The user takes it back.
    Cancel,
    /// The operator has the source used again: nothing runs at the destination, and nothing will.
    Recover,
    /// The leader finds that it was taken back.
    Notice,
    Commit,
    /// A command arrives; `part` is what it interrupts had done.
    Arrive {
        command: usize,
        part: Part,
    },
    Answer {
        answer: usize,
        to: Who,
    },
    /// What a host does is done.
    Finish(usize),
    /// The leader's session was begun anew: what was not answered is asked again.
    Resend(usize),

    // From here on: what goes wrong.
    Election {
        /// How many of the proposals that were not awaited are kept.
        kept: usize,
    },
    /// The leader has waited long enough.
    GiveUp,
    LoseCommand(usize),
    LoseAnswer(usize),
    RepeatCommand(usize),
    RepeatAnswer(usize),
    /// An agent ends and is started again.
    Restart {
        host: usize,
        part: Part,
        /// Whether the record that could wait was written just in time.
        written: bool,
    },
    /// What a host does fails.
    Fail(usize),
    /// The container ends by itself.
    Exit(usize),
    /// The shim ends, and what it holds with it.
    LoseShim(usize),

    // Of mutations alone.
    ThawOnSilence(usize),
    UseSourceAgain,
    TakeBackOnSilence,
}

impl Step {
    /// Whether it counts against the bounds.
    pub fn is_fault(&self) -> bool {
        !matches!(
            self,
            Self::Start
                | Self::Cancel
                | Self::Recover
                | Self::Notice
                | Self::Commit
                | Self::Arrive { .. }
                | Self::Answer { .. }
                | Self::Finish(_)
                | Self::Resend(_)
        )
    }
}

/// A step in words, before it is taken.
pub fn describe(world: &World, step: &Step) -> String {
    let command = |at: usize| {
        let sent = &world.commands[at];
        format!("`{}` for {}", sent.verb().name(), host_name(sent.host))
    };
    let answer = |at: usize| {
        let reply = &world.answers[at];
        let drives = world
            .leader
            .iter()
            .chain(world.former.iter().map(|(d, _)| d));
        let mut pending = drives.flat_map(|drive| &drive.pending);
        let asked = pending.find(|p| *p.sent.operation() == reply.operation);
        let what = asked.map_or("something", |p| p.sent.verb().name());
        match &reply.answer {
            Ok(_) => format!("`{what}` done"),
            Err(failure) => format!("`{what}` failed, {:?}", failure.kind),
        }
    };
    let doing = |host: usize| {
        let work = world.hosts[host].work.as_ref();
        work.map_or("nothing", |work| work.command.verb.name())
    };
    match step {
        Step::Start => "the user starts a migration".to_owned(),
        Step::Cancel => "the user cancels".to_owned(),
        Step::Recover => "the operator RECOVERS from the source".to_owned(),
        Step::Notice => "the leader notices the cancel".to_owned(),
        Step::Commit => "the leader COMMITS".to_owned(),
        Step::Arrive { command: at, part } => {
            let sent = &world.commands[*at];
            let interrupts = match world.hosts[sent.host].meanwhile(&sent.command) {
                Some(Meanwhile::Interrupt) => {
                    format!(" and interrupts `{}`, {part}", doing(sent.host))
                }
                _ => String::new(),
            };
            format!("{} arrives{interrupts}", command(*at))
        }
        Step::Answer { answer: at, to } => {
            let to = match to {
                Who::Leader => "the leader",
                Who::Former => "the deposed leader",
            };
            format!("{to} hears: {}", answer(*at))
        }
        Step::Finish(host) => format!("{} does `{}`", host_name(*host), doing(*host)),
        Step::Resend(_) => "the leader asks again".to_owned(),
        Step::Election { kept } => format!("another leader is elected, {kept} proposals kept"),
        Step::GiveUp => "the leader has waited long enough".to_owned(),
        Step::LoseCommand(at) => format!("{} is lost", command(*at)),
        Step::LoseAnswer(at) => format!("lost: {}", answer(*at)),
        Step::RepeatCommand(at) => format!("{} is repeated", command(*at)),
        Step::RepeatAnswer(at) => format!("repeated: {}", answer(*at)),
        Step::Restart { host, part, .. } => format!(
            "{}'s agent is restarted while it does `{}`, {part}",
            host_name(*host),
            doing(*host)
        ),
        Step::Fail(host) => format!("{} fails to do `{}`", host_name(*host), doing(*host)),
        Step::Exit(host) => format!("the container on {} ends", host_name(*host)),
        Step::LoseShim(host) => format!("the shim on {} is lost", host_name(*host)),
        Step::ThawOnSilence(host) => format!("{} THAWS since it hears nothing", host_name(*host)),
        Step::TakeBackOnSilence => "the leader TAKES BACK since it hears nothing".to_owned(),
        Step::UseSourceAgain => "the leader asks the SOURCE to run its copy".to_owned(),
    }
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Nothing => "nothing of it done",
            Self::Half => "half of it done",
            Self::Whole => "all of it done",
        })
    }
}
