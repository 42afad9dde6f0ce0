//! `godwit network inspect`.

use godwit_cli::client::Control;
use godwit_proto::control::NetworkRequest;
use godwit_types::NetworkView;

use crate::{options::Global, output};

/// Print everything that is known about networks, as JSON
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_name = "NETWORK", required = true)]
    networks: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut views = Vec::new();
    let mut code = 0;
    for network in args.networks {
        let request = NetworkRequest { network };
        let call = async |mut control: Control| control.inspect_network(request.clone()).await;
        match cluster.ask(call).await {
            Ok(document) => views.push(cluster.read::<NetworkView>(&document)?),
            Err(error) => code = output::failure::exit_code(&error.into()),
        }
    }
    output::pretty_json(&views)?;
    Ok(code)
}
