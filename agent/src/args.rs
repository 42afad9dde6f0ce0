//! What the agent is started with.

use std::path::{Path, PathBuf};

use anyhow::Context;
use clap::Parser;
use godwit_agent::{Config, ImagesConfig};
use godwit_runtime::memory::Wanted;
use godwit_types::ByteSize;

/// Where `deploy/` puts a CRIU beside the system's own.
const OWN_CRIU: &str = "/usr/local/lib/godwit/criu/bin/criu";

/// Runs the containers of this host for a Godwit cluster.
#[derive(Debug, Parser)]
#[command(name = "godwit-agent", version)]
pub struct Args {
    /// Directory with `config.json`, `ca.pem`, `cert.pem` and `key.pem`
    #[arg(long, value_name = "DIR", env = "GODWIT_CONFIG")]
    config: PathBuf,

    /// Images, layers, containers and the ledger
    #[arg(
        long,
        value_name = "DIR",
        env = "GODWIT_DATA",
        default_value = "/var/lib/godwit"
    )]
    data: PathBuf,

    /// Sockets and network namespaces
    #[arg(
        long,
        value_name = "DIR",
        env = "GODWIT_RUN",
        default_value = "/run/godwit"
    )]
    run: PathBuf,

    /// The cgroup below which every container gets its own
    #[arg(
        long,
        value_name = "NAME",
        env = "GODWIT_CGROUP",
        default_value = "godwit"
    )]
    cgroup: String,

    /// The criu program [default: Godwit's own if it is installed, else `criu` in PATH]
    #[arg(long, value_name = "PATH", env = "GODWIT_CRIU")]
    criu: Option<PathBuf>,

    /// The library preloaded into criu [default: the one beside this program, if there is one]
    #[arg(long, value_name = "PATH", env = "GODWIT_INTERPOSE")]
    interpose: Option<PathBuf>,

    /// The shim program [default: `godwit-shim` beside this program]
    #[arg(long, value_name = "PATH", env = "GODWIT_SHIM")]
    shim: Option<PathBuf>,

    /// Memory that containers which arrive leave for others, as in 2g [default: a tenth of what
    /// is available when one arrives]
    #[arg(long, value_name = "SIZE", env = "GODWIT_MEMORY_RESERVE")]
    memory_reserve: Option<ByteSize>,

    /// How to find out what containers write while their memory is sent: `userfaultfd` (Linux 6.7
    /// or newer), `soft-dirty` (a kernel with CONFIG_MEM_SOFT_DIRTY), `none`: memory is moved in the
    /// freeze; `auto`: the first of these that works
    #[arg(
        long,
        value_name = "HOW",
        env = "GODWIT_TRACKING",
        default_value = "auto"
    )]
    tracking: Wanted,
    /// Registries, mirrors and limits of image transfers, as TOML or JSON
    #[arg(long, value_name = "FILE", env = "GODWIT_IMAGES_CONFIG")]
    images_config: Option<PathBuf>,

    /// Compare all memory of a container that leaves with what came to the other host, while it is
    /// frozen; a difference ends the migration. The freeze then grows with memory
    #[arg(long, env = "GODWIT_VERIFY_MEMORY")]
    verify_memory: bool,
}

impl Args {
    /// Fills in what was not given.
    pub fn config(self) -> anyhow::Result<Config> {
        let program = std::env::current_exe().context("can't find this program's own path")?;
        let beside = |name: &str| program.with_file_name(name);
        Ok(Config {
            config: self.config,
            data: self.data,
            run: self.run,
            cgroup: self.cgroup,
            criu: self.criu.unwrap_or_else(default_criu),
            interpose: self
                .interpose
                .or_else(|| Some(beside("libgodwit_interpose.so")).filter(|path| path.exists())),
            shim: self.shim.unwrap_or_else(|| beside("godwit-shim")),
            memory_reserve: self.memory_reserve.map(|size| size.0),
            tracking: self.tracking,
            images: match &self.images_config {
                Some(path) => ImagesConfig::load(path)?,
                None => ImagesConfig::default(),
            },
            verify_memory: self.verify_memory,
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
    use super::*;

    #[test]
    fn what_is_given_wins_over_the_defaults() {
        let args = Args::parse_from(["godwit-agent", "--config", "/c", "--criu", "/x/criu"]);
        let config = args.config().unwrap();
        assert_eq!(config.criu, PathBuf::from("/x/criu"));
        assert_eq!(config.shim.file_name().unwrap(), "godwit-shim");
        assert_eq!(
            config.shim.parent(),
            std::env::current_exe().unwrap().parent()
        );
    }
}
