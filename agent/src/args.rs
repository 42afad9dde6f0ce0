//! What the agent is started with: the command line, the environment, the settings file, and what is
//! usual, in this order.

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
};

use anyhow::Context;
use clap::{CommandFactory, Parser, Subcommand};
use godwit_agent::{Config, ImagesConfig, Live};
use godwit_daemon::{local, log, settings};
use godwit_runtime::memory::Wanted;
use godwit_types::ByteSize;

use crate::settings::{FILE, Settings};

/// Where `deploy/` puts a CRIU beside the system's own.
const OWN_CRIU: &str = "/usr/local/lib/godwit/criu/bin/criu";
const CONFIG: &str = "/etc/godwit/host";
const DATA: &str = "/var/lib/godwit";
const RUN: &str = "/run/godwit";
const CGROUP: &str = "godwit";
const SOCKET: &str = "/run/godwit/godwit.sock";
const GROUP: &str = "godwit";

/// Runs the containers of this host for a Godwit cluster.
///
/// SIGHUP makes it read its settings file again; containers go on when it ends.
#[derive(Debug, Parser)]
#[command(
    name = "godwit-agent",
    version,
    args_conflicts_with_subcommands = false
)]
pub struct Args {
    #[command(subcommand)]
    pub command: Option<Command>,

    /// A file of settings in TOML [default: /etc/godwit/agent.toml if there is one]
    #[arg(long, global = true, value_name = "FILE", env = "GODWIT_SETTINGS")]
    settings: Option<PathBuf>,

    /// Directory with `config.json`, `ca.pem`, `cert.pem` and `key.pem` [default: /etc/godwit/host]
    #[arg(long, global = true, value_name = "DIR", env = "GODWIT_CONFIG")]
    config: Option<PathBuf>,

    /// Images, layers, containers and the ledger [default: /var/lib/godwit]
    #[arg(
        long,
        global = true,
        visible_alias = "data-root",
        value_name = "DIR",
        env = "GODWIT_DATA"
    )]
    data: Option<PathBuf>,

    /// Sockets and network namespaces [default: /run/godwit]
    #[arg(
        long,
        global = true,
        visible_alias = "run-root",
        value_name = "DIR",
        env = "GODWIT_RUN"
    )]
    run: Option<PathBuf>,

    /// The cgroup below which every container gets its own [default: godwit]
    #[arg(
        long,
        global = true,
        visible_alias = "cgroup-parent",
        value_name = "NAME",
        env = "GODWIT_CGROUP"
    )]
    cgroup: Option<String>,

    /// The criu program [default: Godwit's own if it is installed, else `criu` in PATH]
    #[arg(long, global = true, value_name = "PATH", env = "GODWIT_CRIU")]
    criu: Option<PathBuf>,

    /// The library preloaded into criu [default: the one beside this program, if there is one]
    #[arg(long, global = true, value_name = "PATH", env = "GODWIT_INTERPOSE")]
    interpose: Option<PathBuf>,

    /// The shim program [default: `godwit-shim` beside this program]
    #[arg(long, global = true, value_name = "PATH", env = "GODWIT_SHIM")]
    shim: Option<PathBuf>,

    /// Memory that containers which arrive leave for others, as in 2g [default: a tenth of what
    /// is available when one arrives]
    #[arg(
        long,
        global = true,
        value_name = "SIZE",
        env = "GODWIT_MEMORY_RESERVE"
    )]
    memory_reserve: Option<ByteSize>,

    /// How to find out what containers write while their memory is sent: `userfaultfd` (Linux 6.7
    /// or newer), `soft-dirty` (a kernel with CONFIG_MEM_SOFT_DIRTY), `none`: memory is moved in the
    /// freeze; `auto`: the first of these that works [default: auto]
    #[arg(long, global = true, value_name = "HOW", env = "GODWIT_TRACKING")]
    tracking: Option<Wanted>,

    /// Registries, mirrors and limits of image transfers, as TOML or JSON, in place of the table
    /// `images` of the settings file
    #[arg(long, global = true, value_name = "FILE", env = "GODWIT_IMAGES_CONFIG")]
    images_config: Option<PathBuf>,

    /// Compare all memory of a container that leaves with what came to the other host, while it is
    /// frozen; a difference ends the migration. The freeze then grows with memory
    #[arg(long, global = true, env = "GODWIT_VERIFY_MEMORY")]
    verify_memory: bool,

    /// Serve health and metrics over plain HTTP here, as in 127.0.0.1:7402 [default: nowhere]
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
    pub agent: Config,
    /// What also holds for an agent that runs already.
    pub live: Live,
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
        let program = std::env::current_exe().context("can't find this program's own path")?;
        let beside = |name: &str| program.with_file_name(name);
        let given = |argument: &Option<PathBuf>, setting: Option<PathBuf>, usual: &str| {
            argument.clone().or(setting).unwrap_or_else(|| usual.into())
        };
        let live = Live {
            memory_reserve: self
                .memory_reserve
                .or(file.memory_reserve)
                .map(|size| size.0),
            verify_memory: self.verify_memory || file.verify_memory.unwrap_or(false),
        };
        let group = self.socket_group.clone().or(file.socket_group);
        let (socket, admin) = (file.socket, file.admin);
        let admin = self.admin.clone().or(admin);
        Ok(Wishes {
            agent: Config {
                config: given(&self.config, file.config, CONFIG),
                data: given(&self.data, file.data_root, DATA),
                run: given(&self.run, file.run_root, RUN),
                cgroup: (self.cgroup.clone().or(file.cgroup_parent))
                    .unwrap_or_else(|| CGROUP.to_owned()),
                criu: (self.criu.clone().or(file.criu)).unwrap_or_else(default_criu),
                interpose: (self.interpose.clone().or(file.interpose)).or_else(|| {
                    Some(beside("libgodwit_interpose.so")).filter(|path| path.exists())
                }),
                shim: (self.shim.clone().or(file.shim)).unwrap_or_else(|| beside("godwit-shim")),
                tracking: self.tracking.or(file.tracking).unwrap_or_default(),
                images: match &self.images_config {
                    Some(path) => ImagesConfig::load(path)?,
                    None => file.images.unwrap_or_default(),
                },
                live: live.clone(),
            },
            live,
            log_level: file.log_level,
            metrics: self.metrics.or(file.metrics),
            local: admin.map(|admin| local::Options {
                socket: given(&self.socket, socket, SOCKET),
                group: group.unwrap_or_else(|| GROUP.to_owned()),
                admin,
            }),
        })
    }
}

