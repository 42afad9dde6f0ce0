//! `godwit member ls`.

use godwit_cli::client::Control;
use godwit_proto::v1::Empty;
use godwit_types::{MemberRecord, MemberView};

use crate::{
    options::{Format, Global},
    output::{self, table::table},
};

/// List the members: their part in the group, whether they are up, how far behind the leader
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
            let header = [
                "NAME", "ID", "ROLE", "STATUS", "ADDRESS", "TERM", "APPLIED", "BEHIND", "NOTE",
            ];
            output::text(&table(header, &rows))?;
        }
    }
    let records: Vec<MemberRecord> = members
        .into_iter()
        // One that tells no id does not know of changes either.
        .filter(|member| member.id != 0)
        .map(|member| MemberRecord {
            id: member.id,
            name: member.name,
            address: member.address,
        })
        .collect();
    global.refresh(&records);
    Ok(0)
}

fn row(member: &MemberView) -> [String; 9] {
    [
        member.name.to_string(),
        member.id.to_string(),
        member.role.to_string(),
        if member.reachable { "up" } else { "down" }.to_owned(),
        member.address.clone(),
        member.term.to_string(),
        member.applied.to_string(),
        member.behind.to_string(),
        member.note.clone().unwrap_or_default(),
    ]
}

#[cfg(test)]
mod tests {
    use godwit_types::MemberRole;

    use super::*;

    #[test]
    fn a_row_says_the_part_the_state_and_the_distance() {
        let view = MemberView {
            name: "m4".parse().unwrap(),
            address: "10.0.0.4:7400".into(),
            leader: false,
            reachable: false,
            term: 3,
            applied: 7,
            id: 4,
            role: MemberRole::Learner,
            behind: 12,
            note: Some("waits to be started".into()),
        };
        let expected = [
            "m4",
            "4",
            "learner",
            "down",
            "10.0.0.4:7400",
            "3",
            "7",
            "12",
            "waits to be started",
        ];
        assert_eq!(row(&view), expected);
    }
}
