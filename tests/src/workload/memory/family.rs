//! The processes of one `memory`: a tree that grows from the first, which asks the others over a
//! socket each.

use std::{
    io::{self, BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};

use super::region::Region;
use crate::workload::sys;

/// The first process's view of all of them.
#[derive(Clone)]
pub struct Family {
    first: Arc<Vec<Region>>,
    others: Arc<Vec<Mutex<BufReader<UnixStream>>>>,
}

impl Family {
    /// Returns in the first process alone, when every page of every process is filled: those that
    /// all have from before the first fork, and those of its own.
    pub fn start(
        processes: usize,
        shared: usize,
        pages: usize,
        words: u64,
        rate: u64,
    ) -> Result<Self> {
        let mut before = Vec::new();
        if shared > 0 {
            before.push(Region::fill(processes, shared, words)?);
        }
        let pairs: io::Result<Vec<_>> = (1..processes).map(|_| UnixStream::pair()).collect();
        let (ours, theirs): (Vec<_>, Vec<_>) = pairs?.into_iter().unzip();
        let me = spread(processes)?;
        let start = || -> Result<Vec<Region>> {
            let mut regions = before;
            for region in &regions {
                region.belongs_to(me);
            }
            regions.push(Region::fill(me, pages, words)?);
            Ok(regions)
        };
        if let Some(first) = me.checked_sub(1).and_then(|at| theirs.into_iter().nth(at)) {
            drop(ours);
            let done = start().and_then(|regions| member(&regions, rate, first));
            sys::exit(i32::from(done.is_err()));
        }
        let regions = start()?;
        let others = ours.into_iter().map(BufReader::new).map(Mutex::new);
        let family = Self {
            first: Arc::new(regions),
            others: Arc::new(others.collect()),
        };
        // Each answers only once it has filled its memory.
        family.ask_all("go")?;
        rewrite(&family.first, rate);
        Ok(family)
    }

    /// Asks every process; their answers in order.
    pub fn ask_all(&self, what: &str) -> Result<Vec<String>> {
        let others: Vec<_> = self
            .others
            .iter()
            .map(|other| other.lock().unwrap_or_else(PoisonError::into_inner))
            .collect();
        let mut answers = Vec::new();
        // All work at once.
        for other in &others {
            writeln!(other.get_ref(), "{what}").context("a process is gone")?;
        }
        answers.push(answer(&self.first, what));
        for mut other in others {
            let mut line = String::new();
            other.read_line(&mut line)?;
            anyhow::ensure!(!line.is_empty(), "a process is gone");
            answers.push(line.trim().to_owned());
        }
        Ok(answers)
    }

    /// `ok PAGES` or `bad PROCESS PAGE`
    pub fn verify(&self) -> Result<String> {
        let mut sum = 0;
        for (said, process) in self.ask_all("verify")?.iter().zip(0..) {
            match said
                .strip_prefix("ok ")
                .and_then(|n| n.parse::<usize>().ok())
            {
                Some(pages) => sum += pages,
                None => {
                    let page = said.strip_prefix("bad ").unwrap_or(said);
                    return Ok(format!("bad {process} {page}"));
                }
            }
        }
        Ok(format!("ok {sum}"))
    }
}

/// Forks the others, each process the two after twice its number. Answers which this one is.
fn spread(processes: usize) -> io::Result<usize> {
    let mut me = 0;
    'this: loop {
        for child in [2 * me + 1, 2 * me + 2] {
            if child < processes && sys::fork()?.is_none() {
                me = child;
                continue 'this;
            }
        }
        return Ok(me);
    }
}

/// All of them together at this rate.
fn rewrite(regions: &[Region], rate: u64) {
    for region in regions {
        region.rewrite(rate / regions.len() as u64);
    }
}

/// One of the other processes: until the first one is gone.
fn member(regions: &[Region], rate: u64, mut first: UnixStream) -> Result<()> {
    rewrite(regions, rate);
    for line in BufReader::new(first.try_clone()?).lines() {
        writeln!(first, "{}", answer(regions, &line?))?;
    }
    Ok(())
}

fn answer(regions: &[Region], what: &str) -> String {
    let pause = |paused| regions.iter().for_each(|region| region.pause(paused));
    match what {
        "pause" => {
            pause(true);
            "paused".into()
        }
        "go" => {
            pause(false);
            "going".into()
        }
        "verify" => {
            let mut pages = 0;
            for region in regions {
                match region.verify() {
                    Ok(count) => pages += count,
                    Err(page) => return format!("bad {}", pages + page),
                }
            }
            format!("ok {pages}")
        }
        "hash" => {
            let hashes = regions.iter().map(Region::hash);
            format!(
                "{:016x}",
                hashes.fold(0, |all: u64, one| all.rotate_left(7) ^ one)
            )
        }
        _ => "unknown".into(),
    }
}
