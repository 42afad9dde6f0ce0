//! `godwit run`.

mod flags;

use std::{
    env, fs,
    io::Write,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

use godwit_cli::{
    client::{Cluster, Control},
    env::resolve,
    error::ClientError,
    exit_code,
    logs::Logs,
    registries::Registries,
};
use godwit_proto::{
    control::{RemoveRequest, RunRequest},
    document,
    failure::Problem,
};
use godwit_types::{ContainerView, ImageReference};

pub use flags::memory_swap;

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
#[command(disable_help_flag = true)]
pub struct Args {
    /// Print help
    // `-h` is the host name's, as with Docker.
    #[arg(long, action = clap::ArgAction::Help)]
    help: Option<bool>,
    /// Print its id and leave it to run
    #[arg(short, long)]
    pub detach: bool,
    /// What to call it [default: a name is made up]
    #[arg(long)]
    name: Option<String>,
    /// The host to run it on [default: the cluster chooses]
    #[arg(long)]
    host: Option<String>,
    /// The network to join; `none` is loopback only, `host` the host's own, `container:NAME` that
    /// of another container [default: default]
    #[arg(long, alias = "net")]
    network: Option<String>,
    /// Write its id to a file that is not there yet
    #[arg(long, value_name = "FILE")]
    cidfile: Option<PathBuf>,
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
        Ok(mut cluster) => start(global, &mut cluster, args).await,
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

async fn start(
    global: &Global,
    cluster: &mut Cluster,
    args: Args,
) -> anyhow::Result<ContainerView> {
    let mut id_file = args.cidfile.as_deref().map(id_file).transpose()?;
    let request = request(global, args, true)?;
    let call = async |mut control: Control| control.run(request.clone()).await;
    let document = cluster.order(call).await?;
    let view = cluster.read(&document)?;
    tell(&view, id_file.as_mut())?;
    Ok(view)
}

/// As [`start`], without the start.
pub async fn create(
    global: &Global,
    cluster: &mut Cluster,
    args: Args,
) -> anyhow::Result<ContainerView> {
    if args.detach {
        bail!("`--detach` has no meaning here: nothing is started");
    }
    let mut id_file = args.cidfile.as_deref().map(id_file).transpose()?;
    let request = request(global, args, false)?;
    let call = async |mut control: Control| control.create_container(request.clone()).await;
    let document = cluster.order(call).await?;
    let view = cluster.read(&document)?;
    tell(&view, id_file.as_mut())?;
    Ok(view)
}

fn request(global: &Global, args: Args, starts: bool) -> anyhow::Result<RunRequest> {
    let reference: Option<ImageReference> = args.image.parse().ok();
    // Through a local socket there may be no directory, and then no credentials for registries.
    let registries = global.config_dir().ok();
    let registries = registries.map(|dir| Registries::open(&dir)).transpose()?;
    let credentials = registries
        .zip(reference)
        .and_then(|(registries, reference)| registries.of(&reference));
    let mut entries = args.flags.env()?;
    entries.extend(args.env);
    let (options, limits) = args.flags.options(!starts || args.detach)?;
    Ok(RunRequest {
        name: args.name.unwrap_or_default(),
        image: args.image,
        command: args.command,
        env: resolve(&entries, |key| env::var_os(key))?,
        host: args.host.unwrap_or_default(),
        network: args.network.unwrap_or_default(),
        // For members that do not know the document.
        memory: limits.memory.map_or(0, |memory| memory.0),
        cpus_milli: limits.cpus.map_or(0, |cpus| cpus.0),
        pids: limits.pids.unwrap_or(0),
        options: Some(document::write(&options)),
        limits: Some(document::write(&limits)),
        credentials: credentials.as_ref().map(document::write),
    })
}

/// Made before the container, so that a file that is there keeps it from being made.
fn id_file(path: &Path) -> anyhow::Result<fs::File> {
    let made = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .open(path);
    made.with_context(|| {
        format!(
            "`--cidfile {}`: the file must not be there, and its directory must",
            path.display()
        )
    })
}

fn tell(view: &ContainerView, id_file: Option<&mut fs::File>) -> anyhow::Result<()> {
    for warning in &view.details.warnings {
        output::note(format_args!("warning: {}", failure::shown(warning)));
    }
    if let Some(file) = id_file {
        file.write_all(view.id.as_str().as_bytes())
            .context("`--cidfile`")?;
    }
    Ok(())
}

/// Whoever was quicker: it is gone.
pub async fn remove(cluster: &mut Cluster, view: &ContainerView) -> anyhow::Result<()> {
    let request = RemoveRequest {
        container: view.id.to_string(),
        force: false,
        volumes: true,
    };
    let call = async |mut control: Control| control.remove_container(request.clone()).await;
    match cluster.order(call).await {
        Err(error) if !is_gone(&error) => Err(error.into()),
        _ => Ok(()),
    }
}

fn is_gone(error: &ClientError) -> bool {
    matches!(error.problem(), Some(Problem::Refused(refusal)) if refusal.is_not_found())
}
