//! A migration as it is seen from outside: phase by phase until it is over.
//!
//! It belongs to the cluster, not to the caller. When the stream breaks, because the member that
//! served it is gone, it is watched on by asking.

use std::time::Duration;

use godwit_proto::control::{MigrateRequest, MigrationRequest};
use godwit_types::MigrationView;
use tokio::time::sleep;

use crate::{
    client::{Cluster, Control},
    error::ClientError,
};

/// Between two questions when there is no stream.
const POLL: Duration = Duration::from_millis(100);

/// Starts a migration and answers its end, moved or not. `seen` is told every new phase.
pub async fn migrate(
    cluster: &mut Cluster,
    container: &str,
    to: &str,
    mut seen: impl FnMut(&MigrationView),
) -> Result<MigrationView, ClientError> {
    let request = MigrateRequest {
        container: container.to_owned(),
        to: to.to_owned(),
        ..MigrateRequest::default()
    };
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

fn tell(
    last: &mut Option<MigrationView>,
    view: MigrationView,
    seen: &mut impl FnMut(&MigrationView),
) {
    if last.as_ref().is_none_or(|last| last.phase != view.phase) {
        seen(&view);
    }
    *last = Some(view);
}
