//! `godwit logs`.

use std::{
    io,
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::anyhow;
use godwit_cli::{client::Cluster, exit_code::INTERRUPTED, logs::Logs, moment};
use godwit_proto::control::{LogChunk, LogsRequest, log_chunk::Source};

use crate::{options::Global, output};

/// Print what a container wrote to its standard output and standard error
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Go on until the container ends, wherever it moves
    #[arg(short, long)]
    follow: bool,
    /// Only so many of the last lines [default: all]
    #[arg(short = 'n', long, value_name = "NUMBER", alias = "lines")]
    tail: Option<String>,
    /// Only what was written since then: a time, seconds since 1970, or how long ago, as in 10m
    #[arg(long, value_name = "MOMENT")]
    since: Option<String>,
    /// Only what was written until then
    #[arg(long, value_name = "MOMENT")]
    until: Option<String>,
    /// Begin each line with its time
    #[arg(short, long)]
    timestamps: bool,
    /// Name, id, or the beginning of an id
    container: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let request = request(args)?;
    let mut cluster = global.cluster()?;
    let mut logs = Logs::of(request);
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
        passed = pass_on(&mut logs, &mut cluster) => passed.map(|()| 0),
    }
}

fn request(args: Args) -> anyhow::Result<LogsRequest> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH)?.as_nanos() as u64;
    let moment = |text: Option<String>| match text {
        Some(text) => moment::parse(&text, now),
        None => Ok(0),
    };
    let tail = match args.tail.as_deref() {
        None | Some("all") => None,
        Some(text) => Some(text.parse().map_err(|_| {
            anyhow!(
                "`--tail {}` is neither a number nor `all`",
                text.escape_debug()
            )
        })?),
    };
    Ok(LogsRequest {
        container: args.container,
        follow: args.follow,
        from: 0,
        tail,
        since_ns: moment(args.since)?,
        until_ns: moment(args.until)?,
        timestamps: args.timestamps,
    })
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
