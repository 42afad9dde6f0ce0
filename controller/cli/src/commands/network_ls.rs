//! `godwit network ls`.

use godwit_cli::client::Control;
use godwit_proto::v1::Empty;
use godwit_types::NetworkView;

use crate::{
    options::{Format, Global},
    output::{self, table::table},
};

/// List the networks
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(global: &Global, _: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let call = async |mut control: Control| control.list_networks(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let networks: Vec<NetworkView> = cluster.read_all(&documents)?;
    match global.format {
        Format::Json => output::json(&networks)?,
        Format::Table => {
            let rows: Vec<_> = networks.iter().map(row).collect();
            let header = ["NAME", "SUBNET", "GATEWAY", "VNI", "CONTAINERS"];
            output::text(&table(header, &rows))?;
        }
    }
    Ok(0)
}

fn row(network: &NetworkView) -> [String; 5] {
    [
        network.name.to_string(),
        network.subnet.to_string(),
        network.gateway.to_string(),
        network.vni.to_string(),
        network.containers.to_string(),
    ]
}
