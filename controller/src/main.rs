//! `godwit-controller`: one member of the cluster's Raft group.

mod args;
mod settings;

use std::{process::ExitCode, sync::Arc};

use anyhow::{Context, bail};
use args::{Args, Command, Wishes};
use clap::Parser;
use godwit_controller::Controller;
use godwit_daemon::{
    health,
    local::Local,
    log::Log,
    signals::{self, Signals},
};
use godwit_proto::{
    config::{self, MemberConfig},
    tls::{self, Credentials, Role},
};
use tracing::{error, info, warn};

#[tokio::main]
async fn main() -> ExitCode {
    let args = Args::parse();
    tls::install_crypto();
    let log = Log::start();
    let done = match &args.command {
        Some(Command::Check) => check(&args),
        Some(Command::Manual) => Args::manual(),
        None => run(&args, &log).await,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run(args: &Args, log: &Log) -> anyhow::Result<()> {
    let wishes = args.wishes()?;
    log.set(wishes.log_level.as_deref())
        .context("log level can't be used")?;
    let member: MemberConfig = config::load(&wishes.config)?;
    let credentials = Credentials::load(&wishes.config)?;
    let mut signals = Signals::catch().context("can't handle signals")?;
    let controller = Controller::start(&member, &credentials, &wishes.data).await?;
    if let Some(address) = wishes.metrics {
        let listener = health::listen(address)
            .await
            .with_context(|| format!("can't serve metrics on {address}"))?;
        tokio::spawn(health::serve(listener, Arc::new(controller.health())));
        info!(%address, "health and metrics are served");
    }
    if let Some(options) = &wishes.local {
        let local = Local::open(options)?;
        info!(socket = %options.socket.display(), "local socket is served");
        tokio::spawn(local.serve());
    }
    signals::ready("takes part in the group");
    let reload = || match args.wishes() {
        Ok(wishes) => match log.set(wishes.log_level.as_deref()) {
            Ok(()) => info!("log level was read again; the rest holds from the next start on"),
            Err(error) => warn!(%error, "log level stays as it is"),
        },
        Err(error) => warn!("settings stay as they are: {error:#}"),
    };
    tokio::select! {
        () = signals.ended(reload) => {}
        reason = controller.failed() => {
            bail!("member `{}` can't take part any more: {reason}", controller.name())
        }
    }
    controller.shutdown().await;
    Ok(())
}

/// What would keep the member from starting, without starting it.
fn check(args: &Args) -> anyhow::Result<()> {
    let Wishes { config: dir, .. } = args.wishes()?;
    let member: MemberConfig = config::load(&dir)?;
    let identity = Credentials::load(&dir)?.identity()?;
    if identity.role != Role::Member {
        bail!("certificate is `{identity}`, not a member's");
    }
    println!(
        "ok     credentials: {identity}, listens on {}",
        member.listen
    );
    Ok(())
}
