//! Programs of others that images come from and go to: Debian's `docker-registry`, `skopeo` and
//! `podman`, each with a storage of its own that goes with it.

mod hostile;

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
pub use hostile::Hostile;

use crate::{command::run, testbed::wait_for};

const PATIENCE: Duration = Duration::from_secs(60);

/// How a registry is to be spoken to.
#[derive(Debug, Clone, Default)]
pub struct Guard {
    /// Certificate and key, PEM. None: plain HTTP.
    pub tls: Option<(PathBuf, PathBuf)>,
    /// Name and password. None: anybody.
    pub user: Option<(String, String)>,
}

/// A `docker-registry` on an address of this machine. Dropped, it ends.
pub struct Registry {
    child: Child,
    /// `address:port`
    pub address: String,
    guard: Guard,
    dir: PathBuf,
}

impl Registry {
    /// Starts it in the namespace of the caller; `dir` is its own.
    pub fn start(dir: &Path, address: Ipv4Addr, guard: Guard) -> Result<Self> {
        fs::create_dir_all(dir)?;
        let port = TcpListener::bind((address, 0))?.local_addr()?.port();
        let address = format!("{address}:{port}");
        let child = launch(dir, &address, &guard)?;
        let registry = Self {
            child,
            address,
            guard,
            dir: dir.to_owned(),
        };
        registry.wait()?;
        Ok(registry)
    }

    fn wait(&self) -> Result<()> {
        wait_for("registry", PATIENCE, || {
            TcpStream::connect(&self.address).is_ok()
        })
        .with_context(|| fs::read_to_string(self.dir.join("log")).unwrap_or_default())
    }

    /// The bytes that it served are in its log: how often a blob was asked for.
    pub fn asked_for(&self, what: &str) -> usize {
        let log = fs::read_to_string(self.dir.join("log")).unwrap_or_default();
        log.lines()
            .filter(|line| line.contains("\"GET ") && line.contains(what))
            .count()
    }

    /// Ends it. Nobody answers on its address then.
    pub fn stop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// On the same address, with what it had.
    pub fn start_again(&mut self) -> Result<()> {
        self.child = launch(&self.dir, &self.address, &self.guard)?;
        self.wait()
    }

    /// `skopeo copy` of something to a repository here.
    pub fn put(&self, from: &str, to: &str, options: &[&str]) -> Result<()> {
        let mut command = skopeo();
        command
            .arg("copy")
            .args(options)
            .arg("--dest-tls-verify=false");
        if let Some((name, password)) = &self.guard.user {
            command.args(["--dest-creds", &format!("{name}:{password}")]);
        }
        command.args([from, &format!("docker://{}/{to}", self.address)]);
        run(command).map(drop)
    }

    /// What `skopeo inspect` says of a repository here.
    pub fn inspect(&self, what: &str) -> Result<serde_json::Value> {
        let mut command = skopeo();
        command.args(["inspect", "--tls-verify=false"]);
        if let Some((name, password)) = &self.guard.user {
            command.args(["--creds", &format!("{name}:{password}")]);
        }
        command.arg(format!("docker://{}/{what}", self.address));
        Ok(serde_json::from_str(&run(command)?)?)
    }
}

fn launch(dir: &Path, address: &str, guard: &Guard) -> Result<Child> {
    let mut config = format!(
        "version: 0.1\nlog:\n  accesslog:\n    disabled: false\nstorage:\n  filesystem:\n    rootdirectory: {}\n  delete:\n    enabled: true\nhttp:\n  addr: {address}\n",
        dir.join("data").display()
    );
    if let Some((certificate, key)) = &guard.tls {
        config += &format!(
            "  tls:\n    certificate: {}\n    key: {}\n",
            certificate.display(),
            key.display()
        );
    }
    if let Some((name, password)) = &guard.user {
        let file = dir.join("htpasswd");
        let mut command = Command::new("htpasswd");
        command.args(["-Bbc"]).arg(&file).args([name, password]);
        run(command)?;
        config += &format!(
            "auth:\n  htpasswd:\n    realm: test\n    path: {}\n",
            file.display()
        );
    }
    let path = dir.join("config.yml");
    fs::write(&path, config)?;
    let log = File::options()
        .create(true)
        .append(true)
        .open(dir.join("log"))?;
    Command::new("setpriv")
        .args(["--pdeathsig", "KILL", "docker-registry", "serve"])
        .arg(path)
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log)
        .spawn()
        .context("`docker-registry` can't be started: `deploy/setup.sh` installs it")
}

impl Drop for Registry {
    fn drop(&mut self) {
        self.stop();
    }
}

fn skopeo() -> Command {
    let mut command = Command::new("skopeo");
    command.arg("--insecure-policy");
    command
}

/// Podman with a storage of its own. Dropped, all of it is gone.
pub struct Podman {
    dir: PathBuf,
}

impl Podman {
    pub fn new(dir: &Path) -> Result<Self> {
        fs::create_dir_all(dir)?;
        fs::write(
            dir.join("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )?;
        Ok(Self {
            dir: dir.to_owned(),
        })
    }

    /// What it prints, if it succeeds.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(self.dir.join("root"))
            .arg("--runroot")
            .arg(self.dir.join("run"))
            .arg("--tmpdir")
            .arg(self.dir.join("tmp"))
            .args(["--storage-driver", "vfs", "--events-backend", "none"])
            .args(["--cgroup-manager", "cgroupfs"]);
        command.args(arguments);
        if matches!(arguments.first(), Some(&"load" | &"pull")) {
            command.arg("--signature-policy");
            command.arg(self.dir.join("policy.json"));
        }
        Ok(run(command)?.trim().to_owned())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        let _ = self.ok(&["rm", "-fa"]);
        let _ = self.ok(&["rmi", "-fa"]);
    }
}
