//! `godwit system df`.

use godwit_cli::images::{self, Where};
use godwit_types::{ByteSize, HostImageNews, HostName, ImageNews, ImageOrder, StoreUsage};

use crate::{
    options::{Format, Global},
    output::{self, age, failure, table::table},
};

/// Show what images and containers take on the hosts' disks
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Every image as well
    #[arg(short, long)]
    verbose: bool,
    /// On this host only; repeat for several [default: every host that is up]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let place = Where {
        hosts: args.hosts,
        all_hosts: false,
    };
    let ignore = |_: &_| Ok::<_, anyhow::Error>(());
    let mut results = images::order(&mut cluster, place, &ImageOrder::Usage, ignore).await?;
    results.sort_by(|a, b| a.host.cmp(&b.host));
    if global.format == Format::Json {
        output::json(&results)?;
        return Ok(failure::of_hosts(&results));
    }
    let used: Vec<_> = results.iter().filter_map(usage).collect();
    let rows: Vec<_> = used
        .iter()
        .flat_map(|(host, usage)| rows(host, usage))
        .collect();
    output::text(&table(
        ["HOST", "TYPE", "TOTAL", "ACTIVE", "SIZE", "RECLAIMABLE"],
        &rows,
    ))?;
    if args.verbose {
        let now = age::now_ms();
        let images: Vec<_> = used
            .iter()
            .flat_map(|(host, usage)| usage.images.iter().map(move |image| (host, image)))
            .map(|(host, image)| {
                let names: Vec<_> = image
                    .summary
                    .names
                    .iter()
                    .map(ToString::to_string)
                    .collect();
                let created = u64::try_from(image.summary.created).unwrap_or(0);
                [
                    host.to_string(),
                    if names.is_empty() {
                        "<none>".into()
                    } else {
                        names.join(", ")
                    },
                    image.summary.id.short().to_owned(),
                    if created == 0 {
                        "-".into()
                    } else {
                        age::ago(now, created.saturating_mul(1000))
                    },
                    image.summary.size.to_string(),
                    image.shared.to_string(),
                    image.unique.to_string(),
                    image.containers.to_string(),
                ]
            })
            .collect();
        output::line("")?;
        output::text(&table(
            [
                "HOST",
                "NAME",
                "IMAGE ID",
                "CREATED",
                "SIZE",
                "SHARED SIZE",
                "UNIQUE SIZE",
                "CONTAINERS",
            ],
            &images,
        ))?;
    }
    Ok(failure::of_hosts(&results))
}

fn usage(result: &HostImageNews) -> Option<(&HostName, &StoreUsage)> {
    match &result.news {
        ImageNews::Used { usage } => Some((&result.host, usage)),
        _ => None,
    }
}

fn rows(host: &HostName, usage: &StoreUsage) -> [[String; 6]; 2] {
    let active = usage.images.iter().filter(|image| image.containers > 0);
    let size = ByteSize(usage.layers.0 + usage.blobs.0 + usage.partial.0);
    [
        [
            host.to_string(),
            "Images".into(),
            usage.images.len().to_string(),
            active.count().to_string(),
            size.to_string(),
            of(usage.reclaimable, size),
        ],
        [
            host.to_string(),
            "Containers".into(),
            usage.containers.to_string(),
            usage.running.to_string(),
            usage.writable.to_string(),
            of(usage.writable_reclaimable, usage.writable),
        ],
    ]
}

fn of(part: ByteSize, whole: ByteSize) -> String {
    match (part.0 * 100).checked_div(whole.0) {
        Some(percent) => format!("{part} ({percent}%)"),
        None => part.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_part_of_nothing_has_no_percentage() {
        assert_eq!(of(ByteSize(0), ByteSize(0)), ByteSize(0).to_string());
        assert!(of(ByteSize(50), ByteSize(100)).ends_with(" (50%)"));
    }
}
