//! The arguments that every command takes, and what they make available to it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{Parser, ValueEnum};
use godwit_cli::client::Cluster;

use crate::commands::Command;

/// Run containers on a cluster of hosts and move them between hosts while they run
#[derive(Debug, Parser)]
#[command(name = "godwit", version, max_term_width = 100)]
pub struct Options {
    #[command(flatten)]
    pub global: Global,
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, clap::Args)]
pub struct Global {
    /// Directory with the cluster's addresses and your credentials [default:
    /// $XDG_CONFIG_HOME/godwit or ~/.config/godwit]
    #[arg(long, global = true, value_name = "DIR", env = "GODWIT_CONFIG")]
    config: Option<PathBuf>,
    /// How results are printed
    #[arg(long, global = true, value_enum, default_value_t = Format::Table)]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// For people
    Table,
    /// For programs: everything that is known
    Json,
}

impl Global {
    /// The cluster that the configuration directory names.
    pub fn cluster(&self) -> anyhow::Result<Cluster> {
        Ok(Cluster::open(&self.config_dir()?)?)
    }

    /// Where addresses and credentials are.
    pub fn config_dir(&self) -> anyhow::Result<PathBuf> {
        if let Some(dir) = self
            .config
            .as_ref()
            .filter(|dir| !dir.as_os_str().is_empty())
        {
            return Ok(dir.clone());
        }
        let variable = |name| env::var_os(name).map(PathBuf::from);
        default_dir(
            variable("XDG_CONFIG_HOME").as_deref(),
            variable("HOME").as_deref(),
        )
        .context("no configuration directory: give `--config` or set GODWIT_CONFIG")
    }
}

fn default_dir(xdg: Option<&Path>, home: Option<&Path>) -> Option<PathBuf> {
    // The XDG specification has relative paths ignored.
    let xdg = xdg.filter(|dir| dir.is_absolute()).map(Path::to_path_buf);
    let home = home
        .filter(|dir| dir.is_absolute())
        .map(|dir| dir.join(".config"));
    xdg.or(home).map(|dir| dir.join("godwit"))
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory;

    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Options::command().debug_assert();
    }

    #[test]
    fn the_directory_follows_xdg() {
        let dir = |xdg: Option<&str>, home: Option<&str>| {
            default_dir(xdg.map(Path::new), home.map(Path::new))
        };
        assert_eq!(dir(Some("/x"), Some("/h")), Some("/x/godwit".into()));
        assert_eq!(dir(Some("x"), Some("/h")), Some("/h/.config/godwit".into()));
        assert_eq!(dir(None, None), None);
    }

    #[test]
    fn a_containers_own_options_are_left_to_it() {
        let line = [
            "godwit",
            "run",
            "-d",
            "--memory",
            "64m",
            "redis",
            "redis-server",
            "--save",
            "-d",
        ];
        let options = Options::try_parse_from(line).unwrap();
        let Command::Run(run) = options.command else {
            panic!("{options:?}");
        };
        assert!(run.detach);
        assert_eq!(run.command, ["redis-server", "--save", "-d"]);
        assert!(Options::try_parse_from(["godwit", "run", "--memory", "much", "x"]).is_err());
    }
}
