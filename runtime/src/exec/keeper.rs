//! `godwit-shim --exec DIRECTORY`: the parent of one program that was started in a container, and
//! the keeper of its streams. Its standard input is the socket to whoever looks at it.

use std::{
    fs::{self, File},
    io,
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::net::UnixStream,
    },
    path::Path,
};

use godwit_types::{CommandFailure, FailureKind};
use libcontainer::{container::builder::ContainerBuilder, syscall::syscall::SyscallType};
use rustix::{
    event::{PollFd, PollFlags, poll},
    fs::{OFlags, fcntl_setfl},
    io::{Errno, read, write},
    pipe::{PipeFlags, pipe_with},
    process::{Pid, PidfdFlags, Signal, WaitOptions, pidfd_open, pidfd_send_signal, waitpid},
};

use super::{Console, Plan, ended};
use crate::{
    cgroup::Group,
    container::remove_tree,
    frames::{Decoder, Frame, Input, Output},
    sys,
};

/// Bytes that wait for a reader before the program has to.
const AHEAD: usize = 256 << 10;
const PIECE: usize = 16 << 10;

/// Starts the program of this directory's plan, and serves until it has ended. Removes the
/// directory.
pub fn run(dir: &Path) -> io::Result<()> {
    // The program must not get it: its own standard input takes the place.
    let socket = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
    socket.set_nonblocking(true)?;
    let null = File::options().read(true).write(true).open("/dev/null")?;
    nix::unistd::dup2_stdin(&null)?;
    // Signals of the agent's terminal are not meant for it.
    let _ = rustix::process::setsid();
    let served = start(dir, &null).map(|program| program.serve(socket.try_clone()));
    if let Err(failure) = remove_tree(dir) {
        tracing::warn!(%failure, "directory of an exec left behind");
    }
    match served {
        Ok(served) => served,
        Err(failure) => {
            socket.set_nonblocking(false)?;
            io::Write::write_all(&mut &socket, &Output::Failed(failure).encode())
        }
    }
}

/// A program and its streams.
struct Program {
    plan: Plan,
    pid: Pid,
    /// Readable once it has ended.
    pidfd: OwnedFd,
    /// None: it has none, or it has ended.
    stdin: Option<OwnedFd>,
    /// The terminal's master is both this and `stdin`.
    stdout: Option<OwnedFd>,
    stderr: Option<OwnedFd>,
    terminal: Option<OwnedFd>,
}

fn internal(what: &str, error: impl std::fmt::Display) -> CommandFailure {
    CommandFailure::new(FailureKind::Internal, format!("{what}: {error}"))
}

fn start(dir: &Path, null: &File) -> Result<Program, CommandFailure> {
    let text = fs::read(dir.join(Plan::FILE)).map_err(|error| internal(Plan::FILE, error))?;
    let plan: Plan = serde_json::from_slice(&text).map_err(|error| internal(Plan::FILE, error))?;
    let group = Group::new(&plan.cgroup).map_err(|error| internal("cgroup", error))?;
    let visit = group
        .visit_freezer()
        .map_err(|error| internal("freezer", error))?;
    let started = build(dir, &plan, null);
    if let Err(error) = visit.leave() {
        tracing::warn!(%error, "the freezer can't be left");
    }
    started.map(|(pid, streams)| (pid, streams, plan)).and_then(
        |(pid, [stdin, stdout, stderr, terminal], plan)| {
            let pid = Pid::from_raw(pid).ok_or_else(|| internal("program", "no pid"))?;
            let pidfd =
                pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| internal("program", errno))?;
            Ok(Program {
                plan,
                pid,
                pidfd,
                stdin,
                stdout,
                stderr,
                terminal,
            })
        },
    )
}

/// Standard input, output and error as we have them, and the terminal.
type Streams = [Option<OwnedFd>; 4];

