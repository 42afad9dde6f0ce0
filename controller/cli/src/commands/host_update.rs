//! `godwit host update`.

use anyhow::bail;
use godwit_cli::client::Control;
use godwit_proto::control::LabelHostRequest;

use crate::options::Global;

/// Set and remove labels of a host, which containers ask for with `--constraint`
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Set a label
    #[arg(long = "label", value_name = "KEY=VALUE")]
    add: Vec<String>,
    /// Remove a label
    #[arg(long = "label-rm", value_name = "KEY")]
    remove: Vec<String>,
    /// Its name
    host: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    if args.add.is_empty() && args.remove.is_empty() {
        bail!("nothing to update: give `--label` or `--label-rm`");
    }
    let mut cluster = global.cluster()?;
    let request = LabelHostRequest {
        host: args.host,
        add: args.add,
        remove: args.remove,
    };
    let call = async |mut control: Control| control.label_host(request.clone()).await;
    cluster.ask(call).await?;
    Ok(0)
}
