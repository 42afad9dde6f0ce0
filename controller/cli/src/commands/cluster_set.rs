//! `godwit cluster set`.

use clap::value_parser;
use godwit_cli::drain::set_limits;
use godwit_types::MigrationLimits;

use crate::{
    options::{Format, Global},
    output,
};

/// Set how many migrations may be under way at once, and print the limits
///
/// Without any option it only prints them. A migration beyond the limits waits in the queue.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Most migrations in the whole cluster
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1000))]
    migrations: Option<u32>,
    /// Most migrations away from each host
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1000))]
    migrations_out: Option<u32>,
    /// Most migrations to each host
    #[arg(long, value_name = "N", value_parser = value_parser!(u32).range(1..=1000))]
    migrations_in: Option<u32>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let (out, into, all) = (args.migrations_out, args.migrations_in, args.migrations);
    let limits = set_limits(&mut cluster, out, into, all).await?;
    match global.format {
        Format::Json => output::json(&limits)?,
        Format::Table => output::line(sentence(&limits))?,
    }
    Ok(0)
}

fn sentence(limits: &MigrationLimits) -> String {
    format!(
        "at once at most {} migrations, {} away from each host, {} to each host",
        limits.cluster, limits.out_of_host, limits.into_host
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_limits_are_one_line() {
        assert_eq!(
            sentence(&MigrationLimits::default()),
            "at once at most 8 migrations, 2 away from each host, 2 to each host"
        );
    }
}
