//! A child with a copy of its parent's memory: what the parent writes must not reach it, nor the
//! other way round.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::Result;

use super::area::Area;
use crate::workload::{page::Dice, sys};

/// Answers the child's pid.
pub fn start(areas: &mut [Area], seed: u64, life: Duration) -> Result<i32> {
    if let Some(pid) = sys::fork()? {
        return Ok(pid);
    }
    let done = live(areas, seed, life);
    if let Err(error) = &done {
        sys::say(&format!("bad copy: {error:#}"));
    }
    sys::exit(i32::from(done.is_err()))
}

fn live(areas: &mut [Area], seed: u64, life: Duration) -> Result<()> {
    let mut dice = Dice::new(seed);
    let end = Instant::now() + life;
    while Instant::now() < end && !areas.is_empty() {
        for _ in 0..20 {
            let (index, seed) = (dice.below(areas.len()), dice.roll());
            let area = &mut areas[index];
            match dice.below(10) {
                0..7 => area.write(dice.below(area.pages()), seed)?,
                7 => area.discard(&mut dice)?,
                _ => area.verify()?,
            }
        }
        thread::sleep(Duration::from_millis(2));
    }
    areas.iter().try_for_each(Area::verify)
}
