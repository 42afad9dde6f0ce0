//! `godwit-agent`: reads its arguments, builds the agent, runs it until it is told to end.

mod args;

use std::{
    io::{IsTerminal, stderr},
    process::ExitCode,
    time::Duration,
};

use anyhow::Context;
use clap::Parser;
use godwit_agent::Agent;
use tokio::signal::unix::{SignalKind, signal};
use tracing_subscriber::EnvFilter;

/// The agent waits far more than it works; the bulk of a transfer is on threads of its own.
const WORKERS: usize = 2;
/// Readers, writers, and the disk; more than these wait.
const BLOCKING: usize = 64;

fn main() -> ExitCode {
    let args = args::Args::parse();
    godwit_proto::tls::install_crypto();
    let filter = EnvFilter::try_from_env("GODWIT_LOG").unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(stderr)
        .with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none())
        .init();
    match run(args) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: args::Args) -> anyhow::Result<()> {
    let config = args.config().context("arguments can't be used")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .context("can't start threads")?;
    let result = runtime.block_on(async {
        let mut terminate = signal(SignalKind::terminate()).context("can't await signals")?;
        let mut interrupt = signal(SignalKind::interrupt()).context("can't await signals")?;
        let told = async move {
            tokio::select! {
                _ = terminate.recv() => {}
                _ = interrupt.recv() => {}
            }
        };
        let mut told = std::pin::pin!(told);
        let agent = tokio::select! {
            agent = Agent::start(config) => agent?,
            () = &mut told => return Ok(()),
        };
        agent.run(told).await?;
        Ok(())
    });
    // A thread that still loads an image or reads a file must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}
