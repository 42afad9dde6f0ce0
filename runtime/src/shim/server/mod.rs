//! The shim's own side: one thread, one loop. What it waits for is the socket, the container's
//! output, and the end of its init; everything else happens inside a request.
//!
//! A dump or a restore blocks the loop until CRIU holds: requests that come meanwhile wait.

mod adopt;
mod attach;
mod connection;
mod create;
mod freeze;
mod init;
mod input;
mod log_file;
mod machine;
mod output;
mod pager;
mod stage;

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::{fs::PermissionsExt, net::UnixListener},
    },
    path::Path,
    time::{Duration, Instant},
};

use attach::Attached;
use connection::Connection;
pub(crate) use create::chain;
use machine::Machine;
use rustix::{
    event::{PollFd, PollFlags, Timespec, poll},
    fs::{FlockOperation, flock},
};

use super::{
    kept,
    protocol::{Config, Reply, Request, State},
};
use crate::sys;

/// How long a shim that is killed may take to end, and the time between two looks.
const ENDS: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(2);

/// Why a shim could not begin.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    #[error("shim configuration `{path}` can't be read")]
    Config {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("shim socket `{path}` can't be made")]
    Socket {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("shim can't detach")]
    Detach(#[source] io::Error),
    #[error("shim's lock `{path}` can't be had: another one has it")]
    Lock {
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("container can't be taken up: {0}")]
    Adopt(String),
}

/// What a shim begins with.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Begin {
    /// No container yet.
    Anew,
    /// The one of a shim that is gone.
    Adopt,
}

/// Listens, leaves its parent behind (which returns at once: from then on requests are answered
/// or wait), and serves until its container is gone.
pub fn run(config: &Path, begin: Begin) -> Result<(), StartError> {
    let shown = || config.display().to_string();
    let text = fs::read(config).map_err(|source| StartError::Config {
        path: shown(),
        source,
    })?;
    let config: Config = serde_json::from_slice(&text).map_err(|error| StartError::Config {
        path: shown(),
        source: error.into(),
    })?;
    // Two would each take what the other has to read.
    let lock = lock(&config.socket)?;
    let machine = match begin {
        Begin::Anew => Machine::new(config.clone()),
        Begin::Adopt => adopt::adopt(config.clone()).map_err(StartError::Adopt)?,
    };
    let listener = listen(&config.socket).map_err(|source| StartError::Socket {
        path: config.socket.display().to_string(),
        source,
    })?;
    if sys::fork().map_err(StartError::Detach)?.is_some() {
        // It is the child's now: dropped here, the pager would be killed.
        std::mem::forget(machine);
        return Ok(());
    }
    rustix::process::setsid().map_err(|errno| StartError::Detach(errno.into()))?;
    serve(listener, machine);
    for file in [config.socket.clone(), kept::lock(&config.socket)] {
        let _ = fs::remove_file(file);
    }
    drop(lock);
    Ok(())
}

/// Given up by the kernel when the last process ends that has it: this one and its child.
fn lock(socket: &Path) -> Result<File, StartError> {
    let path = kept::lock(socket);
    let locked = || {
        if let Some(parent) = path.parent() {
            fs::create_dir_all(parent)?;
        }
        let file = File::create(&path)?;
        let deadline = Instant::now() + ENDS;
        // One that is killed gives up its socket first.
        while let Err(errno) = flock(&file, FlockOperation::NonBlockingLockExclusive) {
            if errno != rustix::io::Errno::WOULDBLOCK || Instant::now() > deadline {
                return Err(io::Error::from(errno));
            }
            std::thread::sleep(LOOK);
        }
        Ok(file)
    };
    locked().map_err(|source| StartError::Lock {
        path: path.display().to_string(),
        source,
    })
}

fn listen(path: &Path) -> io::Result<UnixListener> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let listener = UnixListener::bind(path)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

fn serve(listener: UnixListener, mut machine: Machine) {
    let mut watchers: Vec<(Connection, State)> = Vec::new();
    let mut attached = machine.attached();
    loop {
        let ready = wait(&listener, &machine, &watchers, &attached);
        machine.read_output();
        if let Some(input) = machine.input() {
            attached.serve(input);
        }
        machine.reap();
        machine.reap_pager();
        machine.reap_restorer();
        if ready.listener {
            while let Ok((stream, _)) = listener.accept() {
                let mut connection = Connection::new(stream);
                match connection.request() {
                    Ok(Request::Watch { known }) => watchers.push((connection, known)),
                    Ok(Request::Attach) => attach(connection, &machine, &mut attached),
                    Ok(request) => {
                        let reply = machine.handle(request);
                        connection.reply(&reply);
                    }
                    Err(error) => {
                        connection.reply(&Reply::Failed {
                            message: format!("bad request: {error}"),
                        });
                    }
                }
            }
        }
        let state = machine.state();
        watchers.retain_mut(|(connection, known)| {
            if *known == state {
                return connection.is_open();
            }
            connection.reply(&Reply::State {
                state: state.clone(),
            });
            false
        });
        if machine.is_over() {
            return;
        }
    }
}

fn attach(mut connection: Connection, machine: &Machine, attached: &mut Attached) {
    let problem = match machine.state() {
        State::Running { .. } if attached.is_full() => "too many are attached".to_owned(),
        State::Running { .. } | State::Frozen { .. } => {
            connection.reply(&Reply::Done { steps: Vec::new() });
            if let Err(error) = attached.add(connection.into_stream()) {
                tracing::warn!(%error, "not attached");
            }
            return;
        }
        state => format!("nobody can be attached in state {state:?}"),
    };
    connection.reply(&Reply::Failed { message: problem });
}

struct Ready {
    listener: bool,
}

/// Waits until anything happens. Watchers that hang up are noticed, so that an agent that comes
/// and goes leaves no descriptors behind.
fn wait(
    listener: &UnixListener,
    machine: &Machine,
    watchers: &[(Connection, State)],
    attached: &Attached,
) -> Ready {
    let mut fds: Vec<PollFd<'_>> = vec![PollFd::new(listener, PollFlags::IN)];
    let others: Vec<BorrowedFd<'_>> = machine
        .sources()
        .into_iter()
        .chain(watchers.iter().map(|(connection, _)| connection.as_fd()))
        .collect();
    fds.extend(others.iter().map(|fd| PollFd::new(fd, PollFlags::IN)));
    let (takes, blocked) = machine.waits_for_input();
    if takes {
        let sources = attached.sources();
        fds.extend(sources.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::IN)));
    }
    fds.extend(blocked.map(|fd| PollFd::from_borrowed_fd(fd, PollFlags::OUT)));
    let due = machine.due().and_then(|due| Timespec::try_from(due).ok());
    match poll(&mut fds, due.as_ref()) {
        Ok(_) => Ready {
            listener: !fds[0].revents().is_empty(),
        },
        Err(rustix::io::Errno::INTR) => Ready { listener: false },
        Err(error) => {
            // Never spin over a broken descriptor.
            tracing::error!(%error, "poll failed");
            std::thread::sleep(Duration::from_millis(100));
            Ready { listener: true }
        }
    }
}
