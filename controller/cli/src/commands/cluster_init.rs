//! `godwit cluster init`.

use std::path::PathBuf;

use godwit_cli::cluster::{ClusterPlan, Made, MadeCluster, Part, init};
use godwit_types::{HostName, MemberName};

use crate::{
    options::{Format, Global},
    output,
};

/// Make a cluster's certificate authority, and configuration and credentials for every part
///
/// Needs no running cluster and starts nothing. Everything is written below DIR; copy each part's
/// directory to its machine.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Where to write: a directory that is empty or does not exist
    #[arg(long)]
    dir: PathBuf,
    /// The cluster's name; it stands in every certificate
    #[arg(long, value_name = "CLUSTER")]
    name: String,
    /// A member: 1, 3 or 5 of them
    #[arg(long = "member", value_name = "NAME=ADDRESS:PORT", required = true)]
    members: Vec<Part<MemberName>>,
    /// A host
    #[arg(long = "host", value_name = "NAME=ADDRESS:PORT", required = true)]
    hosts: Vec<Part<HostName>>,
}

pub fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let plan = ClusterPlan {
        name: args.name,
        members: args.members,
        hosts: args.hosts,
    };
    let made = init(&args.dir, &plan)?;
    match global.format {
        Format::Json => output::json(&made)?,
        Format::Table => output::text(&next_steps(&made))?,
    }
    Ok(0)
}

fn next_steps(made: &MadeCluster) -> String {
    let mut text = format!("Cluster `{}` is made.\n", made.cluster);
    let mut parts = |title: &str, parts: &[Made], program: &str, place: &str| {
        text.push_str(&format!("\n{title}\n"));
        for part in parts {
            text.push_str(&format!(
                "  {} ({}): copy {} to {place}\n",
                part.name,
                part.address,
                part.dir.display()
            ));
        }
        text.push_str(&format!("  then start there: {program} --config {place}\n"));
    };
    parts(
        "Members, each on its machine:",
        &made.members,
        "godwit-controller",
        "/etc/godwit/member",
    );
    parts(
        "Hosts, each on its machine, as root:",
        &made.hosts,
        "godwit-agent",
        "/etc/godwit/host",
    );
    text.push_str(&format!(
        "\nYou: copy {admin} to ~/.config/godwit, or export GODWIT_CONFIG={admin}\n\
         \nKeep {ca}/ca.key off these machines: who has it can make credentials for any part.\n",
        admin = made.admin.display(),
        ca = made.ca.display(),
    ));
    text
}
