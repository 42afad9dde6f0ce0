//! `godwit port`.

use anyhow::bail;
use godwit_cli::client::Control;
use godwit_proto::control::ContainerRequest;
use godwit_types::{ContainerView, Published};

use crate::{
    options::{Format, Global},
    output,
};

/// List the ports of the host that lead to a container
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id, or the beginning of an id
    container: String,
    /// Only this port of the container
    #[arg(value_name = "PORT[/PROTOCOL]")]
    port: Option<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let request = ContainerRequest {
        container: args.container,
    };
    let call = async |mut control: Control| control.inspect_container(request.clone()).await;
    let document = cluster.ask(call).await?;
    let view: ContainerView = cluster.read(&document)?;
    let ports = &view.spec.options.ports.published;
    let wanted = args.port.map(|port| match port.contains('/') {
        true => port,
        false => format!("{port}/tcp"),
    });
    let shown: Vec<&Published> = ports
        .iter()
        .filter(|port| wanted.as_ref().is_none_or(|wanted| *wanted == inside(port)))
        .collect();
    if let (Some(wanted), true) = (&wanted, shown.is_empty()) {
        bail!("no public port `{wanted}` is published for `{}`", view.name);
    }
    match global.format {
        Format::Json => output::json(&shown)?,
        Format::Table => {
            for port in shown {
                let outside = outside(port);
                match &wanted {
                    Some(_) => output::line(outside)?,
                    None => output::line(format_args!("{} -> {outside}", inside(port)))?,
                }
            }
        }
    }
    Ok(0)
}

fn inside(port: &Published) -> String {
    format!("{}/{}", port.container, port.protocol)
}

fn outside(port: &Published) -> String {
    let ip = port.ip.unwrap_or(std::net::Ipv4Addr::UNSPECIFIED);
    format!("{ip}:{}", port.host)
}
