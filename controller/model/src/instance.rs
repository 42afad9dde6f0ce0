//! What the runtime does to an instance, after `runtime::{migrate_out, migrate_in}` and the
//! shim's machine: which states a verb can find, and what it leaves.

use godwit_agent::ledger::Answer;
use godwit_types::{Exit, FailureKind, InstanceState, MigrationId, MigrationMode, Outcome, Verb};

use crate::{host::Host, message::failure, world::World};

/// An instance on one host, whether its agent lives or not. `value`: the output that its copy has
/// behind it.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Instance {
    Absent,
    Running {
        value: u8,
    },
    Frozen {
        migration: MigrationId,
        value: u8,
        /// Its memory is not in the checkpoint: it came before.
        carried: bool,
        /// Its writable layer is packed. An agent that ends before leaves it so.
        packed: bool,
    },
    /// Prepared on the destination.
    Armed {
        migration: MigrationId,
    },
    Staged {
        migration: MigrationId,
        value: u8,
    },
    Exited,
    /// Its shim has ended and left no exit code. `never`: it has left the proof that nothing of it
    /// ran here.
    Lost {
        never: bool,
    },
}

impl Instance {
    /// What the agent hears when it asks; None: there is none.
    pub fn known(&self) -> Option<InstanceState> {
        Some(match self {
            Self::Absent => return None,
            Self::Running { .. } => InstanceState::Running { pid: 1 },
            Self::Frozen { migration, .. } => InstanceState::Frozen {
                migration: migration.clone(),
            },
            Self::Armed { migration } | Self::Staged { migration, .. } => InstanceState::Staged {
                migration: migration.clone(),
            },
            Self::Exited => InstanceState::Exited {
                exit: Exit { code: 0, at_ms: 0 },
            },
            Self::Lost { .. } => InstanceState::Lost {
                reason: "lost".to_owned(),
            },
        })
    }

    pub fn runs(&self) -> bool {
        matches!(self, Self::Running { .. })
    }

    /// What a verb leaves whose agent ends in the middle of it: a freeze before it has packed the
    /// layer, a removal or a preparation between the shim and the directory.
    pub fn halve(&mut self) {
        match self {
            Self::Frozen { packed, .. } => *packed = false,
            Self::Absent | Self::Armed { .. } => *self = Self::Lost { never: false },
            _ => {}
        }
    }
}

/// How far what was pushed to a destination is. In its agent's memory alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Door {
    Closed,
    /// `rounds`: memory came ahead.
    Open {
        rounds: bool,
    },
    Complete {
        value: u8,
        packed: bool,
    },
    /// It is being restored.
    Shut {
        value: u8,
        packed: bool,
    },
}

fn wrong(what: &str) -> Answer {
    Err(failure(FailureKind::WrongState, what))
}

