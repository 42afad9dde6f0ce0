//! How the first process runs, and what it may.

use std::{fs, path::PathBuf};

use anyhow::{Context, bail, ensure};
use godwit_types::{
    ByteSize, Device, ProcessOptions, Seccomp, Signal, Tmpfs, Ulimit, parse_sysctl, parse_ulimit,
};

/// The longest file of variables, and the longest profile.
const LONGEST: u64 = 1 << 20;

#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Flags {
    /// Read environment variables from a file, KEY[=VALUE] a line
    #[arg(long = "env-file", value_name = "FILE")]
    env_files: Vec<PathBuf>,
    /// The directory to start in [default: the image's]
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who runs it: USER[:GROUP], names as the image has them, or numbers [default: the image's]
    #[arg(short, long, value_name = "USER")]
    user: Option<String>,
    /// The program in front of COMMAND [default: the image's]; empty for none
    #[arg(long, value_name = "PROGRAM")]
    entrypoint: Option<String>,
    /// Its host name [default: its id]
    #[arg(short = 'h', long, value_name = "NAME")]
    hostname: Option<String>,
    /// Run a reaper of orphans as its first process
    #[arg(long)]
    init: bool,
    /// Give it everything that its host has
    #[arg(long)]
    privileged: bool,
    /// Give it a capability, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_add: Vec<String>,
    /// Take a capability from it, or ALL
    #[arg(long, value_name = "CAPABILITY")]
    cap_drop: Vec<String>,
    /// seccomp=FILE, seccomp=unconfined or no-new-privileges
    #[arg(long = "security-opt", value_name = "OPTION")]
    security: Vec<String>,
    /// Mount its root file system read-only
    #[arg(long)]
    read_only: bool,
    /// Mount a file system in memory, as in /run:size=64m
    #[arg(long, value_name = "PATH[:OPTIONS]")]
    tmpfs: Vec<Tmpfs>,
    /// Room in /dev/shm [default: 64m]
    #[arg(long, value_name = "SIZE")]
    shm_size: Option<ByteSize>,
    /// Bound a resource of each process, as in nofile=1024:2048
    #[arg(long = "ulimit", value_name = "NAME=SOFT[:HARD]", value_parser = parse_ulimit)]
    ulimits: Vec<(String, Ulimit)>,
    /// Set a kernel parameter of its own namespaces, as in net.core.somaxconn=1024
    #[arg(long = "sysctl", value_name = "NAME=VALUE", value_parser = parse_sysctl)]
    sysctls: Vec<(String, String)>,
    /// Give it a device of its host
    #[arg(long = "device", value_name = "HOST[:CONTAINER][:rwm]")]
    devices: Vec<Device>,
    /// What asks it to end [default: the image's, or SIGTERM]
    #[arg(long, value_name = "SIGNAL")]
    stop_signal: Option<Signal>,
    /// How long it has for its end before it is killed [default: 10]
    #[arg(long, value_name = "SECONDS")]
    stop_timeout: Option<u32>,
}

impl Flags {
    /// `KEY[=VALUE]` of every file, in order, as Docker reads them.
    pub fn env(&self) -> anyhow::Result<Vec<String>> {
        let mut entries = Vec::new();
        for path in &self.env_files {
            let text = read(path).with_context(|| format!("`--env-file {}`", path.display()))?;
            entries.extend(env_lines(&text).map(str::to_owned));
        }
        Ok(entries)
    }

    pub fn options(self) -> anyhow::Result<ProcessOptions> {
        let (seccomp, no_new_privileges) = security(&self.security)?;
        let options = ProcessOptions {
            entrypoint: self.entrypoint.map(|program| match program.as_str() {
                "" => Vec::new(),
                _ => vec![program],
            }),
            working_dir: self.workdir.unwrap_or_default(),
            user: self.user.unwrap_or_default(),
            hostname: self.hostname.unwrap_or_default(),
            init: self.init,
            privileged: self.privileged,
            cap_add: self.cap_add,
            cap_drop: self.cap_drop,
            seccomp,
            no_new_privileges,
            read_only: self.read_only,
            tmpfs: self.tmpfs,
            shm_size: self.shm_size,
            ulimits: self.ulimits.into_iter().collect(),
            sysctls: self.sysctls.into_iter().collect(),
            devices: self.devices,
            stop_signal: self.stop_signal,
            stop_timeout: self.stop_timeout,
            health: None,
        };
        options.check()?;
        Ok(options)
    }
}

/// Blank lines and comments say nothing; space in front of a name is no part of it.
fn env_lines(text: &str) -> impl Iterator<Item = &str> {
    let lines = text.trim_start_matches('\u{feff}').lines();
    lines
        .map(str::trim_start)
        .filter(|line| !line.is_empty() && !line.starts_with('#'))
}

fn security(given: &[String]) -> anyhow::Result<(Seccomp, bool)> {
    let mut seccomp = Seccomp::Default;
    let mut no_new_privileges = false;
    for option in given {
        match option.split_once(['=', ':']).unwrap_or((option, "")) {
            ("no-new-privileges", "" | "true") => no_new_privileges = true,
            ("no-new-privileges", "false") => no_new_privileges = false,
            ("seccomp", "unconfined") => seccomp = Seccomp::Unconfined,
            ("seccomp", "builtin") => seccomp = Seccomp::Default,
            ("seccomp", path) if !path.is_empty() => {
                let path = PathBuf::from(path);
                let text = read(&path)
                    .with_context(|| format!("`--security-opt seccomp={}`", path.display()))?;
                let json: serde_json::Value = serde_json::from_str(&text).with_context(|| {
                    format!("`--security-opt seccomp={}` is not JSON", path.display())
                })?;
                ensure!(
                    json.is_object(),
                    "`--security-opt seccomp={}` is not a profile",
                    path.display()
                );
                seccomp = Seccomp::Profile(text);
            }
            _ => bail!(
                "`--security-opt {}` is not supported: seccomp=FILE, seccomp=unconfined or \
                 no-new-privileges",
                option.escape_debug()
            ),
        }
    }
    Ok((seccomp, no_new_privileges))
}

fn read(path: &PathBuf) -> anyhow::Result<String> {
    let length = fs::metadata(path)?.len();
    ensure!(length <= LONGEST, "it has more than {LONGEST} bytes");
    Ok(fs::read_to_string(path)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_read_from_files_as_docker_reads_them() {
        let text = "\u{feff}A=1\n# comment\n\n  B=x y \nHOME\n";
        let lines: Vec<_> = env_lines(text).collect();
        assert_eq!(lines, ["A=1", "B=x y ", "HOME"]);
    }

    #[test]
    fn security_options_that_are_not_known_are_refused_by_name() {
        let of = |given: &[&str]| {
            let given: Vec<_> = given.iter().map(|&option| option.to_owned()).collect();
            security(&given)
        };
        assert_eq!(
            of(&["seccomp=unconfined", "no-new-privileges"]).unwrap(),
            (Seccomp::Unconfined, true)
        );
        let error = of(&["apparmor=x"]).unwrap_err().to_string();
        assert!(error.contains("apparmor=x"), "{error}");
        assert!(of(&["seccomp=/none/such"]).is_err() && of(&["seccomp="]).is_err());
    }
}
