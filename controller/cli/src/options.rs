//! The arguments that every command takes, and what they make available to it.

use std::{
    env,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::Parser;
use godwit_cli::{
    client::Cluster, door::Local, error::ClientError, membership, template::Template,
};
use godwit_types::MemberRecord;

use crate::{commands::Command, output};

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
    /// A daemon's socket on this machine, as in unix:///run/godwit/godwit.sock [default: that one
    /// where there is no configuration directory]
    #[arg(
        id = "socket",
        short = 'H',
        long = "host",
        value_name = "unix://PATH",
        env = "GODWIT_HOST"
    )]
    socket: Option<Local>,
    /// How results are printed: `table`, `json`, or a template of Go, as in `{{.Name}}`
    #[arg(long, global = true, value_name = "FORMAT", value_parser = parse_format,
          default_value = "table")]
    pub format: Format,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// For people
    Table,
    /// For programs: everything that is known, or what a template takes of it
    Json,
}

fn parse_format(text: &str) -> Result<Format, String> {
    match text {
        "table" => Ok(Format::Table),
        "json" => Ok(Format::Json),
        template if template.contains("{{") => {
            let template = Template::new(template).map_err(|error| error.to_string())?;
            output::set_template(template);
            Ok(Format::Json)
        }
        _ => Err("it is neither `table` nor `json` nor a template".to_owned()),
    }
}

impl Global {
    /// The cluster that the configuration directory names.
    pub fn cluster(&self) -> anyhow::Result<Cluster> {
        if let Some(socket) = &self.socket {
            return Ok(Cluster::local(socket));
        }
        let opened = self.config_dir().map(|dir| Cluster::open(&dir));
        match opened {
            // Nobody said where the cluster is: where this machine is part of one, it is that.
            Err(_) | Ok(Err(ClientError::NoConfig { .. })) if self.config.is_none() => {
                match Local::usual() {
                    Some(socket) => Ok(Cluster::local(&socket)),
                    None => Ok(opened??),
                }
            }
            opened => Ok(opened??),
        }
    }

    /// Brings the addresses of the members in the configuration directory up to date.
    pub fn refresh(&self, members: &[MemberRecord]) {
        let Ok(dir) = self.config_dir() else { return };
        if self.socket.is_some() {
            return;
        }
        match membership::refresh(&dir, members) {
            Ok(false) => {}
            Ok(true) => output::note(format_args!(
                "note: the members have changed; `{}` names them now",
                dir.display()
            )),
            Err(error) => output::note(format_args!(
                "note: the members have changed, and `{}` still names the old ones: {error}",
                dir.display()
            )),
        }
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
