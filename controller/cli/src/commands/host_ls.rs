//! `godwit host ls`.

use godwit_cli::client::Control;
use godwit_proto::v1::Empty;
use godwit_types::{CgroupMode, HostView};

use crate::{
    options::{Format, Global},
    output::{self, table::table},
};

/// List the hosts
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Also say, on standard error, what each host lacks
    #[arg(short, long)]
    verbose: bool,
    /// Show the labels
    #[arg(long)]
    labels: bool,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let call = async |mut control: Control| control.list_hosts(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let hosts: Vec<HostView> = cluster.read_all(&documents)?;
    match global.format {
        Format::Json => output::json(&hosts)?,
        Format::Table if args.labels => {
            let rows: Vec<_> = hosts.iter().map(labels).collect();
            output::text(&table(["NAME", "STATUS", "LABELS"], &rows))?;
        }
        Format::Table => {
            let rows: Vec<_> = hosts.iter().map(row).collect();
            let header = [
                "NAME",
                "STATUS",
                "ADDRESS",
                "CONTAINERS",
                "KERNEL",
                "CRIU",
                "CGROUPS",
                "CPUS",
                "MEMORY",
                "FREE",
            ];
            output::text(&table(header, &rows))?;
        }
    }
    if args.verbose {
        hosts.iter().flat_map(lacks).for_each(output::note);
    }
    Ok(0)
}

fn row(host: &HostView) -> [String; 10] {
    let status = status(host);
    let facts = host.facts.as_ref();
    let fact = |text: Option<String>| text.unwrap_or_else(|| "-".into());
    [
        host.name.to_string(),
        status,
        host.address.clone(),
        host.containers.to_string(),
        fact(facts.map(|facts| facts.kernel.clone())),
        fact(facts.map(|facts| facts.criu.clone().unwrap_or_else(|| "none".into()))),
        fact(facts.map(|facts| cgroups(facts.cgroups).to_owned())),
        fact(facts.map(|facts| facts.cpus.to_string())),
        fact(facts.map(|facts| facts.memory.to_string())),
        fact(facts.map(|facts| facts.disk_free.to_string())),
    ]
}

fn labels(host: &HostView) -> [String; 3] {
    let labels = host.labels.iter();
    let labels: Vec<_> = labels
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    [host.name.to_string(), status(host), labels.join(",")]
}

/// `up` or `down`, and whether it is to be left or is empty already.
fn status(host: &HostView) -> String {
    let up = if host.up { "up" } else { "down" };
    match (host.draining, host.containers) {
        (false, _) => up.to_owned(),
        (true, 0) => format!("{up}, drained"),
        (true, _) => format!("{up}, draining"),
    }
}

fn cgroups(mode: CgroupMode) -> &'static str {
    match mode {
        CgroupMode::V1 => "v1",
        CgroupMode::Hybrid => "hybrid",
        CgroupMode::V2 => "v2",
    }
}

fn lacks(host: &HostView) -> Vec<String> {
    let Some(facts) = &host.facts else {
        return Vec::new();
    };
    let problems = facts.criu_problem.iter().chain(&facts.warnings);
    problems
        .map(|problem| format!("{}: {}", host.name, output::failure::shown(problem)))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_status_says_whether_it_is_to_be_left() {
        let mut host = HostView {
            labels: Default::default(),
            name: "h1".parse().unwrap(),
            up: true,
            address: "192.0.2.1:1".into(),
            containers: 1,
            draining: false,
            facts: None,
        };
        assert_eq!(status(&host), "up");
        host.draining = true;
        assert_eq!(status(&host), "up, draining");
        (host.containers, host.up) = (0, false);
        assert_eq!(status(&host), "down, drained");
    }
}
