//! One thread: its memory, its children, and what it does next.

use std::{
    fs::{self, File},
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use super::{
    again,
    area::{self, Area},
    copy,
    partner::Partner,
};
use crate::workload::page::{self, Dice, SIZE};

const AREAS: usize = 10;
const PAGES: usize = 200;
const FILE_PAGES: usize = 64;
const CHILDREN: usize = 3;

pub struct Worker {
    dice: Dice,
    areas: Vec<Area>,
    file: PathBuf,
    children: Vec<i32>,
    partner: Option<Partner>,
}

impl Worker {
    pub fn new(number: usize, seed: u64, dir: &Path) -> Result<Self> {
        let path = dir.join(format!("churn-{}-{number}", std::process::id()));
        let mut content = vec![0; FILE_PAGES * SIZE];
        for (page, index) in content.chunks_exact_mut(SIZE).zip(0..) {
            page::fill(page, area::file_seed(index));
        }
        fs::write(&path, content).with_context(|| path.display().to_string())?;
        Ok(Self {
            dice: Dice::new(page::seed(&[seed, number as u64])),
            areas: vec![Area::file(&File::open(&path)?, FILE_PAGES)?],
            file: path,
            children: Vec::new(),
            partner: None,
        })
    }

    /// One operation.
    pub fn step(&mut self) -> Result<()> {
        if self.areas.is_empty() {
            return self.map();
        }
        let index = self.dice.below(self.areas.len());
        let seed = self.dice.roll();
        let area = &mut self.areas[index];
        match self.dice.below(400) {
            0..200 => area.write(self.dice.below(area.pages()), seed),
            200..260 => area.verify(),
            260..280 => self.map(),
            280..290 => {
                let area = self.areas.swap_remove(index);
                area.verify()
            }
            290..300 if area.pages() > 1 => area.cut_front(1 + self.dice.below(area.pages() - 1)),
            300..320 if !area.is_file() => area.resize(1 + self.dice.below(PAGES)),
            320..335 if !area.is_file() => area.relocate(),
            335..355 => area.discard(&mut self.dice),
            355..370 => area.protect(false),
            370..385 => self.turn(),
            385..396 => self.reap(false),
            396..398 => self.copy(),
            398 => self.again(),
            _ => Ok(()),
        }
    }

    fn map(&mut self) -> Result<()> {
        if self.areas.len() >= AREAS {
            return Ok(());
        }
        let area = if self.dice.below(4) == 0 {
            Area::file(&File::open(&self.file)?, FILE_PAGES)?
        } else {
            Area::anonymous(1 + self.dice.below(PAGES))?
        };
        self.areas.push(area);
        Ok(())
    }

    /// A step with the child that shares memory, or a new one.
    fn turn(&mut self) -> Result<()> {
        match &mut self.partner {
            Some(partner) => partner.turn().context("memory shared with a child"),
            None => {
                self.partner = Some(Partner::start(self.dice.roll())?);
                Ok(())
            }
        }
    }

    /// A child with a copy of this thread's memory.
    fn copy(&mut self) -> Result<()> {
        if self.children.len() < CHILDREN {
            let life = Duration::from_millis(self.dice.below(1500) as u64);
            let seed = self.dice.roll();
            self.children
                .push(copy::start(&mut self.areas, seed, life)?);
        }
        Ok(())
    }

    /// A child that runs the program anew.
    fn again(&mut self) -> Result<()> {
        if self.children.len() < CHILDREN {
            self.children.push(again::start(self.dice.roll())?);
        }
        Ok(())
    }

    /// Asks how those children ended that did.
    fn reap(&mut self, wait: bool) -> Result<()> {
        let flags = if wait {
            WaitPidFlag::empty()
        } else {
            WaitPidFlag::WNOHANG
        };
        let mut living = Vec::new();
        for pid in std::mem::take(&mut self.children) {
            match waitpid(Pid::from_raw(pid), Some(flags))? {
                WaitStatus::StillAlive => living.push(pid),
                ended => ensure!(
                    matches!(ended, WaitStatus::Exited(_, 0)),
                    "a child ended as {ended:?}"
                ),
            }
        }
        self.children = living;
        // A partner lives long, and not for ever.
        if let Some(partner) = self.partner.take_if(|partner| partner.is_old()) {
            partner.end()?;
        }
        Ok(())
    }

    /// Checks everything and waits for every child.
    pub fn finish(mut self) -> Result<()> {
        self.areas.iter().try_for_each(Area::verify)?;
        self.reap(true)?;
        if let Some(partner) = self.partner.take() {
            partner.end()?;
        }
        self.areas.iter().try_for_each(Area::verify)?;
        fs::remove_file(&self.file)?;
        Ok(())
    }
}
