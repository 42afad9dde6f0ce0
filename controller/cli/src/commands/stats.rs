//! `godwit stats`.

use std::{collections::BTreeMap, io::IsTerminal, time::Duration};

use godwit_cli::{
    client::{Cluster, Control},
    exit_code::INTERRUPTED,
    observe::{self, cpu_percent, memory_percent},
};
use godwit_proto::{control::ContainerRequest, v1::Empty};
use godwit_types::{ByteSize, ContainerView, Look, Status, Usage};
use serde_json::{Value, json};
use tokio::time::sleep;

use super::exec::is_not_running;
use crate::{
    options::{Format, Global},
    output::{self, table::table},
};

/// Between two looks.
const EVERY: Duration = Duration::from_secs(1);
/// Moves the cursor home and clears what is below.
const HOME: &str = "\x1b[H\x1b[J";

/// Show what containers use, every second and wherever they move
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Once, and return
    #[arg(long)]
    no_stream: bool,
    /// The containers [default: all that run]
    containers: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let shown = Shown {
        format: global.format,
        screen: !args.no_stream && std::io::stdout().is_terminal(),
    };
    let mut cluster = global.cluster()?;
    let mut before = BTreeMap::new();
    tokio::select! {
        _ = tokio::signal::ctrl_c() => Ok(INTERRUPTED),
        shown = follow(&mut cluster, &args, &shown, &mut before) => shown.map(|()| 0),
    }
}

struct Shown {
    format: Format,
    screen: bool,
}

async fn follow(
    cluster: &mut Cluster,
    args: &Args,
    shown: &Shown,
    before: &mut BTreeMap<String, Usage>,
) -> anyhow::Result<()> {
    let mut first = true;
    loop {
        let views = views(cluster, &args.containers).await?;
        let mut rows = Vec::new();
        for view in &views {
            let Some(usage) = usage(cluster, view).await? else {
                continue;
            };
            let id = view.id.to_string();
            let last = before.insert(id, usage.clone());
            rows.push((view, usage, last));
        }
        // A share needs two looks.
        if !first {
            show(&rows, shown)?;
            if args.no_stream {
                return Ok(());
            }
        }
        first = false;
        sleep(EVERY).await;
    }
}

async fn views(cluster: &mut Cluster, names: &[String]) -> anyhow::Result<Vec<ContainerView>> {
    if names.is_empty() {
        let list = async |mut control: Control| control.list_containers(Empty {}).await;
        let documents = cluster.ask(list).await?;
        let mut views: Vec<ContainerView> = cluster.read_all(&documents)?;
        views.retain(|view| matches!(view.status, Status::Running) && view.host_up);
        return Ok(views);
    }
    let mut views = Vec::new();
    for name in names {
        let request = ContainerRequest {
            container: name.clone(),
        };
        let inspect = async |mut control: Control| control.inspect_container(request.clone()).await;
        let document = cluster.ask(inspect).await?;
        views.push(cluster.read(&document)?);
    }
    Ok(views)
}

/// None: it does not run, or is on its way this moment.
async fn usage(cluster: &mut Cluster, view: &ContainerView) -> anyhow::Result<Option<Usage>> {
    match observe::look(cluster, view.id.as_str(), Look::Usage).await {
        Ok(mut usage) => Ok(usage.pop()),
        Err(error) if is_not_running(&error) || error.problem().is_some() => Ok(None),
        Err(error) => Err(error.into()),
    }
}

fn show(rows: &[(&ContainerView, Usage, Option<Usage>)], shown: &Shown) -> anyhow::Result<()> {
    let values: Vec<Value> = rows
        .iter()
        .map(|(view, usage, last)| value(view, usage, last.as_ref()))
        .collect();
    if shown.screen {
        output::text(HOME)?;
    }
    match shown.format {
        Format::Json => values.iter().try_for_each(output::json),
        Format::Table => {
            let header = [
                "CONTAINER ID",
                "NAME",
                "HOST",
                "CPU %",
                "MEM USAGE / LIMIT",
                "MEM %",
                "NET I/O",
                "BLOCK I/O",
                "PIDS",
            ];
            let keys = [
                "Container",
                "Name",
                "Host",
                "CPUPerc",
                "MemUsage",
                "MemPerc",
                "NetIO",
                "BlockIO",
                "PIDs",
            ];
            let cells =
                |value: &Value| keys.map(|key| value[key].as_str().unwrap_or("").to_owned());
            let rows: Vec<_> = values.iter().map(cells).collect();
            output::text(&table(header, &rows))
        }
    }
}

/// As Docker names them.
fn value(view: &ContainerView, usage: &Usage, last: Option<&Usage>) -> Value {
    let percent = last.map_or(0.0, |last| cpu_percent(last, usage));
    let pair = |a: u64, b: u64| format!("{} / {}", ByteSize(a), ByteSize(b));
    json!({
        "Container": view.id.short(),
        "ID": view.id.short(),
        "Name": view.name,
        "Host": view.host,
        "CPUPerc": format!("{percent:.2}%"),
        "MemUsage": pair(usage.memory, usage.memory_limit),
        "MemPerc": format!("{:.2}%", memory_percent(usage)),
        "NetIO": pair(usage.received, usage.sent),
        "BlockIO": pair(usage.read, usage.written),
        "PIDs": usage.pids.to_string(),
    })
}
