//! `godwit network rm` and `prune`.

use godwit_cli::client::Control;
use godwit_proto::{control::NetworkRequest, v1::Empty};
use godwit_types::NetworkView;

use crate::{
    options::{Format, Global},
    output,
};

/// The network that every cluster has, and that stays.
const DEFAULT: &str = "default";

/// Remove networks that no container is on
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

/// Remove all networks that no container is on
#[derive(Debug, clap::Args)]
pub struct Prune {
    /// As Docker has it; nothing is asked
    #[arg(short, long)]
    force: bool,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    remove(global, args.networks).await
}

pub async fn prune(global: &Global, _: Prune) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let call = async |mut control: Control| control.list_networks(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let networks: Vec<NetworkView> = cluster.read_all(&documents)?;
    let unused = networks
        .into_iter()
        .filter(|network| network.containers == 0 && network.name.as_str() != DEFAULT);
    remove(
        global,
        unused.map(|network| network.name.to_string()).collect(),
    )
    .await
}

async fn remove(global: &Global, networks: Vec<String>) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut removed = Vec::new();
    let mut code = 0;
    for network in networks {
        let request = NetworkRequest {
            network: network.clone(),
        };
        let call = async |mut control: Control| control.remove_network(request.clone()).await;
        // One that can't be removed must not keep the others.
        match cluster.order(call).await {
            Ok(_) => {
                if global.format == Format::Table {
                    output::line(&network)?;
                }
                removed.push(network);
            }
            Err(error) => code = output::failure::exit_code(&error.into()),
        }
    }
    if global.format == Format::Json {
        output::json(&removed)?;
    }
    Ok(code)
}
