//! A child that runs the program anew, which replaces all of its memory, and does so again.

use std::{os::unix::process::CommandExt, process::Command, thread, time::Duration};

use anyhow::{Result, bail};

use super::area::Area;
use crate::workload::{page::Dice, sys};

/// Answers the child's pid.
///
/// Forked, and not spawned: what the standard library spawns shares its parent's memory until it
/// runs the new program, which CRIU can't dump.
pub fn start(seed: u64) -> Result<i32> {
    if let Some(pid) = sys::fork()? {
        return Ok(pid);
    }
    let error = become_anew(seed, 2);
    sys::say(&format!("bad exec: {error:#}"));
    sys::exit(1)
}

fn become_anew(seed: u64, left: u32) -> anyhow::Error {
    let program = match std::env::current_exe() {
        Ok(program) => program,
        Err(error) => return error.into(),
    };
    let arguments = [
        "churn".into(),
        format!("--seed={seed}"),
        format!("--again={left}"),
    ];
    Command::new(program).args(arguments).exec().into()
}

/// The program that runs then.
pub fn run(seed: u64, left: u32) -> Result<()> {
    let mut dice = Dice::new(seed);
    let mut area = Area::anonymous(100)?;
    for _ in 0..20 {
        for _ in 0..10 {
            let seed = dice.roll();
            area.write(dice.below(area.pages()), seed)?;
        }
        area.resize(50 + dice.below(100))?;
        area.verify()?;
        thread::sleep(Duration::from_millis(5));
    }
    if left > 0 {
        bail!(become_anew(dice.roll(), left - 1));
    }
    Ok(())
}
