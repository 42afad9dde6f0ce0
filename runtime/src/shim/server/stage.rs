//! The destination's half of the hand-over: restore and hold.
//!
//! [`Armed`] (CRIU started, waiting for its images) becomes [`Staged`] (everything restored, the
//! network gate shut), which has exactly two ends: [`Staged::resume`] and [`Staged::discard`].

use std::{
    fs::File,
    os::fd::{AsFd, AsRawFd, OwnedFd},
};

use godwit_types::{FreezeStep, MigrationId};

use super::{
    super::protocol::Config,
    create::{chain, limit},
    freeze::{Steps, TOOLS, gate},
    init::Init,
    output::{Ends, Output},
    pager::Pager,
};
use crate::{
    cgroup::Group,
    container::HELD,
    criu::{Event, Launch, RestoreOptions, Swrk, descriptors, reason, tools},
    memory::pager::IndexAt,
    shim::{held, protocol::feed},
};

/// CRIU's image of the cgroups that the tasks were in at the source.
const CGROUPS: &str = "cgroup.img";
/// CRIU hands out the master of a terminal whose other end it restored.
const ORPHAN: &str = "orphan-pts-master";
/// Notifications between `post-restore` and the end: `network-unlock`, `pre-resume`,
/// `post-resume`.
const ASKED: usize = 3;

/// CRIU runs, in the container's cgroup, with everything open that it will need.
pub struct Armed {
    migration: MigrationId,
    swrk: Swrk,
    output: Output,
    ends: Ends,
    /// The container's end of its standard input. None: that is no pipe.
    stdin: Option<OwnedFd>,
    netns: File,
    images: File,
    /// None: there is no memory for it.
    pager: Option<Pager>,
}

/// CRIU waits in `post-restore`.
pub struct Staged {
    migration: MigrationId,
    swrk: Swrk,
    output: Output,
    init: Init,
    pager: Option<Pager>,
}

/// What a resumed container is made of.
pub struct Resumed {
    pub init: Init,
    pub output: Output,
    pub pager: Option<Pager>,
    /// It is not through, but nothing that it still does matters to the tasks.
    pub swrk: Swrk,
    pub steps: Vec<FreezeStep>,
}

pub fn arm(config: &Config, group: &Group, migration: MigrationId) -> Result<Armed, String> {
    held::begin(&config.dir.join(HELD)).map_err(|error| format!("`{HELD}`: {error}"))?;
    let (mut output, ends) = Output::new(&config.dir.join(crate::log::FILE))
        .map_err(|error| format!("log can't be opened: {error}"))?;
    let stdin = output.equip(&config.terminal).map_err(|e| e.to_string())?;
    let netns = File::open(&config.netns)
        .map_err(|error| format!("network namespace `{}`: {error}", config.netns.display()))?;
    let path = config.dir.join("incoming").join("criu");
    let images = File::open(&path).map_err(|error| format!("`{}`: {error}", path.display()))?;
    let pager =
        Pager::start(&path, &feed(&config.socket)).map_err(|error| format!("pager: {error}"))?;
    let tools = tools(&config.dir.join(TOOLS)).map_err(|error| format!("`{TOOLS}`: {error}"))?;
    let swrk = Swrk::spawn(Launch {
        program: &config.criu,
        tools: tools.as_deref(),
        inherit: &[
            Some(netns.as_fd()),
            Some(images.as_fd()),
            Some(ends.stdout.as_fd()),
            Some(ends.stderr.as_fd()),
            stdin.as_ref().map(AsFd::as_fd),
        ]
        .into_iter()
        .flatten()
        .collect::<Vec<_>>(),
        hidden: None,
        smaps: None,
    })
    .map_err(|error| chain(&error))?;
    // Restored tasks are born where CRIU is: cgroups are not CRIU's business.
    group.join(swrk.pid()).map_err(|error| chain(&error))?;
    Ok(Armed {
        migration,
        swrk,
        output,
        ends,
        stdin,
        netns,
        images,
        pager: Some(pager),
    })
}

impl Armed {
    pub fn migration(&self) -> &MigrationId {
        &self.migration
    }

    pub fn stage(
        mut self,
        config: &Config,
        group: &Group,
        memory: Option<IndexAt>,
    ) -> Result<(Staged, Vec<FreezeStep>), String> {
        let restored = self.restore(config, group, memory);
        if restored.is_err() {
            // CRIU removes what it restored; where it died, this does.
            drop(self.swrk);
            let _ = group.kill();
            return Err(restored.err().unwrap_or_default());
        }
        let (init, steps) = restored?;
        let Self {
            migration,
            swrk,
            output,
            pager,
            ..
        } = self;
        Ok((
            Staged {
                migration,
                swrk,
                output,
                init,
                pager,
            },
            steps,
        ))
    }

