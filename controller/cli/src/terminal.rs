//! The terminal in front of the user: made raw while a container has it, and what is typed.

use std::{
    io::{self, IsTerminal, Read},
    thread,
};

use godwit_types::TerminalSize;
use rustix::termios::{OptionalActions, Termios, tcgetattr, tcsetattr};
use terminal_size::{Height, Width, terminal_size_of};
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    sync::mpsc,
};

/// Every key goes to the container. Dropped, the terminal is as it was.
pub struct Raw {
    before: Termios,
}

impl Raw {
    /// None: standard input is no terminal.
    pub fn begin() -> io::Result<Option<Self>> {
        if !is_terminal() {
            return Ok(None);
        }
        let before = tcgetattr(io::stdin())?;
        let mut raw = before.clone();
        raw.make_raw();
        tcsetattr(io::stdin(), OptionalActions::Now, &raw)?;
        Ok(Some(Self { before }))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        // An error: the terminal is gone.
        let _ = tcsetattr(io::stdin(), OptionalActions::Drain, &self.before);
    }
}

/// Whether standard input is one.
pub fn is_terminal() -> bool {
    io::stdin().is_terminal()
}

/// Of the terminal, if there is one.
pub fn size() -> Option<TerminalSize> {
    let (Width(columns), Height(rows)) = terminal_size_of(io::stdin())?;
    Some(TerminalSize { rows, columns })
}

/// Says when the size has changed.
pub fn resized() -> io::Result<Signal> {
    signal(SignalKind::window_change())
}

/// What comes on standard input; its end is the channel's. Read by a thread of its own, which
/// nobody waits for at the end.
pub fn typed() -> mpsc::Receiver<Vec<u8>> {
    let (sender, receiver) = mpsc::channel(4);
    thread::spawn(move || {
        let mut buffer = vec![0; 32 << 10];
        let mut stdin = io::stdin().lock();
        loop {
            match stdin.read(&mut buffer) {
                Ok(0) => return,
                Ok(count) => {
                    if sender.blocking_send(buffer[..count].to_vec()).is_err() {
                        return;
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => return,
            }
        }
    });
    receiver
}
