//! `godwit manual`: for who makes packages.

use std::{fs, path::PathBuf};

use anyhow::Context;
use clap::CommandFactory;

use crate::options::Options;

/// Write a manual page for every command
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to
    dir: PathBuf,
}

pub fn run(args: Args) -> anyhow::Result<u8> {
    let dir = &args.dir;
    fs::create_dir_all(dir)
        .and_then(|()| clap_mangen::generate_to(Options::command(), dir))
        .with_context(|| format!("can't write to `{}`", dir.display()))?;
    Ok(0)
}
