//! `godwit member ls`.

use godwit_cli::client::Control;
use godwit_proto::v1::Empty;
use godwit_types::MemberView;

use crate::{
    options::{Format, Global},
    output::{self, table::table},
};

/// List the members
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(global: &Global, _: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let call = async |mut control: Control| control.list_members(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let members: Vec<MemberView> = cluster.read_all(&documents)?;
    match global.format {
        Format::Json => output::json(&members)?,
        Format::Table => {
            let rows: Vec<_> = members.iter().map(row).collect();
            let header = ["NAME", "ADDRESS", "ROLE", "REACHABLE", "TERM", "APPLIED"];
            output::text(&table(header, &rows))?;
        }
    }
    Ok(0)
}

fn row(member: &MemberView) -> [String; 6] {
    [
        member.name.to_string(),
        member.address.clone(),
        if member.leader { "leader" } else { "follower" }.to_owned(),
        if member.reachable { "yes" } else { "no" }.to_owned(),
        member.term.to_string(),
        member.applied.to_string(),
    ]
}
