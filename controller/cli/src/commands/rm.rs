//! `godwit rm`.

use godwit_cli::client::Control;
use godwit_proto::control::RemoveRequest;

use crate::{
    options::{Format, Global},
    output,
};

/// Remove containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Kill a container that runs
    #[arg(short, long)]
    force: bool,
    /// Remove its volumes without a name, too
    #[arg(short, long)]
    volumes: bool,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut removed = Vec::new();
    let mut code = 0;
    for container in args.containers {
        let request = RemoveRequest {
            container: container.clone(),
            force: args.force,
            volumes: args.volumes,
        };
        let call = async |mut control: Control| control.remove_container(request.clone()).await;
        // One that can't be removed must not keep the others.
        match cluster.order(call).await {
            Ok(_) => {
                if global.format == Format::Table {
                    output::line(&container)?;
                }
                removed.push(container);
            }
            Err(error) => code = output::failure::exit_code(&error.into()),
        }
    }
    if global.format == Format::Json {
        output::json(&removed)?;
    }
    Ok(code)
}
