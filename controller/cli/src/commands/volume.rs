//! `godwit volume create|ls|inspect|rm|prune`.

use std::io::Write;

use godwit_cli::client::Control;
use godwit_proto::{
    control::{CreateVolumeRequest, PruneVolumesRequest, VolumeRequest},
    v1::Empty,
};
use godwit_types::VolumeView;

use crate::{
    options::{Format, Global},
    output::{self, table::table},
};

/// Make a volume; the host of its first container is where it will be
#[derive(Debug, clap::Args)]
pub struct Create {
    /// The host it is for [default: that of its first container]
    #[arg(long)]
    host: Option<String>,
    /// What to note of it
    #[arg(short, long, value_name = "KEY[=VALUE]")]
    label: Vec<String>,
    /// What to call it [default: a name is made up]
    name: Option<String>,
}

/// List the volumes
#[derive(Debug, clap::Args)]
pub struct Ls {
    /// Only the names
    #[arg(short, long)]
    quiet: bool,
}

/// Print everything that is known about volumes, as JSON
#[derive(Debug, clap::Args)]
pub struct Inspect {
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

/// Remove volumes and what is in them
#[derive(Debug, clap::Args)]
pub struct Rm {
    /// Say nothing of one that is not there
    #[arg(short, long)]
    force: bool,
    #[arg(value_name = "VOLUME", required = true)]
    volumes: Vec<String>,
}

/// Remove the volumes without a name that no container uses
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// Those with a name, too
    #[arg(short, long)]
    all: bool,
    /// Don't ask
    #[arg(short, long)]
    force: bool,
}

pub async fn create(global: &Global, args: Create) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let request = CreateVolumeRequest {
        name: args.name.unwrap_or_default(),
        host: args.host.unwrap_or_default(),
        labels: args.label,
    };
    let call = async |mut control: Control| control.create_volume(request.clone()).await;
    let document = cluster.order(call).await?;
    let volume: VolumeView = cluster.read(&document)?;
    match global.format {
        Format::Json => output::json(&volume)?,
        Format::Table => output::line(&volume.name)?,
    }
    Ok(0)
}

pub async fn ls(global: &Global, args: Ls) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let call = async |mut control: Control| control.list_volumes(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let volumes: Vec<VolumeView> = cluster.read_all(&documents)?;
    match global.format {
        Format::Json => output::json(&volumes)?,
        Format::Table if args.quiet => {
            for volume in &volumes {
                output::line(&volume.name)?;
            }
        }
        Format::Table => {
            let rows: Vec<_> = volumes.iter().map(row).collect();
            output::text(&table(["VOLUME NAME", "HOST", "CONTAINERS"], &rows))?;
        }
    }
    Ok(0)
}

fn row(volume: &VolumeView) -> [String; 3] {
    let names = volume.containers.iter().map(|name| name.as_str());
    [
        volume.name.to_string(),
        volume
            .host
            .as_ref()
            .map_or_else(|| "-".to_owned(), ToString::to_string),
        names.collect::<Vec<_>>().join(", "),
    ]
}

pub async fn inspect(global: &Global, args: Inspect) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut views = Vec::new();
    let mut code = 0;
    for volume in args.volumes {
        let request = VolumeRequest { volume };
        let call = async |mut control: Control| control.inspect_volume(request.clone()).await;
        match cluster.ask(call).await {
            Ok(document) => views.push(cluster.read::<VolumeView>(&document)?),
            Err(error) => code = output::failure::exit_code(&error.into()),
        }
    }
    output::pretty_json(&views)?;
    Ok(code)
}

pub async fn rm(global: &Global, args: Rm) -> anyhow::Result<u8> {
    if args.force {
        let mut cluster = global.cluster()?;
        let call = async |mut control: Control| control.list_volumes(Empty {}).await;
        let documents = cluster.ask(call).await?;
        let known: Vec<VolumeView> = cluster.read_all(&documents)?;
        let there = |name: &String| known.iter().any(|volume| volume.name.as_str() == name);
        return remove(global, args.volumes.into_iter().filter(there).collect()).await;
    }
    remove(global, args.volumes).await
}

async fn remove(global: &Global, volumes: Vec<String>) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut removed = Vec::new();
    let mut code = 0;
    for volume in volumes {
        let request = VolumeRequest {
            volume: volume.clone(),
        };
        let call = async |mut control: Control| control.remove_volume(request.clone()).await;
        // One that can't be removed must not keep the others.
        match cluster.order(call).await {
            Ok(_) => {
                if global.format == Format::Table {
                    output::line(&volume)?;
                }
                removed.push(volume);
            }
            Err(error) => code = output::failure::exit_code(&error.into()),
        }
    }
    if global.format == Format::Json {
        output::json(&removed)?;
    }
    Ok(code)
}

pub async fn prune(global: &Global, args: Prune) -> anyhow::Result<u8> {
    let which = if args.all { "all" } else { "anonymous" };
    if !args.force && !confirmed(which)? {
        return Ok(0);
    }
    let mut cluster = global.cluster()?;
    let request = PruneVolumesRequest { all: args.all };
    let call = async |mut control: Control| control.prune_volumes(request).await;
    let documents = cluster.order(call).await?;
    let gone: Vec<VolumeView> = cluster.read_all(&documents)?;
    match global.format {
        Format::Json => output::json(&gone)?,
        Format::Table => {
            for volume in &gone {
                output::line(&volume.name)?;
            }
        }
    }
    Ok(0)
}

fn confirmed(which: &str) -> anyhow::Result<bool> {
    let mut error = std::io::stderr();
    write!(
        error,
        "this removes {which} volumes that no container uses; go on? [y/N] "
    )?;
    error.flush()?;
    let mut answer = String::new();
    std::io::stdin().read_line(&mut answer)?;
    Ok(matches!(
        answer.trim().to_ascii_lowercase().as_str(),
        "y" | "yes"
    ))
}
