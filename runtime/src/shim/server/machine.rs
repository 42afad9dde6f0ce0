//! The shim's state machine: which request does what in which state. Requests that were done
//! already are done again without effect, since an agent that restarts asks again.

use std::{io::Write, os::fd::BorrowedFd, time::Duration};

use godwit_types::{Exit, FreezeStep};

use super::{
    super::protocol::{Config, Reply, Request, State},
    attach::Attached,
    create::{self, chain},
    freeze::{self, Frozen},
    init::Init,
    input::Input,
    output::Output,
    pager::Pager,
    stage::{self, Armed, Staged},
};
use crate::{
    cgroup::Group,
    container::write_atomic,
    criu::{Event, Leaving, Swrk},
    shim::kept::{self, Held, Kept, Task},
};

pub struct Machine {
    config: Config,
    phase: Phase,
    /// What the next shim would find.
    kept: Option<Kept>,
    /// Found at the first request: it takes a millisecond that no freeze needs to have.
    group: Option<Group>,
}

enum Phase {
    Ready,
    Running(Running),
    Frozen {
        frozen: Frozen,
        init: Init,
        output: Output,
    },
    Armed(Armed),
    Staged(Box<Staged>),
    Exited(Exit),
    Gone,
}

enum Restorer {
    Tidying(Swrk),
    Leaving(Leaving),
}

impl Restorer {
    /// Readable when something is to be done about it.
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tidying(criu) => criu.as_fd(),
            Self::Leaving(criu) => criu.as_fd(),
        }
    }

    /// Waits until it has ended.
    fn finish(self) {
        if let Self::Tidying(mut criu) = self {
            // An answer or its end: either way it is through with the tasks.
            let _ = criu.next();
            criu.finish();
        }
    }

    /// What it is next. The tasks run, and are nobody's but the shim's: a failure here is only
    /// worth a line.
    fn proceed(self) -> Option<Self> {
        match self {
            Self::Tidying(criu) if !criu.is_ready() => Some(Self::Tidying(criu)),
            Self::Tidying(mut criu) => match criu.next() {
                Ok(Event::Done { success: true, .. }) => match criu.leave() {
                    Ok(leaving) => Some(Self::Leaving(leaving)),
                    Err(error) => {
                        tracing::warn!(%error, "criu can't be watched");
                        None
                    }
                },
                other => {
                    tracing::warn!(
                        ?other,
                        "criu did not end well after it had resumed the tasks"
                    );
                    None
                }
            },
            Self::Leaving(criu) => (!criu.has_ended()).then_some(Self::Leaving(criu)),
        }
    }
}

/// What is left of a container without a shim.
pub(super) struct Adopted {
    pub init: Init,
    pub output: Output,
    pub pager: Option<Pager>,
    pub frozen: Option<Frozen>,
}

struct Running {
    init: Init,
    output: Output,
    /// Holds the memory that is not in the tasks yet.
    pager: Option<Pager>,
    /// The CRIU that restored it, until it has ended.
    restorer: Option<Restorer>,
}

/// `exit.json`.
#[derive(serde::Serialize)]
struct Left {
    #[serde(flatten)]
    exit: Exit,
    oom_killed: bool,
}

type Outcome = Result<Vec<FreezeStep>, String>;

impl Machine {
    pub fn new(config: Config) -> Self {
        Self {
            config,
            phase: Phase::Ready,
            kept: None,
            group: None,
        }
    }

    /// With a container that another shim had.
    pub(super) fn with(config: Config, kept: Kept, adopted: Adopted) -> Self {
        let Adopted {
            init,
            output,
            pager,
            frozen,
        } = adopted;
        let phase = match frozen {
            Some(frozen) => Phase::Frozen {
                frozen,
                init,
                output,
            },
            None => Phase::Running(Running {
                init,
                output,
                pager,
                restorer: None,
            }),
        };
        let mut machine = Self {
            config,
            phase,
            kept: Some(kept),
            group: None,
        };
        machine.keep();
        machine
    }

    /// Of a container that ended while it had no shim.
    pub(super) fn ended(config: Config, exit: Exit) -> Self {
        let mut machine = Self::new(config);
        machine.end(exit);
        machine
    }

