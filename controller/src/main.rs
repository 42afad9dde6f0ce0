//! `godwit-controller`: one member of the cluster's Raft group.

use std::{io::IsTerminal, path::PathBuf};

use anyhow::Context;
use clap::Parser;
use godwit_controller::Controller;
use godwit_proto::{
    config::{self, MemberConfig},
    tls::{self, Credentials},
};
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// A member of Godwit's Raft group: it knows hosts, containers and networks, and, when it
/// leads, decides.
///
/// Who it is stands in its certificate. Logs go to stderr; GODWIT_LOG says how much (default
/// `info`).
#[derive(Parser)]
#[command(version)]
struct Args {
    /// The directory that `godwit cluster init` wrote for this member
    #[arg(long, value_name = "DIR")]
    config: PathBuf,
    /// Where its log and state are kept
    #[arg(long, value_name = "DIR")]
    data: PathBuf,
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let filter = EnvFilter::try_from_env("GODWIT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    tls::install_crypto();
    let member: MemberConfig = config::load(&args.config)?;
    let credentials = Credentials::load(&args.config)?;
    let mut terminate = signal(SignalKind::terminate()).context("can't handle signals")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("can't handle signals")?;
    let controller = Controller::start(&member, &credentials, &args.data).await?;
    tokio::select! {
        _ = terminate.recv() => {}
        _ = interrupt.recv() => {}
        reason = controller.failed() => {
            anyhow::bail!("member `{}` can't take part any more: {reason}", controller.name())
        }
    }
    controller.shutdown().await;
    Ok(())
}
