//! `godwit-testbed`: test hosts, and the demo on them. Started by `cargo xtask demo`.

use std::path::PathBuf;

use anyhow::Result;
use clap::{Parser, Subcommand};
use godwit_tests::{
    bench::{self, stream},
    demo, faults, testbed,
};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Hold a test host's namespaces (started by the testbed itself)
    Hold {
        /// Written when they are set up
        ready: PathBuf,
    },
    /// Three hosts, a Redis that moves through them, and a client that counts
    Demo {
        /// Leave the cluster running and say what to type next
        #[arg(long, conflicts_with = "stop")]
        keep: bool,
        /// End a cluster that `--keep` left running
        #[arg(long)]
        stop: bool,
        /// Moves per way round
        #[arg(long, default_value_t = 1)]
        rounds: u32,
    },
    /// Measure
    #[command(subcommand)]
    Bench(Bench),
    /// Break everything once at every point of a migration
    Faults(faults::Options),
    /// Start the agent of a host of the kept cluster again
    StartAgent { host: u8 },
    /// Start the member of a host of the kept cluster again
    StartMember { host: u8 },
}

#[derive(Subcommand)]
enum Bench {
    /// Migrations, beside other systems
    Migrate(bench::Options),
    /// One end of a bare TLS stream (started by the bench itself)
    #[command(flatten)]
    Stream(stream::End),
}

fn main() -> Result<()> {
    match Arguments::parse().what {
        What::Hold { ready } => testbed::hold(&ready),
        What::Demo { stop: true, .. } => demo::stop(),
        What::Demo { keep, rounds, .. } => demo::run(keep, rounds),
        What::Bench(Bench::Migrate(options)) => bench::migrate(&options),
        What::Bench(Bench::Stream(end)) => stream::run(&end),
        What::Faults(options) => faults::run(&options),
        What::StartAgent { host } => demo::start_agent(host),
        What::StartMember { host } => demo::start_member(host),
    }
}
