//! `godwit ps`.

mod filter;

use godwit_cli::client::Control;
use godwit_proto::v1::Empty;
use godwit_types::{ContainerView, Status};

use filter::Filter;

use crate::{
    options::{Format, Global},
    output::{
        self, age,
        table::{cut, table},
    },
};

/// As Docker's: a command is rarely worth more room.
const COMMAND_WIDTH: usize = 24;

/// List the containers
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also those that are not running
    #[arg(short, long)]
    all: bool,
    /// Only ids
    #[arg(short, long)]
    quiet: bool,
    /// Ids in full
    #[arg(long)]
    no_trunc: bool,
    /// Only those that fit: name=, id=, status=, label=KEY[=VALUE], host=, ancestor=IMAGE
    /// or exited=CODE
    #[arg(short, long = "filter", value_name = "KEY=VALUE")]
    filters: Vec<Filter>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let call = async |mut control: Control| control.list_containers(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let mut containers: Vec<ContainerView> = cluster.read_all(&documents)?;
    let all = args.all || args.filters.iter().any(Filter::is_of_ended);
    containers.retain(|view| all || runs(&view.status));
    containers.retain(|view| filter::all_fit(&args.filters, view));
    if args.quiet && global.format == Format::Table {
        for view in &containers {
            let id = if args.no_trunc {
                view.id.as_str()
            } else {
                view.id.short()
            };
            output::line(id)?;
        }
        return Ok(0);
    }
    match global.format {
        Format::Json => output::json(&containers)?,
        Format::Table => {
            let now = age::now_ms();
            let mut rows: Vec<_> = containers.iter().map(|view| row(view, now)).collect();
            if args.no_trunc {
                for (row, view) in rows.iter_mut().zip(&containers) {
                    row[0] = view.id.to_string();
                    if !view.spec.command.is_empty() {
                        row[3] = view.spec.command.join(" ");
                    }
                }
            }
            let header = [
                "CONTAINER ID",
                "NAME",
                "IMAGE",
                "COMMAND",
                "HOST",
                "STATUS",
                "CREATED",
                "ADDRESS",
            ];
            output::text(&table(header, &rows))?;
        }
    }
    Ok(0)
}

/// As Docker: what is paused or about to be started again runs.
fn runs(status: &Status) -> bool {
    matches!(
        status,
        Status::Running | Status::Paused | Status::Restarting { .. }
    )
}

fn row(view: &ContainerView, now_ms: u64) -> [String; 8] {
    let network = view.spec.network.as_ref();
    [
        view.id.short().to_owned(),
        view.name.to_string(),
        view.spec.image.to_string(),
        // Empty: the image's own, which only hosts know.
        match view.spec.command.as_slice() {
            [] => "-".to_owned(),
            command => cut(&command.join(" "), COMMAND_WIDTH),
        },
        view.host.to_string(),
        status(view),
        age::ago(now_ms, view.created_ms),
        network.map_or_else(|| "-".to_owned(), |network| network.address.to_string()),
    ]
}

fn status(view: &ContainerView) -> String {
    let mut text = view.status_text();
    if view.migration.is_some() {
        text.push_str(" (moving)");
    }
    if !view.host_up {
        // What is shown is the last that was heard.
        text.push_str(" (host down)");
    }
    text
}

#[cfg(test)]
mod tests {
    use godwit_types::{
        ContainerId, ContainerSpec, Digest, Generation, HostName, Limits, MigrationId,
    };

    use super::*;

    #[test]
    fn a_row_says_when_a_container_is_moving_or_its_host_is_gone() {
        let mut view = ContainerView {
            id: ContainerId::from_bytes([0xab; 32]),
            name: "redis".parse().unwrap(),
            status: Status::Running,
            host: HostName::new("h1").unwrap(),
            host_up: true,
            generation: Generation::FIRST,
            pid: None,
            created_ms: 0,
            migration: None,
            details: Default::default(),
            spec: ContainerSpec {
                name: "redis".parse().unwrap(),
                image: "redis".parse().unwrap(),
                image_id: Digest::from_sha256([1; 32]),
                command: vec!["redis-server".into(), "--save".into(), "3600 1".into()],
                env: Vec::new(),
                limits: Limits::default(),
                network: None,
                hostname: String::new(),
                options: godwit_types::Options::default(),
            },
        };
        assert_eq!(
            row(&view, 5000),
            [
                "abababababab",
                "redis",
                "redis:latest",
                "redis-server --save 360…",
                "h1",
                "running",
                "5 seconds ago",
                "-",
            ]
        );
        view.migration = Some(MigrationId::from_bytes([1; 8]));
        assert_eq!(status(&view), "running (moving)");
        view.migration = None;
        view.host_up = false;
        assert_eq!(status(&view), "running (host down)");
    }
}
