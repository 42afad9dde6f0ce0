//! `godwit-agent`: reads its settings, builds the agent, runs it until it is told to end.

mod args;
mod check;
mod settings;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use args::{Args, Command, Wishes};
use clap::Parser;
use godwit_agent::{Agent, Config, Reload};
use godwit_daemon::{
    health,
    local::Local,
    log::Log,
    signals::{self, Signals},
};
use tracing::{error, info, warn};

/// The agent waits far more than it works; the bulk of a transfer is on threads of its own.
const WORKERS: usize = 2;
/// Readers, writers, and the disk; more than these wait.
const BLOCKING: usize = 64;

fn main() -> ExitCode {
    let args = Args::parse();
    godwit_proto::tls::install_crypto();
    let log = Log::start();
    let done = match &args.command {
        Some(Command::Check) => check::run(&args),
        Some(Command::Manual) => Args::manual(),
        None => run(&args, &log),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args, log: &Log) -> anyhow::Result<()> {
    let wishes = args.wishes()?;
    log.set(wishes.log_level.as_deref())
        .context("log level can't be used")?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .max_blocking_threads(BLOCKING)
        .enable_all()
        .build()
        .context("can't start threads")?;
    let result = runtime.block_on(serve(args, log, wishes));
    // A thread that still loads an image or reads a file must not hold up the end.
    runtime.shutdown_timeout(Duration::from_millis(200));
    result
}

async fn serve(args: &Args, log: &Log, wishes: Wishes) -> anyhow::Result<()> {
    let mut signals = Signals::catch().context("can't await signals")?;
    let config = wishes.agent.clone();
    let agent = tokio::select! {
        agent = Agent::start(wishes.agent) => agent?,
        () = signals.ended(|| ()) => return Ok(()),
    };
    if let Some(address) = wishes.metrics {
        let listener = health::listen(address)
            .await
            .with_context(|| format!("can't serve metrics on {address}"))?;
        let source = Arc::new(agent.health());
        tokio::spawn(health::serve(listener, source));
        info!(%address, "health and metrics are served");
    }
    if let Some(options) = &wishes.local {
        let local = Local::open(options)?;
        info!(socket = %options.socket.display(), "local socket is served");
        tokio::spawn(local.serve());
    }
    let reload = agent.reload();
    signals::ready("runs containers");
    let told = signals.ended(|| match read_again(args, log, &config, &reload) {
        Ok(()) => info!("settings were read again"),
        Err(error) => warn!("settings stay as they are: {error:#}"),
    });
    agent.run(told).await?;
    Ok(())
}

/// Takes over what can change while the agent runs, and says what can't.
fn read_again(args: &Args, log: &Log, before: &Config, reload: &Reload) -> anyhow::Result<()> {
    let wishes = args.wishes()?;
    log.set(wishes.log_level.as_deref())
        .context("log level can't be used")?;
    reload.set(&wishes.live);
    for key in before.differs(&wishes.agent) {
        warn!(
            key,
            "setting changed: it holds from the agent's next start on"
        );
    }
    Ok(())
}
