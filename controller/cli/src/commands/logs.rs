//! `godwit logs`.

use std::io;

use godwit_cli::{client::Cluster, exit_code::INTERRUPTED, logs::Logs};
use godwit_proto::control::{LogChunk, log_chunk::Source};

use crate::{options::Global, output};

/// Print what a container wrote to its standard output and standard error
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on until the container ends, wherever it moves
    #[arg(short, long)]
    follow: bool,
    /// Name, id, or the beginning of an id
    container: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut logs = Logs::new(args.container, args.follow);
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
        passed = pass_on(&mut logs, &mut cluster) => passed.map(|()| 0),
    }
}

/// Passes the log on to its end, each part to where the container wrote it.
pub async fn pass_on(logs: &mut Logs, cluster: &mut Cluster) -> anyhow::Result<()> {
    while let Some(chunk) = logs.next(cluster).await? {
        print(&chunk)?;
    }
    Ok(())
}

fn print(chunk: &LogChunk) -> anyhow::Result<()> {
    match chunk.source() {
        Source::Stdout => output::bytes(&mut io::stdout().lock(), &chunk.data),
        Source::Stderr => output::bytes(&mut io::stderr().lock(), &chunk.data),
    }
}
