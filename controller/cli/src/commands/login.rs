//! `godwit login`.

use std::io::{self, BufRead, IsTerminal, Read, Write};

use anyhow::{Context, bail};
use godwit_cli::{
    images::{self, Where},
    registries::Registries,
};
use godwit_types::{ImageOrder, RegistryCredentials};

use crate::{
    options::Global,
    output::{self, failure},
};

/// Keep credentials for a registry
///
/// They are tried from a host of the cluster first, and kept in your configuration directory.
#[derive(Debug, clap::Args)]
pub struct Args {
    #[arg(short, long)]
    username: Option<String>,
    /// Others on this machine can see it; prefer `--password-stdin`
    #[arg(short, long, conflicts_with = "password_stdin")]
    password: Option<String>,
    /// Read the password from standard input
    #[arg(long)]
    password_stdin: bool,
    /// HOST[:PORT] [default: the hosts' default registry]
    #[arg(value_name = "REGISTRY")]
    registry: Option<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let dir = global.config_dir()?;
    let mut registries = Registries::open(&dir)?;
    let mut cluster = global.cluster()?;
    let username = match args.username {
        Some(username) => username,
        None if args.password_stdin => bail!("`--password-stdin` goes with `--username`"),
        None => ask("Username: ")?,
    };
    let password = match args.password {
        Some(password) => password,
        None if args.password_stdin => {
            let mut text = String::new();
            io::stdin()
                .take(64 << 10)
                .read_to_string(&mut text)
                .context("can't read the password")?;
            text.trim_end_matches(['\r', '\n']).to_owned()
        }
        None => bail!(
            "give the password with `--password-stdin`, as in `godwit login -u NAME --password-stdin REGISTRY < FILE`"
        ),
    };
    if username.is_empty() || password.is_empty() {
        bail!("the name and the password must not be empty");
    }
    let credentials = RegistryCredentials { username, password };
    let order = ImageOrder::Login {
        registry: args.registry.clone(),
        credentials: credentials.clone(),
    };
    let ignore = |_: &_| Ok::<_, anyhow::Error>(());
    let results = images::order(&mut cluster, Where::default(), &order, ignore).await?;
    if let Some(found) = images::failure(&results) {
        failure::report(&anyhow::Error::new(found.clone()).context("not logged in"));
        return Ok(1);
    }
    registries.keep(args.registry.as_deref().unwrap_or_default(), credentials)?;
    output::line("Login Succeeded")?;
    Ok(0)
}

fn ask(prompt: &str) -> anyhow::Result<String> {
    if !io::stdin().is_terminal() {
        bail!("standard input is no terminal: give `--username` and `--password-stdin`");
    }
    eprint!("{prompt}");
    io::stderr().flush().ok();
    let mut line = String::new();
    io::stdin()
        .lock()
        .read_line(&mut line)
        .context("can't read from the terminal")?;
    Ok(line.trim().to_owned())
}
