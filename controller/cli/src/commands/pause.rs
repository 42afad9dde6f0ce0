//! `godwit pause`.

use godwit_cli::client::{Cluster, Control};
use godwit_proto::control::PauseRequest;

use super::each::each;
use crate::options::Global;

/// Stop every process of containers where it is, until they are unpaused
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    each(
        global,
        args.containers,
        async |cluster: &mut Cluster, name: &str| {
            let request = PauseRequest {
                container: name.to_owned(),
                pause: true,
            };
            let call = async |mut control: Control| control.pause_container(request.clone()).await;
            cluster.order(call).await.map(drop)
        },
    )
    .await
}
