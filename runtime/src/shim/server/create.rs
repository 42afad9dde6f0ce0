//! A new container, through libcontainer.

use std::{fs, io::Write, path::Path};

use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};

use super::{
    super::protocol::Config,
    init::Init,
    output::{Ends, Output},
};
use crate::{
    cgroup::Group,
    container::{WARNINGS, remove_tree},
    exec::Console,
};

/// Creates and starts. What it had made when it failed is removed.
pub fn create(config: &Config, group: &Group) -> Result<(Init, Output), String> {
    create_held(config, group).inspect_err(|_| {
        let _ = group.kill();
        let _ = group.remove();
        let _ = remove_tree(&config.dir.join("state"));
    })
}

fn create_held(config: &Config, group: &Group) -> Result<(Init, Output), String> {
    let (mut output, Ends { stdout, stderr }) = Output::new(&config.dir.join(crate::log::FILE))
        .map_err(|error| format!("log can't be opened: {error}"))?;
    let stdin = match output.equip(&config.terminal).map_err(|e| e.to_string())? {
        Some(stdin) => stdin,
        None => fs::File::open("/dev/null")
            .map_err(|error| format!("/dev/null: {error}"))?
            .into(),
    };
    let console = match config.terminal.tty {
        true => Some(Console::listen(&config.dir).map_err(|e| format!("terminal: {e}"))?),
        false => None,
    };
    let state = config.dir.join("state");
    remove_tree(&state)
        .and_then(|()| fs::create_dir_all(&state))
        .map_err(|e| e.to_string())?;
    let short = Path::new(&config.cgroup).file_name().map_or_else(
        || config.id.clone(),
        |name| name.to_string_lossy().into_owned(),
    );
    let mut builder = ContainerBuilder::new(short, SyscallType::default())
        .with_root_path(&state)
        .map_err(|error| chain(&error))?
        .with_console_socket(console.as_ref().map(Console::path));
    if console.is_none() {
        builder = builder
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr);
    }
    let mut container = builder
        .as_init(config.dir.join("bundle"))
        .with_systemd(false)
        .with_detach(true)
        .build()
        .map_err(|error| chain(&error))?;
    let pid = container.pid().ok_or("libcontainer gave no pid")?.as_raw();
    let init = Init::new(pid).map_err(|error| format!("init {pid}: {error}"))?;
    // It waits for its start, alone: all it will ever fork is in the group from its birth.
    let started = take_terminal(config, console, &mut output)
        .and_then(|()| group.join_freezer(pid).map_err(|error| chain(&error)))
        .and_then(|()| limit(config, group))
        .and_then(|()| container.start().map_err(|error| chain(&error)));
    if let Err(error) = started {
        let _ = init.signal(nix::libc::SIGKILL);
        init.reap();
        return Err(error);
    }
    Ok((init, output))
}

/// Bounds the group, and leaves word of what this host can't do.
pub fn limit(config: &Config, group: &Group) -> Result<(), String> {
    let lacking = group
        .limit(&config.limits, &config.devices)
        .map_err(|error| chain(&error))?;
    if lacking.is_empty() {
        return Ok(());
    }
    let path = config.dir.join(WARNINGS);
    let written = fs::OpenOptions::new()
        .append(true)
        .create(true)
        .open(&path)
        .and_then(|mut file| writeln!(file, "{}", lacking.join("\n")));
    written.map_err(|error| format!("`{}`: {error}", path.display()))
}

fn take_terminal(
    config: &Config,
    console: Option<Console>,
    output: &mut Output,
) -> Result<(), String> {
    let Some(console) = console else {
        return Ok(());
    };
    let terminal = |error: std::io::Error| format!("terminal: {error}");
    let master = console.take().map_err(terminal)?;
    output.set_terminal(master).map_err(terminal)?;
    match config.terminal.size {
        Some(size) => output.input.resize(size).map_err(terminal),
        None => Ok(()),
    }
}

/// An error and its causes in one line.
pub fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let cause = source.to_string();
        // libcontainer repeats its sources' text.
        if !text.ends_with(&cause) {
            text.push_str(": ");
            text.push_str(&cause);
        }
        next = source.source();
    }
    text
}
