//! `godwit migration ls`.

use godwit_cli::client::Control;
use godwit_proto::v1::Empty;
use godwit_types::{ByteSize, MigrationView};

use crate::{
    options::{Format, Global},
    output::{self, age, table::table},
};

/// List the migrations, the newest first
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(global: &Global, _: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let call = async |mut control: Control| control.list_migrations(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let migrations: Vec<MigrationView> = cluster.read_all(&documents)?;
    match global.format {
        Format::Json => output::json(&migrations)?,
        Format::Table => {
            let now = age::now_ms();
            let rows: Vec<_> = migrations.iter().map(|view| row(view, now)).collect();
            let header = [
                "MIGRATION ID",
                "CONTAINER",
                "FROM",
                "TO",
                "PHASE",
                "STARTED",
                "FREEZE",
                "TOTAL",
                "BYTES",
            ];
            output::text(&table(header, &rows))?;
        }
    }
    Ok(0)
}

fn row(view: &MigrationView, now_ms: u64) -> [String; 9] {
    [
        view.id.to_string(),
        view.name.to_string(),
        view.from.to_string(),
        view.to.to_string(),
        output::phase(view),
        age::ago(now_ms, view.started_ms),
        reached(view.times.freeze_us, age::millis),
        reached(view.times.total_us, age::millis),
        reached(view.times.bytes, |bytes| ByteSize(bytes).to_string()),
    ]
}

/// 0 is a figure that there is none of yet.
fn reached(value: u64, show: impl Fn(u64) -> String) -> String {
    if value == 0 { "-".into() } else { show(value) }
}
