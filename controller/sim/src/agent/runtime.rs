//! Containers on one host, without an agent: what the shims hold outlives it. A container's
//! output grows with time while it runs, so that work that was lost can be told.

use std::collections::BTreeMap;

use godwit_agent::ledger::Answer;
use godwit_types::{
    CommandFailure, ContainerId, Exit, FailureKind, FreezeStep, InstanceState, MigrationId,
    Outcome, Verb,
};

use crate::event::Micros;

/// What an instance is doing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Doing {
    Running {
        pid: i32,
        since: Micros,
    },
    Frozen(MigrationId),
    /// Everything made for it, nothing restored.
    Prepared(MigrationId),
    Staged(MigrationId),
    Exited(Exit),
}

/// One instance.
#[derive(Debug, Clone)]
pub struct Instance {
    pub doing: Doing,
    /// What it had said when it last began or ended to run.
    output: u64,
}

impl Instance {
    pub fn output(&self, now: Micros) -> u64 {
        match self.doing {
            Doing::Running { since, .. } => self.output + (now - since),
            _ => self.output,
        }
    }

    /// Whether it could still be made to run, with all it had said.
    pub fn is_recoverable(&self) -> bool {
        !matches!(self.doing, Doing::Prepared(_))
    }

    pub fn state(&self) -> InstanceState {
        match &self.doing {
            Doing::Running { pid, .. } => InstanceState::Running { pid: *pid },
            Doing::Frozen(migration) => InstanceState::Frozen {
                migration: migration.clone(),
            },
            Doing::Prepared(migration) | Doing::Staged(migration) => InstanceState::Staged {
                migration: migration.clone(),
            },
            Doing::Exited(exit) => InstanceState::Exited { exit: *exit },
        }
    }

    fn set(&mut self, doing: Doing, now: Micros) {
        self.output = self.output(now);
        self.doing = doing;
    }
}

/// All instances of one host.
#[derive(Debug, Default)]
pub struct Runtime {
    pub instances: BTreeMap<ContainerId, Instance>,
    next_pid: i32,
}

fn wrong(what: &str) -> CommandFailure {
    CommandFailure::new(FailureKind::WrongState, what)
}

fn missing() -> CommandFailure {
    CommandFailure::new(FailureKind::NotFound, "no such instance")
}

fn checked() -> Answer {
    Ok(Outcome::Checked { need: 1, memory: 1 })
}

fn steps() -> Vec<FreezeStep> {
    Vec::new()
}

impl Runtime {
    pub fn state(&self, id: &ContainerId) -> Option<InstanceState> {
        self.instances.get(id).map(Instance::state)
    }

    /// A container's process ends on its own. False: it does not run.
    pub fn exit(&mut self, id: &ContainerId, now: Micros) -> bool {
        let running = self
            .instances
            .get_mut(id)
            .filter(|instance| matches!(instance.doing, Doing::Running { .. }));
        match running {
            Some(instance) => {
                instance.set(Doing::Exited(ended(0, now)), now);
                true
            }
            None => false,
        }
    }

