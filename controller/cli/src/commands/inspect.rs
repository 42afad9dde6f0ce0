//! `godwit inspect`.

use godwit_cli::{client::Control, docker_view::docker_view};
use godwit_proto::control::ContainerRequest;
use godwit_types::ContainerView;

use crate::{options::Global, output};

/// Print everything that is known about a container, as JSON
///
/// A template of `--format` finds Docker's names, such as `{{.State.Status}}` and
/// `{{.NetworkSettings.IPAddress}}`, and those of the JSON.
#[derive(Debug, clap::Args)]
pub struct Args {
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
    match output::template() {
        Some(_) => output::json(&docker_view(&view))?,
        None => output::pretty_json(&view)?,
    }
    Ok(0)
}
