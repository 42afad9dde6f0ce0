//! The source's half of the hand-over: dump and hold.
//!
//! [`dump`] either fails, and the container runs as before, or gives a [`Frozen`], which has
//! exactly two ends: [`Frozen::thaw`] and [`Frozen::release`].

use std::{
    fs::{self, File},
    os::fd::AsRawFd,
    os::unix::fs::MetadataExt,
    time::Instant,
};

use godwit_types::{FreezeStep, MigrationId};

use super::{super::protocol::Config, create::chain, init::Init, output::Output};
use crate::{
    cgroup::Group,
    container::{MASKED_FILES, make_in_memory, mount_point, remove_images, remove_tree},
    criu::{DumpOptions, Event, Launch, Swrk, descriptors, reason, tools},
    memory::{HiddenTable, Smaps},
    sys,
};

/// Every task is stopped, dumped, and frozen by its cgroup as well: whoever lets go of them, they
/// run again only after a thaw.
pub struct Frozen {
    migration: MigrationId,
    carried: bool,
    /// Waits in `post-dump`. It may have died: the cgroup holds the tasks then.
    swrk: Swrk,
}

/// Images are kept in memory if the container has less than this, or its memory is not in them.
const IN_MEMORY: u64 = 64 << 20;
/// In the container's directory: see [`tools`].
pub const TOOLS: &str = "tools";

/// The container's name of the gate's state: a link of this network namespace.
pub fn gate(config: &Config, open: bool) -> Result<(), String> {
    let Some(link) = &config.gate else {
        return Ok(());
    };
    sys::set_link_up(link, open).map_err(|error| format!("link `{link}`: {error}"))
}

pub fn dump(
    config: &Config,
    group: &Group,
    init: &Init,
    output: &mut Output,
    migration: MigrationId,
    carried: bool,
) -> Result<(Frozen, Vec<FreezeStep>), String> {
    dump_held(config, group, init, output, migration, carried).inspect_err(|_| {
        // Before anything else may run: tasks that can't answer would only lose packets.
        let _ = gate(config, true);
        if let Err(error) = group.thaw() {
            tracing::error!(error = %chain(&error), "thaw after a failed dump");
        }
        remove_checkpoint(config);
    })
}

fn dump_held(
    config: &Config,
    group: &Group,
    init: &Init,
    output: &mut Output,
    migration: MigrationId,
    carried: bool,
) -> Result<(Frozen, Vec<FreezeStep>), String> {
    // From here on, so that nothing which is done before anything stops counts as freeze.
    let mut steps = Steps::new();
    let images = config.dir.join("checkpoint").join("criu");
    let made = if carried || memory(group) < IN_MEMORY {
        make_in_memory(&images)
    } else {
        remove_images(&images).and_then(|()| fs::create_dir_all(&images))
    };
    made.map_err(|error| format!("`{}`: {error}", images.display()))?;
    let images_fd = File::open(&images).map_err(|error| error.to_string())?;
    let netns = fs::metadata(&config.netns)
        .map_err(|error| format!("network namespace `{}`: {error}", config.netns.display()))?;
    let options = DumpOptions {
        pid: init.pid(),
        images: images_fd.as_raw_fd(),
        root: config.root.display().to_string(),
        netns_inode: netns.ino(),
        mounts: config.etc_mounts(),
        places: config
            .mounts
            .iter()
            .map(|mount| {
                let at = mount_point(&config.root, &mount.destination);
                (at, mount.destination.clone())
            })
            .collect(),
        masked: MASKED_FILES.iter().map(|path| (*path).to_owned()).collect(),
    };
    let hidden = match carried {
        true => Some(HiddenTable::new().map_err(|error| error.to_string())?),
        false => None,
    };
    // Beside the socket, where no disk is in the way.
    let smaps = group
        .processes()
        .map_err(|error| chain(&error))
        .and_then(|pids| {
            let noted = Smaps::note(&config.socket.with_extension("smaps"), &pids);
            noted.map_err(|error| format!("mappings can't be read: {error}"))
        })?;
    let dumped = dump_until_held(
        config, group, options, &images_fd, hidden, &smaps, &mut steps,
    );
    if let Err(error) = smaps.remove() {
        tracing::warn!(%error, "mappings left behind");
    }
    let swrk = dumped.map_err(|message| {
        let failed = format!(
            "criu dump failed: {}",
            reason(&images.join("dump.log"), message)
        );
        failed
    })?;
    steps.done("dump");
    // The guard: from here on neither CRIU's death nor ours lets the tasks run.
    group.freeze().map_err(|error| chain(&error))?;
    steps.done("guard");
    // What the container has written so far belongs to this host's log, which moves with it.
    output.flush();
    let (out, err) = output.keys();
    descriptors::write(&images, &["/dev/null".to_owned(), out, err])
        .map_err(|error| format!("descriptors can't be written: {error}"))?;
    steps.done("log");
    let frozen = Frozen {
        migration,
        carried,
        swrk,
    };
    Ok((frozen, steps.0))
}

