//! `godwit network create`.

use godwit_cli::client::Control;
use godwit_proto::control::CreateNetworkRequest;
use godwit_types::{NetworkView, Subnet};

use crate::{
    options::{Format, Global},
    output,
};

/// Make a network that spans the hosts
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its addresses, as in 10.88.0.0/16 [default: a free range]
    #[arg(long)]
    subnet: Option<Subnet>,
    name: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let request = CreateNetworkRequest {
        name: args.name,
        subnet: args
            .subnet
            .map(|subnet| subnet.to_string())
            .unwrap_or_default(),
    };
    let call = async |mut control: Control| control.create_network(request.clone()).await;
    let document = cluster.order(call).await?;
    let network: NetworkView = cluster.read(&document)?;
    match global.format {
        Format::Json => output::json(&network)?,
        Format::Table => output::line(&network.name)?,
    }
    Ok(0)
}
