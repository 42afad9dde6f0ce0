//! `godwit kill`.

use godwit_cli::client::{Cluster, Control};
use godwit_proto::control::KillRequest;
use godwit_types::Signal;

use super::each::each;
use crate::options::Global;

/// Send a signal to the first process of containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The signal, by name or number
    #[arg(short, long, default_value_t = Signal::KILL)]
    signal: Signal,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let signal = args.signal;
    each(
        global,
        args.containers,
        async |cluster: &mut Cluster, name: &str| {
            let request = KillRequest {
                container: name.to_owned(),
                signal: signal.number().to_string(),
            };
            let call = async |mut control: Control| control.kill_container(request.clone()).await;
            cluster.order(call).await.map(drop)
        },
    )
    .await
}
