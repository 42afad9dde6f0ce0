//! The command line in a terminal, as a person has it: what they type, and what they see.

mod sys;

use std::{
    fs::File,
    io::{Read, Write},
    os::fd::AsFd,
    process::{Child, Command, ExitStatus, Stdio},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use anyhow::{Context, Result, bail};
use nix::pty::{Winsize, openpty};

use crate::testbed::{Cluster, PATIENCE, wait_for};

/// Between two times that the same is typed.
const BETWEEN: Duration = Duration::from_millis(300);

/// A program in a pseudo-terminal of its own, which controls it.
pub struct Terminal {
    child: Child,
    master: File,
    seen: Arc<Mutex<String>>,
    /// How much of `seen` was looked at.
    looked: usize,
}

impl Terminal {
    /// `godwit ARGUMENTS` in a terminal of 24 rows and 80 columns.
    pub fn start(cluster: &Cluster, arguments: &[&str]) -> Result<Self> {
        let size = Winsize {
            ws_row: 24,
            ws_col: 80,
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        let pair = openpty(Some(&size), None)?;
        let godwit = cluster.godwit(arguments);
        // It makes the terminal the one that controls the program.
        let mut command = Command::new("setsid");
        command
            .args(["--ctty", "--wait"])
            .arg(godwit.get_program())
            .args(godwit.get_args());
        let slave = || -> Result<Stdio> { Ok(Stdio::from(pair.slave.try_clone()?)) };
        command.stdin(slave()?).stdout(slave()?).stderr(slave()?);
        let child = command.spawn().context("setsid")?;
        drop(command);
        drop(pair.slave);
        let master = File::from(pair.master);
        let seen = Arc::new(Mutex::new(String::new()));
        let (mut reader, into) = (master.try_clone()?, seen.clone());
        thread::spawn(move || {
            let mut buffer = [0; 4096];
            // An error: nobody has the other end any more.
            while let Ok(count @ 1..) = reader.read(&mut buffer) {
                let text = String::from_utf8_lossy(&buffer[..count]);
                into.lock().expect("no reader panics").push_str(&text);
            }
        });
        Ok(Self {
            child,
            master,
            seen,
            looked: 0,
        })
    }

    pub fn type_in(&mut self, text: &str) -> Result<()> {
        Ok(self.master.write_all(text.as_bytes())?)
    }

    /// Waits until this is seen after what was looked at before. Answers all up to its end.
    pub fn see(&mut self, text: &str) -> Result<String> {
        let mut found = None;
        let waited = wait_for(text, PATIENCE, || {
            let seen = self.seen.lock().expect("no reader panics");
            found = seen[self.looked..].find(text).map(|at| at + text.len());
            found.is_some()
        });
        let seen = self.all();
        let rest = &seen[self.looked..];
        waited.with_context(|| format!("the terminal shows {rest:?}"))?;
        let end = self.looked + found.context("nothing was seen")?;
        let part = seen[self.looked..end].to_owned();
        self.looked = end;
        Ok(part)
    }

    /// Types this again and again until that is seen anywhere.
    pub fn type_until(&mut self, text: &str, seen: &str) -> Result<()> {
        let mut typed = Ok(());
        wait_for(seen, PATIENCE, || {
            typed = self.type_in(text);
            std::thread::sleep(BETWEEN);
            typed.is_err() || self.all().contains(seen)
        })
        .with_context(|| format!("the terminal shows {:?}", self.all()))?;
        typed
    }

    /// Everything that was shown.
    pub fn all(&self) -> String {
        self.seen.lock().expect("no reader panics").clone()
    }

    pub fn resize(&self, rows: u16, columns: u16) -> Result<()> {
        Ok(sys::set_size(self.master.as_fd(), rows, columns)?)
    }

    /// Waits until the program has ended.
    pub fn end(mut self) -> Result<ExitStatus> {
        let mut status = None;
        wait_for("the end of the program", PATIENCE, || {
            status = self.child.try_wait().ok().flatten();
            status.is_some()
        })
        .with_context(|| format!("the terminal shows {:?}", self.all()))?;
        match status {
            Some(status) => Ok(status),
            None => bail!("it goes on"),
        }
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
