//! `godwit-agent check`: what would keep the agent from starting, without starting it.

use std::{
    os::unix::fs::PermissionsExt,
    path::{Path, PathBuf},
};

use anyhow::bail;
use godwit_agent::Agent;
use godwit_proto::failure::chain;

use crate::args::Args;

/// A line for each thing, and an error if one of them is wrong.
pub fn run(args: &Args) -> anyhow::Result<()> {
    let wishes = args.wishes()?;
    let config = &wishes.agent;
    let mut wrong = 0;
    let mut say = |what: &str, result: Result<String, String>| match result {
        Ok(found) => println!("ok     {what}: {found}"),
        Err(reason) => {
            wrong += 1;
            println!("wrong  {what}: {reason}");
        }
    };
    say(
        "credentials",
        Agent::identity(config)
            .map(|(identity, listen)| format!("{identity}, listens on {listen}"))
            .map_err(|error| chain(&error)),
    );
    say("criu", program(&config.criu));
    say("shim", program(&config.shim));
    say(
        "data root",
        directory(&config.data).map(|found| found.display().to_string()),
    );
    if let Some(local) = &wishes.local {
        let found = local.admin.join("config.json").is_file();
        say(
            "local socket",
            found
                .then(|| format!("{} for group {}", local.socket.display(), local.group))
                .ok_or_else(|| format!("no `config.json` in `{}`", local.admin.display())),
        );
    }
    match wrong {
        0 => Ok(()),
        1 => bail!("1 thing is wrong"),
        more => bail!("{more} things are wrong"),
    }
}

fn program(path: &Path) -> Result<String, String> {
    let found = path
        .metadata()
        .map_err(|error| format!("`{}`: {error}", path.display()))?;
    if found.is_file() && found.permissions().mode() & 0o111 != 0 {
        Ok(path.display().to_string())
    } else {
        Err(format!("`{}` is no program", path.display()))
    }
}

/// The directory, or the one that is there of those it would be made in.
fn directory(path: &Path) -> Result<PathBuf, String> {
    let nearest = path.ancestors().find(|dir| dir.exists());
    match nearest {
        Some(dir) if dir.is_dir() => Ok(path.to_owned()),
        Some(file) => Err(format!("`{}` is no directory", file.display())),
        None => Err(format!("`{}` can't be made", path.display())),
    }
}