fn build(dir: &Path, plan: &Plan, null: &File) -> Result<(i32, Streams), CommandFailure> {
    let failed = |error: io::Error| internal("streams", error);
    let console = match plan.tty {
        true => Some(Console::listen(dir).map_err(failed)?),
        false => None,
    };
    let null = || null.as_fd().try_clone_to_owned();
    let (mut ours, mut theirs): (Streams, Vec<OwnedFd>) = Default::default();
    if console.is_none() {
        for (number, place) in ours.iter_mut().take(3).enumerate() {
            let (reader, writer) = pipe_with(PipeFlags::CLOEXEC).map_err(|e| failed(e.into()))?;
            let wanted = if number == 0 {
                plan.stdin
            } else {
                !plan.detach
            };
            let (our, their) = match number {
                0 => (writer, reader),
                _ => (reader, writer),
            };
            if wanted {
                fcntl_setfl(&our, OFlags::NONBLOCK).map_err(|e| failed(e.into()))?;
                *place = Some(our);
                theirs.push(their);
            } else {
                theirs.push(null().map_err(failed)?);
            }
        }
    }
    let refused = |error: libcontainer::error::LibcontainerError| {
        let text = crate::shim::chain(&error);
        let kind = if text.contains("No such file or directory") || text.contains("ENOENT") {
            FailureKind::CommandNotFound
        } else if text.contains("Permission denied") || text.contains("EACCES") {
            FailureKind::CommandNotExecutable
        } else {
            FailureKind::Internal
        };
        CommandFailure::new(kind, text)
    };
    let mut builder = ContainerBuilder::new(plan.name.clone(), SyscallType::default())
        .with_root_path(dir.join(Plan::STATE))
        .map_err(refused)?
        .with_console_socket(console.as_ref().map(Console::path));
    if let Ok([stdin, stdout, stderr]) = <[OwnedFd; 3]>::try_from(theirs) {
        builder = builder
            .with_stdin(stdin)
            .with_stdout(stdout)
            .with_stderr(stderr);
    }
    let pid = builder
        .as_tenant()
        .with_process(Some(dir.join(Plan::PROCESS)))
        .with_detach(true)
        .build()
        .map_err(refused)?;
    if let Some(console) = console {
        let master = console.take().map_err(failed)?;
        if let Some(size) = plan.size {
            let _ = sys::set_terminal_size(master.as_fd(), size.rows, size.columns);
        }
        let again = || master.try_clone().map(Some).map_err(failed);
        ours = [again()?, again()?, None, Some(master)];
    }
    Ok((pid.as_raw(), ours))
}

/// The connection, and what waits for it.
struct Viewer {
    /// None: nobody looks any more.
    socket: Option<UnixStream>,
    decoder: Decoder,
    outgoing: Vec<u8>,
    incoming: Vec<u8>,
    /// Input ends after `incoming`.
    ends: bool,
    /// It goes on without anybody.
    left: bool,
}

impl Program {
    fn serve(mut self, socket: io::Result<UnixStream>) -> io::Result<()> {
        let mut viewer = Viewer {
            socket: Some(socket?),
            decoder: Decoder::default(),
            outgoing: Output::Started.encode(),
            incoming: Vec::new(),
            ends: false,
            left: self.plan.detach,
        };
        loop {
            self.wait(&viewer)?;
            if viewer.receive(&self) {
                self.hung_up(&mut viewer);
            }
            self.feed(&mut viewer);
            self.collect(&mut viewer);
            viewer.send();
            if let Ok(Some((_, status))) = waitpid(Some(self.pid), WaitOptions::NOHANG) {
                let signal = status.terminating_signal();
                let code = status
                    .exit_status()
                    .or_else(|| signal.map(|signal| 128 + signal));
                let killed = signal == Some(nix::libc::SIGKILL);
                self.finish(&mut viewer, code.unwrap_or(-1), killed);
                return Ok(());
            }
        }
    }

    /// Until anything can be done.
    fn wait(&self, viewer: &Viewer) -> io::Result<()> {
        let mut fds = vec![PollFd::new(&self.pidfd, PollFlags::IN)];
        if let Some(socket) = &viewer.socket {
            let mut flags = PollFlags::empty();
            if viewer.incoming.is_empty() {
                flags |= PollFlags::IN;
            }
            if !viewer.outgoing.is_empty() {
                flags |= PollFlags::OUT;
            }
            // Without either it would be told of a hang-up over and over.
            if !flags.is_empty() {
                fds.push(PollFd::new(socket, flags));
            }
        }
        if viewer.outgoing.len() < AHEAD {
            let streams = [&self.stdout, &self.stderr];
            fds.extend(
                streams
                    .into_iter()
                    .flatten()
                    .map(|fd| PollFd::new(fd, PollFlags::IN)),
            );
        }
        if !viewer.incoming.is_empty()
            && let Some(stdin) = &self.stdin
        {
            fds.push(PollFd::new(stdin, PollFlags::OUT));
        }
        match poll(&mut fds, None) {
            Ok(_) | Err(Errno::INTR) => Ok(()),
            Err(errno) => Err(errno.into()),
        }
    }

