//! `godwit start`.

use godwit_cli::client::{Cluster, Control};
use godwit_proto::control::ContainerRequest;

use super::each::each;
use crate::options::Global;

/// Start containers that were created or have ended, with the files they left
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
            let request = ContainerRequest {
                container: name.to_owned(),
            };
            let call = async |mut control: Control| control.start_container(request.clone()).await;
            cluster.order(call).await.map(drop)
        },
    )
    .await
}
