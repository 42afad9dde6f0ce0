//! Waits for SIGTERM and ends with a given code.

use std::{process::ExitCode, sync::atomic::Ordering, thread, time::Duration};

use anyhow::Result;

use super::term;

pub fn run(code: u8) -> Result<ExitCode> {
    let stop = term::flag()?;
    println!("ready");
    while !stop.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(5));
    }
    Ok(ExitCode::from(code))
}