    /// Does a verb, all at once. `arrived`: the output in the checkpoint that came, if one did.
    pub fn perform(&mut self, verb: &Verb, arrived: Option<u64>, now: Micros) -> Answer {
        let Some(id) = verb.container() else {
            return Ok(Outcome::Done);
        };
        let found = self.instances.get(id).map(|i| i.doing.clone());
        match verb {
            Verb::Run { .. } => self.run(id, found, now),
            Verb::Stop { .. } => match found {
                Some(Doing::Exited(exit)) => Ok(Outcome::Stopped { exit }),
                Some(Doing::Running { .. }) => {
                    let exit = ended(143, now);
                    self.set(id, Doing::Exited(exit), now);
                    Ok(Outcome::Stopped { exit })
                }
                Some(_) => Err(wrong("it is held")),
                None => Err(missing()),
            },
            Verb::Remove { .. } => self.clear(id),
            Verb::CheckSource { .. } | Verb::PreCopy { .. } => match found {
                Some(Doing::Running { .. }) if matches!(verb, Verb::CheckSource { .. }) => {
                    checked()
                }
                Some(Doing::Running { .. }) => Ok(Outcome::PreCopied {
                    rounds: Vec::new(),
                    bytes: 1,
                    predicted_freeze_us: 1,
                }),
                Some(_) => Err(wrong("it does not run")),
                None => Err(missing()),
            },
            Verb::CheckDestination { .. } => match found {
                Some(Doing::Running { .. }) => Err(wrong("it runs here")),
                _ => checked(),
            },
            Verb::Prepare { migration, .. } => match found {
                Some(Doing::Running { .. }) => Err(wrong("it runs here")),
                _ => {
                    let doing = Doing::Prepared(migration.clone());
                    self.instances
                        .insert(id.clone(), Instance { doing, output: 0 });
                    Ok(Outcome::Done)
                }
            },
            Verb::Freeze { migration, .. } => match found {
                Some(Doing::Running { .. }) => {
                    self.set(id, Doing::Frozen(migration.clone()), now);
                    Ok(Outcome::Frozen { steps: steps() })
                }
                Some(Doing::Frozen(held)) if held == *migration => {
                    Ok(Outcome::Frozen { steps: steps() })
                }
                Some(_) => Err(wrong("it does not run")),
                None => Err(missing()),
            },
            Verb::Stage { migration, .. } => match (found, arrived) {
                (Some(Doing::Prepared(_)), Some(output)) => {
                    let doing = Doing::Staged(migration.clone());
                    self.instances
                        .insert(id.clone(), Instance { doing, output });
                    Ok(Outcome::Staged { steps: steps() })
                }
                (Some(Doing::Staged(_)), Some(_)) => Ok(Outcome::Staged { steps: steps() }),
                (Some(_), _) => Err(wrong("nothing came that could be restored")),
                (None, _) => Err(missing()),
            },
            Verb::Resume { .. } => match found {
                Some(Doing::Staged(_)) => self.start(id, now),
                Some(Doing::Running { pid, .. }) => Ok(Outcome::Resumed {
                    pid,
                    steps: steps(),
                }),
                Some(Doing::Exited(_)) => Ok(Outcome::Resumed {
                    pid: 0,
                    steps: steps(),
                }),
                Some(_) => Err(wrong("nothing was restored")),
                None => Err(missing()),
            },
            Verb::Discard { .. } => match found {
                Some(Doing::Running { .. }) => Err(wrong("it runs here")),
                _ => self.clear(id),
            },
            Verb::Thaw { .. } => match found {
                Some(Doing::Frozen(_)) => self.start(id, now).map(|_| Outcome::Done),
                Some(Doing::Running { .. } | Doing::Exited(_)) => Ok(Outcome::Done),
                Some(_) => Err(wrong("it is not frozen")),
                None => Err(missing()),
            },
            Verb::Release { .. } => match found {
                Some(Doing::Running { .. }) => Err(wrong("it runs here")),
                _ => self.clear(id),
            },
            Verb::Transfer { .. }
            | Verb::Sample { .. }
            | Verb::SyncNetwork { .. }
            // No client of the simulation asks for these.
            | Verb::RemoveNetwork { .. }
            | Verb::RemoveVolume { .. }
            | Verb::BringImage { .. }
            | Verb::Start { .. }
            | Verb::Pause { .. }
            | Verb::Unpause { .. }
            | Verb::Signal { .. }
            | Verb::Update { .. } => {
                Ok(Outcome::Done)
            }
        }
    }

    /// A verb that the host can't do. What it had begun is undone.
    pub fn fail(&mut self, verb: &Verb, failure: CommandFailure) -> Answer {
        if let Verb::Run { container, .. } | Verb::Prepare { container, .. } = verb
            && let Some(instance) = self.instances.get(container)
            && !matches!(instance.doing, Doing::Running { .. })
        {
            self.instances.remove(container);
        }
        Err(failure)
    }

    fn run(&mut self, id: &ContainerId, found: Option<Doing>, now: Micros) -> Answer {
        if let Some(Doing::Running { pid, .. }) = found {
            return Ok(Outcome::Running { pid });
        }
        self.next_pid += 1;
        let pid = self.next_pid;
        let doing = Doing::Running { pid, since: now };
        self.instances
            .insert(id.clone(), Instance { doing, output: 0 });
        Ok(Outcome::Running { pid })
    }

    fn start(&mut self, id: &ContainerId, now: Micros) -> Answer {
        self.next_pid += 1;
        let pid = self.next_pid;
        self.set(id, Doing::Running { pid, since: now }, now);
        Ok(Outcome::Resumed {
            pid,
            steps: steps(),
        })
    }

    fn set(&mut self, id: &ContainerId, doing: Doing, now: Micros) {
        if let Some(instance) = self.instances.get_mut(id) {
            instance.set(doing, now);
        }
    }

    fn clear(&mut self, id: &ContainerId) -> Answer {
        self.instances.remove(id);
        Ok(Outcome::Done)
    }
}

fn ended(code: i32, now: Micros) -> Exit {
    Exit {
        code,
        at_ms: now / 1000,
    }
}
