//! `godwit rename`.

use godwit_cli::client::Control;
use godwit_proto::control::RenameRequest;

use crate::options::Global;

/// Give a container another name
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id, or the beginning of an id
    container: String,
    /// The new name
    name: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let request = RenameRequest {
        container: args.container,
        name: args.name,
    };
    let call = async |mut control: Control| control.rename_container(request.clone()).await;
    cluster.order(call).await?;
    Ok(0)
}
