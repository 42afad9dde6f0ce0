//! `godwit member add` and `godwit member replace`.

use std::path::PathBuf;

use godwit_cli::{
    cluster::Part,
    membership::{self, Added},
};
use godwit_types::MemberName;

use crate::{
    options::{Format, Global},
    output,
};

/// Add a member: make it known, and write its configuration and credentials
///
/// Copy what was written to its machine and start it. It is a learner until it has the whole log;
/// then it gets its vote, as soon as the number of votes is odd with it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Its name, and where it will listen
    #[arg(value_name = "NAME=ADDRESS:PORT")]
    member: Part<MemberName>,
    /// The directory that `godwit cluster init` wrote, with the authority's key in `ca`
    #[arg(long)]
    dir: PathBuf,
}

/// Replace a member by another: when that one has its vote, the old one is taken out
///
/// The old member may be down, or lead: then it hands the lead over first.
#[derive(Debug, clap::Args)]
pub struct ReplaceArgs {
    /// The member that leaves
    old: String,
    /// The name of the one that comes, and where it will listen
    #[arg(value_name = "NAME=ADDRESS:PORT")]
    member: Part<MemberName>,
    /// The directory that `godwit cluster init` wrote, with the authority's key in `ca`
    #[arg(long)]
    dir: PathBuf,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    add(global, &args.dir, &args.member, None).await
}

pub async fn replace(global: &Global, args: ReplaceArgs) -> anyhow::Result<u8> {
    add(global, &args.dir, &args.member, Some(&args.old)).await
}

async fn add(
    global: &Global,
    dir: &std::path::Path,
    part: &Part<MemberName>,
    old: Option<&str>,
) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let added = membership::add(&mut cluster, dir, part, old).await?;
    // Both may be the same.
    global.refresh(&added.members);
    let made = dir.join("admin");
    if made.is_dir()
        && let Err(error) = membership::refresh(&made, &added.members)
    {
        output::note(format_args!("note: {error}"));
    }
    match global.format {
        Format::Json => output::json(&added)?,
        Format::Table => output::text(&next_steps(&added, old))?,
    }
    for note in &added.notes {
        output::note(format_args!("note: {note}"));
    }
    Ok(0)
}

fn next_steps(added: &Added, old: Option<&str>) -> String {
    let Added {
        cluster,
        id,
        member,
        ..
    } = added;
    let mut text = format!(
        "Member `{}` ({}) of cluster `{cluster}` has id {id}.\n\n  copy {} to /etc/godwit/member \
         on its machine\n  then start there: godwit-controller --config /etc/godwit/member --data \
         /var/lib/godwit/member\n\n",
        member.name,
        member.address,
        member.dir.display()
    );
    text.push_str("It learns the log first and gets its vote then");
    if let Some(old) = old {
        text.push_str(&format!("; `{old}` is taken out when it has it"));
    }
    text.push_str(": `godwit member ls` shows how far it is.\n");
    text
}