    pub fn state(&self) -> State {
        match &self.phase {
            Phase::Ready => State::Ready,
            Phase::Running(running) => State::Running {
                pid: running.init.pid(),
                filling: running.pager.is_some(),
            },
            Phase::Frozen { frozen, init, .. } => State::Frozen {
                migration: frozen.migration().clone(),
                pid: init.pid(),
                carried: frozen.carried(),
            },
            Phase::Armed(armed) => State::Staged {
                migration: armed.migration().clone(),
            },
            Phase::Staged(staged) => State::Staged {
                migration: staged.migration().clone(),
            },
            Phase::Exited(exit) => State::Exited { exit: *exit },
            Phase::Gone => State::Gone,
        }
    }

    /// Nothing is left to do: the exit code is on disk, or the container is elsewhere.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Exited(_) | Phase::Gone)
    }

    /// What to wait for, besides requests. A frozen container's output waits with it.
    pub fn sources(&self) -> Vec<BorrowedFd<'_>> {
        match &self.phase {
            Phase::Running(Running {
                init,
                output,
                pager,
                restorer,
            }) => output
                .sources()
                .chain([init.as_fd()])
                .chain(pager.as_ref().map(Pager::as_fd))
                .chain(restorer.as_ref().map(Restorer::as_fd))
                .collect(),
            Phase::Frozen { init, .. } => vec![init.as_fd()],
            _ => Vec::new(),
        }
    }

    /// Nobody yet.
    pub fn attached(&self) -> Attached {
        Attached::new(self.config.terminal.stdin_once)
    }

    /// A running container's standard input.
    pub fn input(&mut self) -> Option<&mut Input> {
        match &mut self.phase {
            Phase::Running(running) => Some(&mut running.output.input),
            _ => None,
        }
    }

    /// Whether more input can be taken, and where some of it can't be written yet.
    pub fn waits_for_input(&self) -> (bool, Option<BorrowedFd<'_>>) {
        match &self.phase {
            Phase::Running(Running { output, .. }) => {
                (output.input.is_idle(), output.input.blocked())
            }
            _ => (false, None),
        }
    }

    /// When output has to be looked at, whether any has come or not.
    pub fn due(&self) -> Option<Duration> {
        match &self.phase {
            Phase::Running(running) => running.output.due(),
            _ => None,
        }
    }

    pub fn read_output(&mut self) {
        if let Phase::Running(running) = &mut self.phase {
            running.output.drain();
        }
    }

    /// Notices that the pager is through. One that failed takes the container with it: tasks
    /// that wait for lost memory would wait for ever, and zeros in its place would be worse.
    pub fn reap_pager(&mut self) {
        let Phase::Running(running) = &mut self.phase else {
            return;
        };
        match running.pager.as_mut().map(Pager::ended) {
            None | Some(None) => return,
            Some(Some(true)) => running.pager = None,
            Some(Some(false)) => {
                running.pager = None;
                tracing::error!("the pager ended before all memory was in place");
                let _ = running.init.signal(nix::libc::SIGKILL);
            }
        }
        self.keep();
    }

    /// Lets go of the CRIU that restored the container, once it has ended.
    pub fn reap_restorer(&mut self) {
        if let Phase::Running(running) = &mut self.phase {
            running.restorer = running.restorer.take().and_then(Restorer::proceed);
        }
    }

    /// Notices that the init has ended, and writes down how.
    pub fn reap(&mut self) {
        let exit = match &mut self.phase {
            Phase::Running(Running { init, output, .. }) => {
                init.ended().inspect(|_| output.flush())
            }
            // CRIU traces the tasks, and what a tracer has not let go of can't be waited for: its
            // pidfd would be readable for ever.
            Phase::Frozen { init, .. } if init.is_dead() => self.end_criu(),
            _ => None,
        };
        if let Some(exit) = exit {
            self.end(exit);
        }
    }

    fn end(&mut self, exit: Exit) {
        let group = Group::new(&self.config.cgroup);
        let left = Left {
            exit,
            oom_killed: group.as_ref().is_ok_and(Group::was_out_of_memory),
        };
        // Whoever reads the exit code must find it before the socket is gone.
        if let Err(error) = write_atomic(&self.config.dir.join("exit.json"), &left) {
            tracing::error!(%error, code = exit.code, "exit code can't be written");
            let _ = std::io::stderr().flush();
        }
        if let Ok(group) = group {
            let _ = group.kill();
            if let Err(error) = group.remove() {
                tracing::warn!(error = %chain(&error), "cgroup left behind");
            }
        }
        self.phase = Phase::Exited(exit);
        self.keep();
    }

    /// The frozen container's init was killed: there is nothing left to hold.
    fn end_criu(&mut self) -> Option<Exit> {
        match std::mem::replace(&mut self.phase, Phase::Gone) {
            Phase::Frozen {
                frozen,
                init,
                mut output,
            } => {
                drop(frozen);
                output.flush();
                let exit = init.ended();
                // None: whoever traces it now is not ours; it is noticed once that one lets go.
                if exit.is_none() {
                    self.phase = running(init, output);
                }
                exit
            }
            other => {
                self.phase = other;
                None
            }
        }
    }

    pub fn handle(&mut self, request: Request) -> Reply {
        if let Request::State = request {
            return Reply::State {
                state: self.state(),
            };
        }
        match self.act(request) {
            Ok(steps) => Reply::Done { steps },
            Err(message) => {
                tracing::warn!(message, "request failed");
                Reply::Failed { message }
            }
        }
    }

    fn act(&mut self, request: Request) -> Outcome {
        let group = match &mut self.group {
            Some(group) => group,
            none => none.insert(Group::new(&self.config.cgroup).map_err(|error| chain(&error))?),
        };
        let group = &*group;
        let config = &self.config;
        // Taken out, so that every arm decides what comes next; put back below where it stays.
        let phase = std::mem::replace(&mut self.phase, Phase::Gone);
        let (next, outcome) = match (request, phase) {
            (Request::Create, Phase::Ready) => match create::create(config, group) {
                Ok((init, output)) => (running(init, output), Ok(Vec::new())),
                Err(error) => (Phase::Ready, Err(error)),
            },
            (Request::Signal { signal }, Phase::Running(running)) => {
                let sent = running.init.signal(signal).map_err(|e| e.to_string());
                (Phase::Running(running), sent.map(|()| Vec::new()))
            }
            (Request::Resize { size }, Phase::Running(running)) => {
                let resized = running.output.input.resize(size);
                let resized = resized.map_err(|error| format!("terminal: {error}"));
                (Phase::Running(running), resized.map(|()| Vec::new()))
            }
            (Request::Freeze { .. }, Phase::Running(filling @ Running { pager: Some(_), .. })) => (
                Phase::Running(filling),
                Err("some of its memory is still arriving".to_owned()),
            ),
            (
                Request::Freeze { migration, carried },
                Phase::Running(Running {
                    init,
                    mut output,
                    restorer,
                    ..
                }),
            ) => {
                restorer.into_iter().for_each(Restorer::finish);
                match freeze::dump(config, group, &init, &mut output, migration, carried) {
                    Ok((frozen, steps)) => (
                        Phase::Frozen {
                            frozen,
                            init,
                            output,
                        },
                        Ok(steps),
                    ),
                    Err(error) => (running(init, output), Err(error)),
                }
            }
            (Request::Freeze { migration, .. }, phase @ Phase::Frozen { .. }) if matches!(&phase, Phase::Frozen { frozen, .. } if *frozen.migration() == migration) => {
                (phase, Ok(Vec::new()))
            }
            (
                Request::Thaw,
                Phase::Frozen {
                    frozen,
                    init,
                    output,
                },
            ) => {
                let thawed = frozen.thaw(config, group);
                (running(init, output), thawed.map(|()| Vec::new()))
            }
            (Request::Thaw, phase @ Phase::Running(_)) => (phase, Ok(Vec::new())),
            (Request::Release, Phase::Frozen { frozen, init, .. }) => {
                let released = frozen.release(group, &init);
                (Phase::Gone, released.and_then(|()| removed(group)))
            }
            (Request::Arm { migration }, Phase::Ready) => {
                match stage::arm(config, group, migration) {
                    Ok(armed) => (Phase::Armed(armed), Ok(Vec::new())),
                    Err(error) => {
                        let _ = group.kill();
                        (Phase::Gone, removed(group).and(Err(error)))
                    }
                }
            }
            (Request::Arm { migration }, Phase::Armed(armed))
                if *armed.migration() == migration =>
            {
                (Phase::Armed(armed), Ok(Vec::new()))
            }
            (Request::Stage { memory }, Phase::Armed(armed)) => {
                match armed.stage(config, group, memory) {
                    Ok((staged, steps)) => (Phase::Staged(Box::new(staged)), Ok(steps)),
                    Err(error) => (Phase::Gone, removed(group).and(Err(error))),
                }
            }
            (Request::Stage { .. }, Phase::Staged(staged)) => {
                (Phase::Staged(staged), Ok(Vec::new()))
            }
            (Request::Resume, Phase::Staged(staged)) => match staged.resume(config) {
                Ok(resumed) => {
                    let running = Running {
                        init: resumed.init,
                        output: resumed.output,
                        pager: resumed.pager,
                        restorer: Some(Restorer::Tidying(resumed.swrk)),
                    };
                    (Phase::Running(running), Ok(resumed.steps))
                }
                Err((Some(staged), error)) => (Phase::Staged(Box::new(staged)), Err(error)),
                Err((None, error)) => (Phase::Gone, Err(error)),
            },
            (Request::Resume, phase @ Phase::Running(_)) => (phase, Ok(Vec::new())),
            (Request::Discard, Phase::Armed(armed)) => {
                let discarded = armed.discard(group);
                (Phase::Gone, discarded.and_then(|()| removed(group)))
            }
            (Request::Discard, Phase::Staged(staged)) => {
                let discarded = staged.discard(group);
                (Phase::Gone, discarded.and_then(|()| removed(group)))
            }
            (Request::Discard, Phase::Ready) => (Phase::Gone, Ok(Vec::new())),
            (request, phase) => {
                self.phase = phase;
                return Err(format!(
                    "{request:?} is not possible in state {:?}",
                    self.state()
                ));
            }
        };
        self.phase = next;
        // Before it is answered: what is promised must outlive us.
        self.keep();
        outcome
    }

    /// Keeps for the next shim what has changed.
    pub fn keep(&mut self) {
        let now = match self.now() {
            Ok(now) => now,
            Err(error) => {
                tracing::warn!(%error, "not kept for the next shim");
                return;
            }
        };
        if now == self.kept {
            return;
        }
        let path = kept::path(&self.config.socket);
        let written = match &now {
            Some(now) => now.write(&path),
            None => kept::remove(&path),
        };
        match written {
            Ok(()) => self.kept = now,
            Err(error) => tracing::warn!(%error, "not kept for the next shim"),
        }
    }

    fn now(&self) -> std::io::Result<Option<Kept>> {
        let of = |init: &Init, output: &Output, pager: Option<&Pager>| {
            let (stdout, stderr) = output.keys();
            let mut kept = Kept::new(init.task(), stdout, stderr)?;
            kept.pager = pager.map(Pager::task);
            std::io::Result::Ok(kept)
        };
        Ok(Some(match &self.phase {
            Phase::Running(Running {
                init,
                output,
                pager,
                ..
            }) => of(init, output, pager.as_ref())?,
            Phase::Frozen {
                frozen,
                init,
                output,
            } => Kept {
                frozen: Some(Held {
                    migration: frozen.migration().clone(),
                    carried: frozen.carried(),
                }),
                ..of(init, output, None)?
            },
            Phase::Staged(staged) => Kept {
                restorer: Some(Task::of(staged.restorer())?),
                ..of(staged.init(), staged.output(), staged.pager())?
            },
            Phase::Ready | Phase::Armed(_) | Phase::Exited(_) | Phase::Gone => return Ok(None),
        }))
    }
}

fn running(init: Init, output: Output) -> Phase {
    Phase::Running(Running {
        init,
        output,
        pager: None,
        restorer: None,
    })
}

fn removed(group: &Group) -> Outcome {
    group
        .remove()
        .map(|()| Vec::new())
        .map_err(|error| chain(&error))
}
