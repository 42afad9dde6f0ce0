//! `godwit-workload`: runs in containers of tests and of the demo. See `godwit_tests::workload`.

use std::{process::ExitCode, time::Duration};

use anyhow::Result;
use clap::{Parser, Subcommand};
use godwit_tests::workload::{
    append, churn, count, echo, exit, family, files, hold, load, memory, redis, witness,
};

#[derive(Parser)]
struct Arguments {
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Increment a key of a Redis over one connection, checking every reply
    Redis {
        /// `ADDRESS:PORT`
        address: String,
        #[arg(default_value = "count")]
        key: String,
    },
    /// Count on the output and in a file
    Count {
        /// Milliseconds between two numbers
        #[arg(long, default_value_t = 5)]
        pause: u64,
    },
    /// End with this code on SIGTERM
    Exit { code: u8 },
    /// Hold what can't be moved
    Hold { kind: hold::Kind },
    /// Append numbers to a file in each of several directories
    Append(append::Options),
    /// Send back what comes over TCP and UDP
    Echo { port: u16 },
    /// Several processes under two users
    Family { part: Option<Part> },
    /// Write to many files and a large one, and say whether they are what they should be
    Files(files::Options),
    /// Hold memory, rewrite it, and say whether it is what it should be
    Memory(memory::Options),
    /// Ask a Redis over many connections all the while
    Load(load::Options),
    /// Ping a `memory` and report every pause
    Witness(witness::Options),
    /// Map, share, move and copy memory on many threads, checking every page
    Churn(churn::Options),
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum Part {
    Anna,
    Ben,
}

fn main() -> Result<ExitCode> {
    match Arguments::parse().what {
        What::Redis { address, key } => redis::run(&address, &key),
        What::Count { pause } => count::run(Duration::from_millis(pause)),
        What::Exit { code } => exit::run(code),
        What::Files(options) => files::run(&options),
        What::Append(options) => append::run(&options),
        What::Echo { port } => echo::run(port),
        What::Hold { kind } => hold::run(kind),
        What::Memory(options) => memory::run(&options),
        What::Load(options) => load::run(&options),
        What::Witness(options) => witness::run(&options),
        What::Churn(options) => churn::run(&options),
        What::Family { part: None } => family::head(),
        What::Family {
            part: Some(Part::Anna),
        } => family::anna(),
        What::Family {
            part: Some(Part::Ben),
        } => family::ben(),
    }
}