/// Until CRIU waits in `post-dump`. An error is what it said itself.
fn dump_until_held(
    config: &Config,
    group: &Group,
    options: DumpOptions,
    images_fd: &File,
    hidden: Option<HiddenTable>,
    smaps: &Smaps,
    steps: &mut Steps,
) -> Result<Swrk, String> {
    let inherit = [std::os::fd::AsFd::as_fd(images_fd)];
    let tools = tools(&config.dir.join(TOOLS)).map_err(|error| format!("`{TOOLS}`: {error}"))?;
    let mut swrk = Swrk::spawn(Launch {
        program: &config.criu,
        tools: tools.as_deref(),
        inherit: &inherit,
        hidden: hidden.as_ref(),
        smaps: Some(smaps.dir()),
    })
    .map_err(|error| chain(&error))?;
    swrk.dump(options.into_opts())
        .map_err(|error| chain(&error))?;
    loop {
        match swrk.next().map_err(|error| chain(&error))? {
            // The last moment before CRIU stops anything: its own start is behind us.
            Event::Notify(script) if script == "pre-dump" => steps.done_running("start criu"),
            // Every task is stopped, no connection is dumped yet. Not sooner: what a task had
            // just sent would be lost on its way, and only come again after a second.
            Event::Notify(script) if script == "network-lock" => {
                steps.done("stop tasks");
                gate(config, false)?;
                steps.done("shut gate");
                // Only now is it certain which mappings there are.
                let failed = |error| format!("mappings can't be read: {error}");
                smaps.write().map_err(failed)?;
                if let Some(hidden) = &hidden {
                    let pids = group.processes().map_err(|error| chain(&error))?;
                    hidden.fill(&pids).map_err(failed)?;
                }
                steps.done("list mappings");
            }
            Event::Notify(script) if script == "post-dump" => return Ok(swrk),
            Event::Notify(_) => {}
            Event::Done { message, .. } => return Err(message),
        }
        swrk.answer(true).map_err(|error| chain(&error))?;
    }
}

fn remove_checkpoint(config: &Config) {
    let checkpoint = config.dir.join("checkpoint");
    let removed = remove_images(&checkpoint.join("criu")).and_then(|()| remove_tree(&checkpoint));
    if let Err(error) = removed {
        tracing::warn!(%error, "checkpoint left behind");
    }
}

/// What the processes have in memory, in bytes; what several share counts for each.
fn memory(group: &Group) -> u64 {
    let pages = |pid: i32| -> Option<u64> {
        let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
        text.split(' ').nth(1)?.parse().ok()
    };
    let pids = group.processes().unwrap_or_default();
    let sum: u64 = pids.into_iter().filter_map(pages).sum();
    sum * rustix::param::page_size() as u64
}

impl Frozen {
    pub fn migration(&self) -> &MigrationId {
        &self.migration
    }

    pub fn carried(&self) -> bool {
        self.carried
    }

    /// The tasks run on as if nothing had been.
    pub fn thaw(mut self, config: &Config, group: &Group) -> Result<(), String> {
        // Refused, CRIU lets the tasks go; if it is dead, it has already. An error is no reason
        // to leave them frozen.
        if self.swrk.answer(false).is_ok() {
            while let Ok(event) = self.swrk.next() {
                if matches!(event, Event::Done { .. }) {
                    break;
                }
                let _ = self.swrk.answer(false);
            }
            self.swrk.finish();
        }
        let opened = gate(config, true);
        group.thaw().map_err(|error| chain(&error))?;
        remove_checkpoint(config);
        opened
    }

    /// The tasks are killed: the container runs elsewhere.
    pub fn release(mut self, group: &Group, init: &Init) -> Result<(), String> {
        if self.swrk.answer(true).is_ok() {
            while let Ok(event) = self.swrk.next() {
                if matches!(event, Event::Done { .. }) {
                    break;
                }
                let _ = self.swrk.answer(true);
            }
            self.swrk.finish();
        }
        // CRIU kills them; where it could not, this does. It never thaws a living task: SIGKILL
        // is pending when the freezer lets go.
        group.kill().map_err(|error| chain(&error))?;
        init.reap();
        Ok(())
    }
}

/// A stopwatch that names what it measured.
pub struct Steps(pub Vec<FreezeStep>, Instant);

impl Steps {
    pub fn new() -> Self {
        Self(Vec::new(), Instant::now())
    }

    /// Of a step during which the container still ran.
    pub fn done_running(&mut self, name: &str) {
        self.0
            .push(FreezeStep::new(name, self.1.elapsed()).while_running());
        self.1 = Instant::now();
    }

    pub fn done(&mut self, name: &str) {
        self.0.push(FreezeStep::new(name, self.1.elapsed()));
        self.1 = Instant::now();
    }
}
