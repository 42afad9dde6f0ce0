//! Counts on its output, one number a line, and in a file: a move must lose or repeat none.

use std::{
    fs::File, io::Write, os::unix::fs::FileExt, process::ExitCode, sync::atomic::Ordering, thread,
    time::Duration,
};

use anyhow::{Result, ensure};

use super::term;

pub fn run(pause: Duration) -> Result<ExitCode> {
    let stop = term::flag()?;
    let file = File::options()
        .read(true)
        .write(true)
        .create_new(true)
        .open("/data/count")?;
    let mut out = std::io::stdout().lock();
    for number in 0u64.. {
        if number > 0 {
            let mut bytes = [0; 8];
            file.read_exact_at(&mut bytes, 0)?;
            ensure!(
                u64::from_le_bytes(bytes) == number - 1,
                "the file lost a write at {number}"
            );
        }
        file.write_all_at(&number.to_le_bytes(), 0)?;
        writeln!(out, "{number}")?;
        out.flush()?;
        if stop.load(Ordering::SeqCst) {
            break;
        }
        thread::sleep(pause);
    }
    Ok(ExitCode::SUCCESS)
}
