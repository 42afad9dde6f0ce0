//! `godwit run`.

mod flags;

use std::env;

use godwit_cli::{
    client::{Cluster, Control},
    env::resolve,
    error::ClientError,
    exit_code,
    logs::Logs,
};
use godwit_proto::{control::RunRequest, document};
use godwit_types::{ByteSize, ContainerView, Cpus};

use super::watch::watch;
use crate::{
    options::{Format, Global},
    output::{self, failure},
};

/// Create a container and start it
///
/// Without `-d` its output is followed and its exit code becomes this program's. Signals are passed
/// on to it, Ctrl-C as well; the fourth Ctrl-C stops following and leaves it running. Exit codes of its own: 125 when it could not be started, 126
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
    let how = args.flags.watch();
    let started = match global.cluster() {
        Ok(mut cluster) => start(&mut cluster, args).await,
        Err(error) => Err(error),
    };
    let view = match started {
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
    let logs = Logs::new(view.id.as_str(), true);
    watch(global, &view, logs, how).await
}

async fn start(cluster: &mut Cluster, args: Args) -> anyhow::Result<ContainerView> {
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
        options: Some(document::write(&args.flags.options(args.detach)?)),
    };
    let call = async |mut control: Control| control.run(request.clone()).await;
    let document = cluster.order(call).await?;
    Ok(cluster.read(&document)?)
}
