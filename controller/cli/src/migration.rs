//! A migration as it is seen from outside: phase by phase until it is over.
//!
//! It belongs to the cluster, not to the caller. When the stream breaks, because the member that
//! served it is gone, it is watched on by asking.

use std::time::Duration;

use godwit_proto::{
    control::{MigrateRequest, MigrationRequest},
    v1::Document,
};
use godwit_types::{Estimate, MigrationOptions, MigrationView, Priority};
use tokio::time::{Instant, sleep};
use tonic::Streaming;

use crate::{
    client::{Cluster, Control},
    error::ClientError,
};

/// Between two questions when there is no stream.
const POLL: Duration = Duration::from_millis(100);

/// What is to move where, and how.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Order {
    pub container: String,
    pub to: String,
    pub priority: Priority,
    pub options: MigrationOptions,
}

impl Order {
    fn request(&self, dry_run: bool) -> MigrateRequest {
        let options = &self.options;
        MigrateRequest {
            container: self.container.clone(),
            to: self.to.clone(),
            mode: options.mode.to_string(),
            max_downtime_ms: options.max_downtime_ms,
            max_bandwidth: options.max_bandwidth.unwrap_or(0),
            timeout_ms: options.timeout_ms.unwrap_or(0),
            dry_run,
            compress: options.compress.to_string(),
            priority: self.priority.to_string(),
        }
    }
}

/// What the migration would come to. Nothing is started.
pub async fn estimate(cluster: &mut Cluster, order: &Order) -> Result<Estimate, ClientError> {
    let request = order.request(true);
    let call = async |mut control: Control| control.migrate(request.clone()).await;
    let mut stream = cluster.ask(call).await?;
    let document = first(cluster, &mut stream).await?;
    cluster.read(&document)
}

/// Starts a migration and leaves it to itself.
pub async fn begin(cluster: &mut Cluster, order: &Order) -> Result<MigrationView, ClientError> {
    let request = order.request(false);
    let call = async |mut control: Control| control.migrate(request.clone()).await;
    let mut stream = cluster.order(call).await?;
    let document = first(cluster, &mut stream).await?;
    cluster.read(&document)
}

async fn first(
    cluster: &mut Cluster,
    stream: &mut Streaming<Document>,
) -> Result<Document, ClientError> {
    match stream.message().await {
        Ok(Some(document)) => Ok(document),
        Ok(None) => Err(ClientError::NoMigration),
        Err(status) => Err(cluster.stream_failed(status)),
    }
}

/// Starts a migration and answers its end, moved or not. `seen` is told every new phase, and how
/// pre-copy goes on.
pub async fn migrate(
    cluster: &mut Cluster,
    order: &Order,
    mut seen: impl FnMut(&MigrationView),
) -> Result<MigrationView, ClientError> {
    let request = order.request(false);
    let call = async |mut control: Control| control.migrate(request.clone()).await;
    let mut stream = cluster.order(call).await?;
    let mut last: Option<MigrationView> = None;
    loop {
        match stream.message().await {
            Ok(Some(document)) => {
                let view: MigrationView = cluster.read(&document)?;
                tell(&mut last, view, &mut seen);
            }
            Ok(None) => break,
            Err(status) => {
                let error = cluster.stream_failed(status);
                if last.is_none() || !error.may_pass() {
                    return Err(error);
                }
                break;
            }
        }
    }
    let Some(mut view) = last else {
        return Err(ClientError::NoMigration);
    };
    while !view.phase.is_final() {
        sleep(POLL).await;
        let now = inspect(cluster, view.id.as_str()).await?;
        let mut last = Some(view);
        tell(&mut last, now.clone(), &mut seen);
        view = now;
    }
    Ok(view)
}

/// One migration by its id or the beginning of it.
pub async fn inspect(cluster: &mut Cluster, id: &str) -> Result<MigrationView, ClientError> {
    let request = MigrationRequest {
        migration: id.to_owned(),
    };
    let call = async |mut control: Control| control.inspect_migration(request.clone()).await;
    let document = cluster.ask(call).await?;
    cluster.read(&document)
}

/// Takes a migration back before its commit.
pub async fn cancel(cluster: &mut Cluster, id: &str) -> Result<MigrationView, ClientError> {
    let request = MigrationRequest {
        migration: id.to_owned(),
    };
    let call = async |mut control: Control| control.cancel_migration(request.clone()).await;
    let document = cluster.ask(call).await?;
    cluster.read(&document)
}

/// By the operator's word, after the commit: the container goes back to its source. Answers how that
/// ended, or how it stands after `patience`.
pub async fn recover(
    cluster: &mut Cluster,
    id: &str,
    patience: Duration,
) -> Result<MigrationView, ClientError> {
    let request = MigrationRequest {
        migration: id.to_owned(),
    };
    let call = async |mut control: Control| control.recover_migration(request.clone()).await;
    let document = cluster.ask(call).await?;
    let mut view: MigrationView = cluster.read(&document)?;
    let end = Instant::now() + patience;
    while !view.phase.is_final() && Instant::now() < end {
        sleep(POLL).await;
        view = inspect(cluster, view.id.as_str()).await?;
    }
    Ok(view)
}

fn tell(
    last: &mut Option<MigrationView>,
    view: MigrationView,
    seen: &mut impl FnMut(&MigrationView),
) {
    let what = |view: &MigrationView| (view.phase, view.place, view.progress.clone());
    let same = |last: &MigrationView| what(last) == what(&view);
    if !last.as_ref().is_some_and(same) {
        seen(&view);
    }
    *last = Some(view);
}
