//! `godwit attach`.

use anyhow::bail;
use godwit_cli::{client::Control, keys::DetachKeys, logs::Logs};
use godwit_proto::control::{ContainerRequest, LogsRequest};
use godwit_types::{ContainerView, Status};

use super::watch::{Watch, watch};
use crate::options::Global;

/// Type into a container and see what it writes, wherever it moves
///
/// The exit code is the container's. The detach keys leave it to itself.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Pass nothing on that is typed
    #[arg(long)]
    no_stdin: bool,
    /// The keys that leave it to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sig_proxy: bool,
    /// Name, id, or the beginning of an id
    container: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let request = ContainerRequest {
        container: args.container,
    };
    let call = async |mut control: Control| control.inspect_container(request.clone()).await;
    let document = cluster.ask(call).await?;
    let view: ContainerView = cluster.read(&document)?;
    if !matches!(view.status, Status::Running) {
        bail!(
            "container `{}` is {}: start it before you attach to it",
            view.name,
            view.status
        );
    }
    let options = &view.spec.options.terminal;
    let how = Watch {
        tty: options.tty,
        stdin: (options.stdin || options.tty) && !args.no_stdin,
        keys: args.detach_keys.unwrap_or_default(),
        sig_proxy: args.sig_proxy && !options.tty,
        removes: false,
    };
    // From now on.
    let logs = Logs::of(LogsRequest {
        container: view.id.to_string(),
        follow: true,
        tail: Some(0),
        ..LogsRequest::default()
    });
    watch(global, &view, logs, how).await
}
