//! `godwit image prune`.

use godwit_cli::images::{self, Where};
use godwit_types::{ByteSize, HostImageNews, ImageNews, ImageOrder};

use super::image_rm;
use crate::{
    options::{Format, Global},
    output::{self, confirm::confirmed, failure},
};

/// Remove images that nothing uses
#[derive(Debug, clap::Args)]
pub struct Args {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
    /// On this host only; repeat for several [default: every host that is up]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let what = if args.all {
        "all images without a container on their host"
    } else {
        "all images without a name"
    };
    if !args.force && !confirmed(&format!("This removes {what}."))? {
        return Ok(1);
    }
    let mut cluster = global.cluster()?;
    let place = Where {
        hosts: args.hosts,
        all_hosts: false,
    };
    let order = ImageOrder::Prune { all: args.all };
    let ignore = |_: &_| Ok::<_, anyhow::Error>(());
    let results = images::order(&mut cluster, place, &order, ignore).await?;
    image_rm::print(global, &results)?;
    if global.format == Format::Table {
        output::line(format_args!("Total reclaimed space: {}", freed(&results)))?;
    }
    Ok(failure::of_hosts(&results))
}

/// On all hosts together.
pub fn freed(results: &[HostImageNews]) -> ByteSize {
    let each = results.iter().map(|result| match &result.news {
        ImageNews::Removed { freed, .. } => freed.0,
        _ => 0,
    });
    ByteSize(each.sum())
}
