//! `godwit rmi` and `godwit image rm`.

use std::collections::BTreeSet;

use godwit_cli::images::{self, Where};
use godwit_types::{HostImageNews, ImageNews, ImageOrder};

use crate::{
    options::{Format, Global},
    output::{self, failure},
};

/// Remove images, or names of them, from every host
///
/// An image goes with its last name. One that a container uses stays.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Remove an image that was given by its id with all its names
    #[arg(short, long)]
    force: bool,
    /// From this host only; repeat for several [default: every host that has it]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut code = 0;
    for image in args.images {
        let order = ImageOrder::Remove {
            image,
            force: args.force,
        };
        let place = Where {
            hosts: args.hosts.clone(),
            all_hosts: false,
        };
        let ignore = |_: &_| Ok::<_, anyhow::Error>(());
        match images::order(&mut cluster, place, &order, ignore).await {
            Ok(results) => {
                print(global, &results)?;
                code = code.max(failure::of_hosts(&results));
            }
            // The others may be there.
            Err(error) => {
                failure::report(&error);
                code = 1;
            }
        }
    }
    Ok(code)
}

/// As Docker prints it, each line once, however many hosts it is true of.
pub fn print(global: &Global, results: &[HostImageNews]) -> anyhow::Result<()> {
    if global.format == Format::Json {
        return output::json(results);
    }
    let mut lines = BTreeSet::new();
    for result in results {
        if let ImageNews::Removed {
            untagged, deleted, ..
        } = &result.news
        {
            lines.extend(untagged.iter().map(|name| (0, format!("Untagged: {name}"))));
            lines.extend(deleted.iter().map(|id| (1, format!("Deleted: {id}"))));
        }
    }
    for (_, line) in lines {
        output::line(line)?;
    }
    Ok(())
}
