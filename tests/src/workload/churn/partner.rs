//! A child that shares memory with its parent: they write it in turns, and each checks what the
//! other wrote.

use std::{
    sync::atomic::Ordering::SeqCst,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::wait::{WaitStatus, waitpid},
    unistd::{Pid, getppid},
};

use crate::workload::{
    page,
    sys::{self, Backing, Mapping},
};

/// Page 0 holds whose turn it is: the parent's when even. The others hold what was written in it.
const PAGES: usize = 16;
const END: u64 = u64::MAX;
const LIFE: Duration = Duration::from_secs(4);

pub struct Partner {
    shared: Mapping,
    seed: u64,
    pid: i32,
    since: Instant,
}

impl Partner {
    pub fn start(seed: u64) -> Result<Self> {
        let mut shared = Mapping::new(PAGES, Backing::Shared).context("mmap")?;
        let parent = Pid::this();
        let Some(pid) = sys::fork()? else {
            let done = live(&mut shared, seed, parent);
            if let Err(error) = &done {
                sys::say(&format!("bad partner: {error:#}"));
            }
            sys::exit(i32::from(done.is_err()));
        };
        Ok(Self {
            shared,
            seed,
            pid,
            since: Instant::now(),
        })
    }

    /// Checks and writes, if it is the parent's turn.
    pub fn turn(&mut self) -> Result<()> {
        let turn = self.shared.word(0).load(SeqCst);
        if turn.is_multiple_of(2) {
            exchange(&mut self.shared, self.seed, turn)?;
        }
        Ok(())
    }

    pub fn is_old(&self) -> bool {
        self.since.elapsed() > LIFE
    }

    /// Waits for its end.
    pub fn end(self) -> Result<()> {
        let pid = Pid::from_raw(self.pid);
        loop {
            let turn = self.shared.word(0).load(SeqCst);
            if turn.is_multiple_of(2) {
                check(&self.shared, self.seed, turn)?;
                self.shared.word(0).store(END, SeqCst);
                break;
            }
            if let Ok(ended @ (WaitStatus::Exited(..) | WaitStatus::Signaled(..))) =
                waitpid(pid, Some(nix::sys::wait::WaitPidFlag::WNOHANG))
            {
                bail!("it ended by itself as {ended:?}");
            }
            thread::sleep(Duration::from_millis(1));
        }
        let ended = waitpid(pid, None)?;
        ensure!(
            matches!(ended, WaitStatus::Exited(_, 0)),
            "it ended as {ended:?}"
        );
        // Written by the child after its parent had let go.
        check(&self.shared, self.seed, END - 1).context("after its end")?;
        Ok(())
    }
}

fn live(shared: &mut Mapping, seed: u64, parent: Pid) -> Result<()> {
    loop {
        match shared.word(0).load(SeqCst) {
            END => {
                fill(shared, seed, END - 1);
                return Ok(());
            }
            turn if turn % 2 == 1 => exchange(shared, seed, turn)?,
            _ => {
                if getppid() != parent {
                    return Ok(());
                }
                thread::sleep(Duration::from_millis(1));
            }
        }
    }
}

fn exchange(shared: &mut Mapping, seed: u64, turn: u64) -> Result<()> {
    check(shared, seed, turn)?;
    fill(shared, seed, turn + 1);
    shared.word(0).store(turn + 1, SeqCst);
    Ok(())
}

fn check(shared: &Mapping, seed: u64, turn: u64) -> Result<()> {
    for page in 1..PAGES {
        let bytes = shared.page(page);
        let wrong = match turn {
            0 => page::nonzero_word(bytes),
            _ => page::wrong_word(bytes, page::seed(&[seed, turn, page as u64])),
        };
        if let Some(word) = wrong {
            bail!("shared page {page}, turn {turn}: word {word} is wrong");
        }
    }
    Ok(())
}

fn fill(shared: &mut Mapping, seed: u64, turn: u64) {
    for page in 1..PAGES {
        page::fill(
            shared.page_mut(page),
            page::seed(&[seed, turn, page as u64]),
        );
    }
}
