//! `godwit completion`.

use clap::CommandFactory;
use clap_complete::Shell;

use crate::{options::Options, output};

/// Print a script that completes this program's arguments in a shell
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(value_enum)]
    shell: Shell,
}

pub fn run(args: Args) -> anyhow::Result<u8> {
    // Into memory first: the generator panics when its output is closed.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Options::command(), "godwit", &mut script);
    output::bytes(&mut std::io::stdout().lock(), &script)?;
    Ok(0)
}