    fn apply(&self, input: Input, viewer: &mut Viewer) {
        match input {
            Input::Data(data) if self.stdin.is_some() && !viewer.ends => {
                viewer.incoming.extend(data);
            }
            Input::Data(_) => {}
            Input::End => viewer.ends = true,
            Input::Size(size) => {
                if let Some(terminal) = &self.terminal {
                    let _ = sys::set_terminal_size(terminal.as_fd(), size.rows, size.columns);
                }
            }
            Input::Signal(signal) => {
                // An error: it has ended, or there is no such signal.
                if let Some(signal) = Signal::from_named_raw(signal) {
                    let _ = pidfd_send_signal(&self.pidfd, signal);
                }
            }
            Input::Detach => viewer.left = true,
        }
    }

    /// Nobody looks at it any more. Unless it was left on purpose, that is a hang-up.
    fn hung_up(&mut self, viewer: &mut Viewer) {
        viewer.socket = None;
        viewer.outgoing.clear();
        if !viewer.left {
            self.stdin = None;
            if self.terminal.take().is_some() {
                self.stdout = None;
            }
        }
    }

    fn feed(&mut self, viewer: &mut Viewer) {
        if let Some(stdin) = &self.stdin {
            match write(stdin, &viewer.incoming) {
                _ if viewer.incoming.is_empty() => {}
                Ok(count) => drop(viewer.incoming.drain(..count)),
                Err(Errno::AGAIN | Errno::INTR) => {}
                Err(_) => {
                    viewer.incoming.clear();
                    viewer.ends = true;
                }
            }
        }
        // A terminal's input ends by what is typed.
        if viewer.ends && viewer.incoming.is_empty() && self.terminal.is_none() {
            self.stdin = None;
        }
    }

    fn collect(&mut self, viewer: &mut Viewer) {
        while viewer.outgoing.len() < AHEAD {
            let out = take(&mut self.stdout).map(Output::Stdout);
            let err = take(&mut self.stderr).map(Output::Stderr);
            if out.is_none() && err.is_none() {
                return;
            }
            if viewer.socket.is_some() {
                for frame in [out, err].into_iter().flatten() {
                    viewer.outgoing.extend(frame.encode());
                }
            }
        }
    }

    /// It has ended: what it still said goes before how it ended.
    fn finish(mut self, viewer: &mut Viewer, code: i32, killed: bool) {
        let pid = self.pid.as_raw_nonzero().get();
        let moved = killed
            .then(|| ended::migration_of(&self.plan.ended, pid))
            .flatten();
        let last = moved.map_or(Output::Exit(code), Output::Moved);
        loop {
            let before = viewer.outgoing.len();
            self.collect(viewer);
            let more = viewer.outgoing.len() > before;
            let Some(socket) = &viewer.socket else { return };
            if !more {
                viewer.outgoing.extend(last.encode());
            }
            let sent = socket
                .set_nonblocking(false)
                .and_then(|()| io::Write::write_all(&mut &*socket, &viewer.outgoing));
            viewer.outgoing.clear();
            if !more || sent.is_err() {
                return;
            }
        }
    }
}

/// What can be read at once; at its end the stream is closed.
fn take(stream: &mut Option<OwnedFd>) -> Option<Vec<u8>> {
    let mut buffer = [0; PIECE];
    let fd: BorrowedFd<'_> = stream.as_ref()?.as_fd();
    match read(fd, &mut buffer) {
        Ok(0) => *stream = None,
        Ok(count) => return Some(buffer[..count].to_vec()),
        Err(Errno::AGAIN | Errno::INTR) => {}
        // A terminal that nobody has open any more.
        Err(_) => *stream = None,
    }
    None
}

impl Viewer {
    /// Takes what came; whether the other side is gone.
    fn receive(&mut self, program: &Program) -> bool {
        let Some(socket) = &self.socket else {
            return false;
        };
        if !self.incoming.is_empty() {
            return false;
        }
        let mut buffer = [0; PIECE];
        let gone = match read(socket, &mut buffer) {
            Ok(0) => true,
            Ok(count) => {
                self.decoder.push(&buffer[..count]);
                false
            }
            Err(Errno::AGAIN | Errno::INTR) => false,
            Err(_) => true,
        };
        loop {
            match self.decoder.take::<Input>() {
                Ok(Some(input)) => program.apply(input, self),
                Ok(None) => return gone,
                // Not ours.
                Err(_) => return true,
            }
        }
    }

    fn send(&mut self) {
        let Some(socket) = &self.socket else { return };
        while !self.outgoing.is_empty() {
            match rustix::net::send(socket, &self.outgoing, rustix::net::SendFlags::NOSIGNAL) {
                Ok(count) => drop(self.outgoing.drain(..count)),
                Err(Errno::INTR) => {}
                Err(Errno::AGAIN) => return,
                // It is noticed by the next read.
                Err(_) => {
                    self.outgoing.clear();
                    return;
                }
            }
        }
    }
}
