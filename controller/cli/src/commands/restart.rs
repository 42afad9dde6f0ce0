//! `godwit restart`.

use godwit_cli::client::{Cluster, Control};
use godwit_proto::control::StopRequest;

use super::each::each;
use crate::options::Global;

/// Stop containers and start them again; start those that do not run
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long a container has for its end after the stop signal [default: its own, or 10]
    #[arg(short = 't', long = "time", value_name = "SECONDS")]
    seconds: Option<u32>,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let seconds = args.seconds;
    each(
        global,
        args.containers,
        async |cluster: &mut Cluster, name: &str| {
            let request = StopRequest {
                container: name.to_owned(),
                grace_ms: u64::from(seconds.unwrap_or(0)) * 1000,
                own_grace: seconds.is_none(),
            };
            let call =
                async |mut control: Control| control.restart_container(request.clone()).await;
            cluster.order(call).await.map(drop)
        },
    )
    .await
}
