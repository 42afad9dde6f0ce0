//! What a member is started with: the command line, the environment, the settings file, and what is
//! usual, in this order.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use godwit_daemon::{local, log, settings};

use crate::settings::{FILE, Settings};

const CONFIG: &str = "/etc/godwit/member";
const DATA: &str = "/var/lib/godwit-controller";
const SOCKET: &str = "/run/godwit/godwit.sock";
const GROUP: &str = "godwit";

/// A member of Godwit's Raft group: it knows hosts, containers and networks, and, when it
/// leads, decides.
///
/// Who it is stands in its certificate. Logs go to stderr; GODWIT_LOG says how much (default
/// `info`).
#[derive(Debug, Parser)]
#[command(name = "godwit-controller", version)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// A file of settings in TOML [default: /etc/godwit/controller.toml if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "GODWIT_SETTINGS")]
    settings: Option<PathBuf>,

    /// The directory that `godwit cluster init` wrote for this member [default:
    /// /etc/godwit/member]
    #[arg(long, global = true, value_name = "DIR", env = "GODWIT_CONFIG")]
    config: Option<PathBuf>,

    /// Where its log and state are kept [default: /var/lib/godwit-controller]
    #[arg(
        long,
        global = true,
        visible_alias = "data-root",
        value_name = "DIR",
        env = "GODWIT_DATA"
    )]
    data: Option<PathBuf>,

    /// Serve health and metrics over plain HTTP here, as in 127.0.0.1:7403 [default: nowhere]
    #[arg(
        long,
        global = true,
        value_name = "ADDRESS:PORT",
        env = "GODWIT_METRICS"
    )]
    metrics: Option<SocketAddr>,

    /// Serve a local socket for `godwit --host unix://PATH` with the credentials in this directory,
    /// the `admin` of `godwit cluster init` [default: no local socket]
    #[arg(long, global = true, value_name = "DIR", env = "GODWIT_ADMIN")]
    admin: Option<PathBuf>,

    /// Where the local socket is [default: /run/godwit/godwit.sock]
    #[arg(long, global = true, value_name = "PATH", env = "GODWIT_SOCKET")]
    socket: Option<PathBuf>,

    /// Who may open the local socket beside root [default: godwit]
    #[arg(long, global = true, value_name = "GROUP", env = "GODWIT_SOCKET_GROUP")]
    socket_group: Option<String>,
}

#[derive(Debug, Clone, Subcommand)]
pub enum Command {
    /// Read the settings and the credentials, say what is wrong with them, and end
    Check,
    /// Print the manual page
    #[command(hide = true)]
    Manual,
}

/// All of it together.
#[derive(Debug)]
pub struct Wishes {
    pub config: PathBuf,
    pub data: PathBuf,
    pub log_level: Option<String>,
    pub metrics: Option<SocketAddr>,
    pub local: Option<local::Options>,
}

impl Args {
    /// The manual page, as troff.
    pub fn manual() -> anyhow::Result<()> {
        let page = clap_mangen::Man::new(Self::command()).section("8");
        Ok(page.render(&mut std::io::stdout())?)
    }

    /// Reads the settings file, and fills in what is given nowhere.
    pub fn wishes(&self) -> anyhow::Result<Wishes> {
        let path = self.settings.as_deref();
        let file: Settings = settings::read(path.unwrap_or(Path::new(FILE)), path.is_some())?;
        if let Some(level) = &file.log_level {
            log::check(level).with_context(|| format!("`log-level` is `{level}`"))?;
        }
        let given = |argument: &Option<PathBuf>, setting: Option<PathBuf>, usual: &str| {
            argument.clone().or(setting).unwrap_or_else(|| usual.into())
        };
        let (socket, group) = (file.socket, file.socket_group);
        let admin = self.admin.clone().or(file.admin);
        Ok(Wishes {
            config: given(&self.config, file.config, CONFIG),
            data: given(&self.data, file.data_root, DATA),
            log_level: file.log_level,
            metrics: self.metrics.or(file.metrics),
            local: admin.map(|admin| local::Options {
                socket: given(&self.socket, socket, SOCKET),
                group: (self.socket_group.clone().or(group)).unwrap_or_else(|| GROUP.to_owned()),
                admin,
            }),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }
}
