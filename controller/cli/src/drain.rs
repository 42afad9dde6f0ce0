//! The drain of a host as it is seen from outside. It belongs to the cluster, not to the caller:
//! it is watched by asking, which a change of leader does not end.

use std::time::Duration;

use godwit_proto::control::{DrainRequest, HostRequest, SetLimitsRequest};
use godwit_types::{DrainView, MigrationLimits};
use tokio::time::sleep;

use crate::{
    client::{Cluster, Control},
    error::ClientError,
};

/// Between two questions.
const POLL: Duration = Duration::from_millis(200);

/// Begins to drain a host, or tries again what could not be moved. `to`: the hosts that may take
/// its containers; empty: as the scheduler likes.
pub async fn begin(
    cluster: &mut Cluster,
    host: &str,
    to: &[String],
) -> Result<DrainView, ClientError> {
    let request = DrainRequest {
        host: host.to_owned(),
        to: to.to_vec(),
    };
    let call = async |mut control: Control| control.drain_host(request.clone()).await;
    let document = cluster.ask(call).await?;
    cluster.read(&document)
}

/// Asks until nothing is left that the drain still tries to move, and answers how it stands then.
pub async fn watch(
    cluster: &mut Cluster,
    host: &str,
    mut seen: impl FnMut(&DrainView),
) -> Result<DrainView, ClientError> {
    loop {
        let view = inspect(cluster, host).await?;
        seen(&view);
        if view.is_over() {
            return Ok(view);
        }
        sleep(POLL).await;
    }
}

/// How far the drain of a host is.
pub async fn inspect(cluster: &mut Cluster, host: &str) -> Result<DrainView, ClientError> {
    let request = HostRequest {
        host: host.to_owned(),
    };
    let call = async |mut control: Control| control.inspect_drain(request.clone()).await;
    let document = cluster.ask(call).await?;
    cluster.read(&document)
}

/// Lets a host take containers again.
pub async fn activate(cluster: &mut Cluster, host: &str) -> Result<DrainView, ClientError> {
    let request = HostRequest {
        host: host.to_owned(),
    };
    let call = async |mut control: Control| control.activate_host(request.clone()).await;
    let document = cluster.ask(call).await?;
    cluster.read(&document)
}

/// Sets how many migrations may be under way at once. None: that one stays as it is.
pub async fn set_limits(
    cluster: &mut Cluster,
    out_of_host: Option<u32>,
    into_host: Option<u32>,
    all: Option<u32>,
) -> Result<MigrationLimits, ClientError> {
    let request = SetLimitsRequest {
        out_of_host: out_of_host.unwrap_or(0),
        into_host: into_host.unwrap_or(0),
        cluster: all.unwrap_or(0),
    };
    let call = async |mut control: Control| control.set_limits(request).await;
    let document = cluster.ask(call).await?;
    cluster.read(&document)
}
