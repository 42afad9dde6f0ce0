//! `godwit update`.

use anyhow::bail;
use godwit_cli::client::{Cluster, Control};
use godwit_proto::{control::UpdateRequest, document};
use godwit_types::{ByteSize, Cpus, LimitsChange, RestartPolicy, cpuset};

use super::{each::each, run::memory_swap};
use crate::options::Global;

/// Change limits and the restart policy of containers while they run
///
/// What is not named stays; 0 takes a bound away.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Most memory
    #[arg(short, long, value_name = "SIZE")]
    memory: Option<ByteSize>,
    /// Most memory and swap together; -1 for no bound
    #[arg(long, value_name = "SIZE", allow_hyphen_values = true, value_parser = memory_swap)]
    memory_swap: Option<i64>,
    /// What it is pressed down to when its host runs short of memory
    #[arg(long, value_name = "SIZE")]
    memory_reservation: Option<ByteSize>,
    /// Most processor time, in processors
    #[arg(long, value_name = "NUMBER", value_parser = cpus)]
    cpus: Option<Cpus>,
    /// Its share of processor time beside others, of 1024
    #[arg(short, long, value_name = "NUMBER")]
    cpu_shares: Option<u64>,
    /// The processors it may use
    #[arg(long, value_name = "LIST")]
    cpuset_cpus: Option<String>,
    /// Most processes and threads; -1 for no bound
    #[arg(long, value_name = "NUMBER", allow_hyphen_values = true)]
    pids_limit: Option<i64>,
    /// Its share of disk time beside others, 10 to 1000
    #[arg(long, value_name = "NUMBER")]
    blkio_weight: Option<u16>,
    /// no, on-failure[:COUNT], always or unless-stopped
    #[arg(long, value_name = "POLICY")]
    restart: Option<RestartPolicy>,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

/// As elsewhere, and 0.
fn cpus(text: &str) -> Result<Cpus, godwit_types::UnitError> {
    match text {
        "0" => Ok(Cpus(0)),
        number => number.parse(),
    }
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    if let Some(cpus) = &args.cpuset_cpus {
        cpuset(cpus)?;
    }
    let change = LimitsChange {
        memory: args.memory,
        memory_reservation: args.memory_reservation,
        cpus: args.cpus,
        memory_swap: args.memory_swap,
        pids: args.pids_limit,
        cpu_shares: args.cpu_shares,
        cpuset_cpus: args.cpuset_cpus,
        blkio_weight: args.blkio_weight,
    };
    if change.is_empty() && args.restart.is_none() {
        bail!("nothing to update: give a limit or `--restart`");
    }
    let restart = args
        .restart
        .map_or_else(String::new, |policy| policy.to_string());
    each(
        global,
        args.containers,
        async |cluster: &mut Cluster, name: &str| {
            let request = UpdateRequest {
                container: name.to_owned(),
                limits: Some(document::write(&change)),
                restart: restart.clone(),
            };
            let call = async |mut control: Control| control.update_container(request.clone()).await;
            cluster.order(call).await.map(drop)
        },
    )
    .await
}
