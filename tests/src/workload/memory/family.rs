//! The processes of one `memory`: the first forks the others and asks them over a socket each.

use std::{
    io::{BufRead, BufReader, Write},
    os::unix::net::UnixStream,
    sync::{Arc, Mutex, PoisonError},
};

use anyhow::{Context, Result};

use super::region::Region;
use crate::workload::sys;

/// The first process's view of all of them.
#[derive(Clone)]
pub struct Family {
    first: Region,
    others: Arc<Vec<Mutex<BufReader<UnixStream>>>>,
}

impl Family {
    /// Returns in the first process alone, when every page of every process is filled.
    pub fn start(processes: usize, pages: usize, rate: u64) -> Result<Self> {
        let mut others = Vec::new();
        for process in 1..processes {
            let (ours, theirs) = UnixStream::pair()?;
            if sys::fork()?.is_none() {
                drop((ours, others));
                sys::exit(i32::from(member(process, pages, rate, theirs).is_err()));
            }
            others.push(Mutex::new(BufReader::new(ours)));
        }
        let first = Region::fill(0, pages)?;
        let family = Self {
            first: first.clone(),
            others: Arc::new(others),
        };
        // Each answers only once it has filled its memory.
        family.ask_all("go")?;
        first.rewrite(rate);
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

/// One of the other processes: until the first one is gone.
fn member(process: usize, pages: usize, rate: u64, mut first: UnixStream) -> Result<()> {
    let region = Region::fill(process, pages)?;
    region.rewrite(rate);
    for line in BufReader::new(first.try_clone()?).lines() {
        writeln!(first, "{}", answer(&region, &line?))?;
    }
    Ok(())
}

fn answer(region: &Region, what: &str) -> String {
    match what {
        "pause" => {
            region.pause(true);
            "paused".into()
        }
        "go" => {
            region.pause(false);
            "going".into()
        }
        "verify" => match region.verify() {
            Ok(pages) => format!("ok {pages}"),
            Err(page) => format!("bad {page}"),
        },
        "hash" => format!("{:016x}", region.hash()),
        _ => "unknown".into(),
    }
}