    fn restore(
        &mut self,
        config: &Config,
        group: &Group,
        memory: Option<IndexAt>,
    ) -> Result<(Init, Vec<FreezeStep>), String> {
        let mut steps = Steps::new();
        match (&mut self.pager, memory) {
            (Some(pager), Some(index)) => {
                pager.open(index).map_err(|error| error.to_string())?;
                steps.done("open memory");
            }
            // All of it is in CRIU's images.
            (pager, None) => *pager = None,
            (None, Some(_)) => return Err("there is no pager for this memory".to_owned()),
        }
        let path = config.dir.join("incoming").join("criu");
        let [stdin, out, err] = descriptors::read(&path)
            .map_err(|error| format!("`{}`: {error}", descriptors::FILE))?;
        // Cgroups are not CRIU's business, yet with this image it starts a helper for them.
        match std::fs::remove_file(path.join(CGROUPS)) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(format!("`{CGROUPS}`: {error}"));
            }
            _ => {}
        }
        let options = RestoreOptions {
            images: self.images.as_raw_fd(),
            root: config.root.display().to_string(),
            netns: self.netns.as_raw_fd(),
            mounts: [config.mounts.clone(), config.own_mounts()].concat(),
            pipes: [
                (out, Some(self.ends.stdout.as_raw_fd())),
                (err, Some(self.ends.stderr.as_raw_fd())),
                (stdin, self.stdin.as_ref().map(AsRawFd::as_raw_fd)),
            ]
            .into_iter()
            // A terminal's is none, and comes from CRIU.
            .filter(|(key, _)| key.starts_with("pipe:"))
            .filter_map(|(key, fd)| Some((key, fd?)))
            .collect(),
            lazy: self.pager.is_some(),
        };
        self.swrk
            .restore(options.into_opts())
            .map_err(|error| chain(&error))?;
        let mut pid = None;
        loop {
            match self.swrk.next() {
                Ok(Event::Notify(script)) if script == "pre-restore" => steps.done("criu start"),
                Ok(Event::Notify(script)) if script == "post-restore" => break,
                Ok(Event::Notify(script)) if script == "setup-namespaces" => {
                    pid = self.swrk.notified_pid();
                }
                Ok(Event::Notify(script)) if script == ORPHAN => {
                    let master = self.swrk.take_descriptor().ok_or("criu gave no terminal")?;
                    // Of an `exec` that left something behind: it ends like any other hang-up.
                    if config.terminal.tty {
                        let set = self.output.set_terminal(master);
                        set.map_err(|error| format!("terminal: {error}"))?;
                    }
                }
                Ok(Event::Notify(_)) => {}
                Ok(Event::Done { message, .. }) => {
                    return Err(format!(
                        "criu restore failed: {}",
                        reason(&path.join("restore.log"), message)
                    ));
                }
                Err(error) => {
                    let reason = reason(&path.join("restore.log"), chain(&error));
                    return Err(format!("criu restore failed: {reason}"));
                }
            }
            self.swrk.answer(true).map_err(|error| chain(&error))?;
        }
        steps.done("restore");
        let taken = self.output.input.take_up(&path);
        taken.map_err(|error| format!("standard input: {error}"))?;
        let pid = self
            .swrk
            .notified_pid()
            .or(pid)
            .ok_or("criu named no restored task")?;
        let init = Init::new(pid).map_err(|error| format!("restored init {pid}: {error}"))?;
        // Only now: CRIU's own processes must not count against the container's limits.
        limit(config, group)?;
        steps.done("limits");
        Ok((init, steps.0))
    }

    pub fn discard(self, group: &Group) -> Result<(), String> {
        drop(self.swrk);
        group.kill().map_err(|error| chain(&error))
    }
}

impl Staged {
    pub fn migration(&self) -> &MigrationId {
        &self.migration
    }

    pub fn init(&self) -> &Init {
        &self.init
    }

    pub fn output(&self) -> &Output {
        &self.output
    }

    pub fn pager(&self) -> Option<&Pager> {
        self.pager.as_ref()
    }

    /// The pid of the CRIU that holds it.
    pub fn restorer(&self) -> i32 {
        self.swrk.pid()
    }

    /// Opens the gate and lets the tasks run. An error gives it back where it is still held.
    #[expect(clippy::result_large_err)]
    pub fn resume(mut self, config: &Config) -> Result<Resumed, (Option<Self>, String)> {
        let mut steps = Steps::new();
        // It waits for us, and has nothing to say unless it has ended: nothing can run any more.
        if self.swrk.is_ready() {
            return Err((None, "criu ended while it held the container".to_owned()));
        }
        // Before the network: it can acknowledge what nobody else has.
        if let Err(error) = held::end(&config.dir.join(HELD)) {
            return Err((Some(self), format!("`{HELD}` can't be removed: {error}")));
        }
        // Before the tasks run, as CRIU itself does it: what they send first must not be lost.
        if let Err(error) = gate(config, true) {
            return Err((Some(self), error));
        }
        steps.done("open gate");
        if let Err(error) = self.swrk.answer(true) {
            return Err((Some(self), chain(&error)));
        }
        // There is no way back now: whatever CRIU notifies us of, it goes on. So the answers are
        // there before it asks, and it need not wait for us. An error comes again below.
        let mut ahead = 0;
        while ahead < ASKED && self.swrk.answer(true).is_ok() {
            ahead += 1;
        }
        loop {
            match self.swrk.next() {
                Ok(Event::Notify(script)) => {
                    if ahead > 0 {
                        ahead -= 1;
                    } else if let Err(error) = self.swrk.answer(true) {
                        return Err((None, chain(&error)));
                    }
                    // They run: what CRIU still does is to tidy up after itself.
                    if script == "post-resume" {
                        break;
                    }
                }
                Ok(Event::Done { success: true, .. }) => break,
                Ok(Event::Done { message, .. }) => {
                    let log = config.dir.join("incoming/criu/restore.log");
                    return Err((
                        None,
                        format!("criu did not resume: {}", reason(&log, message)),
                    ));
                }
                Err(error) => return Err((None, chain(&error))),
            }
        }
        steps.done("resume");
        Ok(Resumed {
            swrk: self.swrk,
            init: self.init,
            output: self.output,
            pager: self.pager,
            steps: steps.0,
        })
    }

    pub fn discard(mut self, group: &Group) -> Result<(), String> {
        if self.swrk.answer(false).is_ok() {
            while let Ok(event) = self.swrk.next() {
                if matches!(event, Event::Done { .. }) {
                    break;
                }
                let _ = self.swrk.answer(false);
            }
            self.swrk.finish();
        }
        group.kill().map_err(|error| chain(&error))?;
        self.init.reap();
        Ok(())
    }
}
