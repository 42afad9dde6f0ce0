//! `godwit run`.

mod flags;

use std::{env, time::Duration};

use anyhow::{Context, bail};
use godwit_cli::{
    client::{Cluster, Control},
    env::resolve,
    error::ClientError,
    exit_code::{self, INTERRUPTED},
    logs::Logs,
    registries::Registries,
};
use godwit_proto::{
    control::{ContainerRequest, RunRequest},
    document,
};
use godwit_types::{ByteSize, ContainerView, Cpus, ImageReference, Status};
use tokio::time::sleep;

use super::logs::pass_on;
use crate::{
    options::{Format, Global},
    output::{self, Closed, failure},
};

/// Between two looks at a container whose log has ended and whose end is not known yet.
const POLL: Duration = Duration::from_millis(100);

/// Create a container and start it
///
/// Without `-d` its output is followed and its exit code becomes this program's; Ctrl-C stops
/// following and leaves it running. Exit codes of its own: 125 when it could not be started, 126
/// when its command can't be executed, 127 when its command does not exist.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print its id and leave it to run
    #[arg(short, long)]
    pub detach: bool,
    /// What to call it [default: a name is made up]
    #[arg(long)]
    name: Option<String>,
    /// The host to run it on [default: the cluster chooses]
    #[arg(long)]
    host: Option<String>,
    /// The network to join; `none` is loopback only [default: default]
    #[arg(long)]
    network: Option<String>,
    /// Most memory, as in 512m
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Most processor time, in processors, as in 1.5
    #[arg(long, value_name = "NUMBER")]
    cpus: Option<Cpus>,
    /// Most processes and threads
    #[arg(long, value_name = "NUMBER")]
    pids_limit: Option<u32>,
    /// Set an environment variable; KEY alone takes its value from here
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    env: Vec<String>,
    #[command(flatten)]
    flags: flags::Flags,
    /// The image, as `godwit image ls` names it
    image: String,
    /// The command and its arguments [default: the image's own]
    #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
    pub command: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let detach = args.detach;
    let started = match global.cluster() {
        Ok(mut cluster) => start(global, &mut cluster, args)
            .await
            .map(|view| (cluster, view)),
        Err(error) => Err(error),
    };
    let (cluster, view) = match started {
        Ok(started) => started,
        Err(error) => {
            failure::report(&error);
            let client = error.downcast_ref::<ClientError>();
            return Ok(exit_code::of_start(client.and_then(ClientError::problem)));
        }
    };
    if detach {
        match global.format {
            Format::Json => output::json(&view)?,
            Format::Table => output::line(&view.id)?,
        }
        return Ok(0);
    }
    attach(cluster, &view).await
}

async fn start(
    global: &Global,
    cluster: &mut Cluster,
    args: Args,
) -> anyhow::Result<ContainerView> {
    let registries = Registries::open(&global.config_dir()?)?;
    let reference: Option<ImageReference> = args.image.parse().ok();
    let credentials = reference.and_then(|reference| registries.of(&reference));
    let credentials = credentials.as_ref().map(document::write);
    let request = RunRequest {
        name: args.name.unwrap_or_default(),
        image: args.image,
        command: args.command,
        env: resolve(&args.env, |key| env::var_os(key))?,
        host: args.host.unwrap_or_default(),
        network: args.network.unwrap_or_default(),
        memory: args.memory.map_or(0, |memory| memory.0),
        cpus_milli: args.cpus.map_or(0, |cpus| cpus.0),
        pids: args.pids_limit.unwrap_or(0),
        options: Some(document::write(&args.flags.options()?)),
        credentials,
    };
    let call = async |mut control: Control| control.run(request.clone()).await;
    let document = cluster.order(call).await?;
    Ok(cluster.read(&document)?)
}

/// Follows a container to its end and answers its exit code.
async fn attach(mut cluster: Cluster, view: &ContainerView) -> anyhow::Result<u8> {
    tokio::select! {
        _ = tokio::signal::ctrl_c() => {
            output::note(format_args!(
                "stopped following; `{name}` goes on running: `godwit stop {name}` stops it",
                name = view.name
            ));
            Ok(INTERRUPTED)
        }
        code = follow(&mut cluster, view) => match code {
            // Who read the output is gone; the container is not.
            Err(error) if error.is::<Closed>() => Ok(0),
            other => other.with_context(|| format!("lost sight of `{}`", view.name)),
        },
    }
}

async fn follow(cluster: &mut Cluster, view: &ContainerView) -> anyhow::Result<u8> {
    let request = ContainerRequest {
        container: view.id.to_string(),
    };
    let mut logs = Logs::new(view.id.as_str(), true);
    loop {
        pass_on(&mut logs, cluster).await?;
        let call = async |mut control: Control| control.inspect_container(request.clone()).await;
        let document = cluster.ask(call).await?;
        let now: ContainerView = cluster.read(&document)?;
        match now.status {
            Status::Exited { exit } => return Ok(exit_code::of_container(exit.code)),
            Status::Failed { reason } => bail!("`{}` failed: {reason}", now.name),
            Status::Creating | Status::Running | Status::Removing => sleep(POLL).await,
        }
    }
}