fn default_criu() -> PathBuf {
    if Path::new(OWN_CRIU).exists() {
        return PathBuf::from(OWN_CRIU);
    }
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path)
        .map(|dir| dir.join("criu"))
        .find(|candidate| candidate.is_file())
        // Not there: the host's facts then say so.
        .unwrap_or_else(|| PathBuf::from("criu"))
}

#[cfg(test)]
mod tests {
    use tempfile::TempDir;

    use super::*;

    fn wishes(arguments: &[&str], file: &str) -> anyhow::Result<Wishes> {
        let dir = TempDir::new().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, file).unwrap();
        let given = ["godwit-agent", "--settings", path.to_str().unwrap()];
        Args::parse_from(given.iter().chain(arguments)).wishes()
    }

    #[test]
    fn the_arguments_are_consistent() {
        Args::command().debug_assert();
    }

    #[test]
    fn the_command_line_wins_over_the_file_and_the_file_over_what_is_usual() {
        let file = "data-root = \"/srv\"\ncgroup-parent = \"boxes\"\nmemory-reserve = \"1g\"\n";
        let wishes = wishes(&["--cgroup", "mine", "--criu", "/x/criu"], file).unwrap();
        let config = wishes.agent;
        assert_eq!(config.criu, PathBuf::from("/x/criu"));
        assert_eq!(config.cgroup, "mine");
        assert_eq!(config.data, PathBuf::from("/srv"));
        assert_eq!(config.config, PathBuf::from(CONFIG));
        assert_eq!(wishes.live.memory_reserve, Some(1 << 30));
        assert_eq!(config.shim.file_name().unwrap(), "godwit-shim");
        assert_eq!(wishes.local, None);
    }

    #[test]
    fn a_local_socket_needs_credentials() {
        let wishes = wishes(&["--admin", "/etc/godwit/admin"], "").unwrap();
        let local = wishes.local.unwrap();
        assert_eq!(local.socket, PathBuf::from(SOCKET));
        assert_eq!(local.group, GROUP);
    }

    #[test]
    fn a_level_that_is_none_is_refused_at_once() {
        let error = wishes(&[], "log-level = \"x=loudly\"\n").unwrap_err();
        assert!(format!("{error:#}").contains("`log-level` is"), "{error:#}");
    }
}