/// Does a verb that was admitted. `broken`: the peer's agent was restarted meanwhile.
pub fn execute(world: &mut World, host: usize, verb: &Verb, broken: bool) -> Answer {
    let instance = world.hosts[host].instance.clone();
    match verb {
        Verb::CheckSource { .. } if instance.runs() => Ok(checked()),
        Verb::CheckDestination { .. } if !instance.runs() => Ok(checked()),
        Verb::CheckSource { .. } | Verb::CheckDestination { .. } => wrong("not so"),
        Verb::Prepare { migration, .. } => {
            world.hosts[host].door = Door::Closed;
            if instance.runs() {
                return wrong("it runs");
            }
            let migration = migration.clone();
            world.hosts[host].instance = Instance::Armed { migration };
            world.hosts[host].door = Door::Open { rounds: false };
            Ok(Outcome::Done)
        }
        Verb::PreCopy {
            migration, options, ..
        } => {
            let copied = Outcome::PreCopied {
                rounds: Vec::new(),
                bytes: 0,
                predicted_freeze_us: 0,
            };
            world.hosts[host].flow = false;
            if options.mode == MigrationMode::Stop {
                return Ok(copied);
            }
            if !instance.runs() {
                return wrong("it does not run");
            }
            let peer = &mut world.hosts[1 - host];
            let open = matches!(peer.door, Door::Open { .. }) && peer.awaits() == Some(migration);
            if broken || !open {
                return Err(failure(FailureKind::Peer, "broke off"));
            }
            peer.door = Door::Open { rounds: true };
            world.hosts[host].flow = true;
            Ok(copied)
        }
        Verb::Freeze { migration, .. } => {
            let frozen = match instance {
                Instance::Running { value } => Instance::Frozen {
                    migration: migration.clone(),
                    value,
                    carried: world.hosts[host].flow,
                    packed: true,
                },
                _ => return wrong("it does not run"),
            };
            world.hosts[host].instance = frozen;
            Ok(Outcome::Frozen { steps: Vec::new() })
        }
        Verb::Transfer { migration, .. } => {
            let flow = std::mem::take(&mut world.hosts[host].flow);
            let Instance::Frozen {
                value,
                carried,
                packed,
                ..
            } = instance
            else {
                return wrong("there is no checkpoint");
            };
            if carried != flow {
                return wrong("its memory was sent by an agent that has ended");
            }
            let peer = &mut world.hosts[1 - host];
            let came = match peer.door {
                Door::Open { rounds } => rounds || !carried,
                // A push before this one brought it.
                Door::Complete { .. } => !carried,
                Door::Closed | Door::Shut { .. } => false,
            };
            if broken || !came || peer.awaits() != Some(migration) {
                return Err(failure(FailureKind::Peer, "broke off"));
            }
            peer.door = Door::Complete { value, packed };
            Ok(Outcome::Transferred {
                bytes: 0,
                steps: Vec::new(),
            })
        }
        Verb::Stage { migration, .. } => {
            let Door::Complete { value, packed } = world.hosts[host].door else {
                return wrong("the transfer is not complete");
            };
            world.hosts[host].door = Door::Shut { value, packed };
            match instance {
                // A stream of the writable layer that broke off is found out.
                Instance::Armed { .. } if !packed => {
                    return Err(failure(FailureKind::Internal, "the layer is not whole"));
                }
                Instance::Armed { .. } => {
                    let migration = migration.clone();
                    world.hosts[host].instance = Instance::Staged { migration, value };
                }
                Instance::Staged { .. } => {}
                _ => return wrong("it is not prepared"),
            }
            Ok(Outcome::Staged { steps: Vec::new() })
        }
        Verb::Resume { .. } => {
            world.hosts[host].door = Door::Closed;
            match instance {
                Instance::Staged { value, .. } => world.run(host, value),
                Instance::Running { .. } => {}
                Instance::Lost { never: true } => {
                    return Err(failure(FailureKind::NeverResumed, "it never ran"));
                }
                _ => return Err(failure(FailureKind::Internal, "nothing is staged")),
            }
            Ok(Outcome::Resumed {
                pid: 1,
                steps: Vec::new(),
            })
        }
        Verb::Discard { generation, .. } => {
            world.hosts[host].door = Door::Closed;
            // With a generation it is an older copy, and ended.
            if instance.runs() && generation.is_none() {
                return wrong("it runs");
            }
            world.hosts[host].instance = Instance::Absent;
            Ok(Outcome::Done)
        }
        Verb::Thaw { .. } => {
            world.hosts[host].flow = false;
            match instance {
                Instance::Frozen { value, .. } => world.run(host, value),
                Instance::Running { .. } | Instance::Exited => {}
                Instance::Absent => return Err(failure(FailureKind::NotFound, "it is gone")),
                _ => return wrong("it is not frozen"),
            }
            Ok(Outcome::Done)
        }
        Verb::Release { .. } => {
            world.hosts[host].flow = false;
            if instance.runs() {
                return wrong("it runs");
            }
            world.hosts[host].instance = Instance::Absent;
            Ok(Outcome::Done)
        }
        Verb::Run { .. }
        | Verb::Stop { .. }
        | Verb::Remove { .. }
        | Verb::Sample { .. }
        | Verb::RemoveNetwork { .. }
        | Verb::RemoveVolume { .. }
        | Verb::BringImage { .. }
        | Verb::Start { .. }
        | Verb::Pause { .. }
        | Verb::Unpause { .. }
        | Verb::Signal { .. }
        | Verb::Update { .. }
        | Verb::SyncNetwork { .. } => unreachable!("{} is no verb of a hand-over", verb.name()),
    }
}

fn checked() -> Outcome {
    Outcome::Checked { need: 0, memory: 0 }
}

/// What is left by a verb that fails where it could have succeeded.
pub fn break_down(host: &mut Host, verb: &Verb) -> Answer {
    match verb {
        Verb::Prepare { .. } => {
            host.door = Door::Closed;
            host.instance = Instance::Absent;
        }
        Verb::PreCopy { .. } | Verb::Transfer { .. } => host.flow = false,
        // CRIU removes what it restored, and the shim ends with it. What is staged already is not
        // restored again.
        Verb::Stage { .. } => {
            if let Door::Complete { value, packed } = host.door {
                host.door = Door::Shut { value, packed };
                if let Instance::Armed { .. } = host.instance {
                    host.instance = Instance::Lost { never: true };
                }
            }
        }
        // A dump that fails lets the tasks run on, and the rest is tried again.
        _ => {}
    }
    Err(failure(FailureKind::Internal, "failed"))
}
