//! One test host: namespaces that a small process holds open, and programs started in them.

use std::{
    fs::{self, File},
    os::unix::process::CommandExt,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, bail};
use nix::{
    sys::wait::{WaitPidFlag, WaitStatus, waitpid},
    unistd::Pid,
};

use super::Slot;
use crate::command::{run, sh};

/// Holds the namespaces of a host until it is killed, and reaps what is orphaned in them: the
/// first process of a test host, as an init is of a real one.
pub fn hold(ready: &Path) -> Result<()> {
    // As on a real host: CRIU keeps what it learned of the kernel in /run if that is a tmpfs.
    sh("mount -t tmpfs -o mode=755 tmpfs /run")?;
    sh("ip link set lo up")?;
    fs::write(ready, "ready")?;
    loop {
        match waitpid(None::<Pid>, Some(WaitPidFlag::empty())) {
            Ok(WaitStatus::StillAlive) | Err(_) => thread::sleep(Duration::from_millis(20)),
            Ok(_) => {}
        }
    }
}

/// A running test host. Dropped, everything in it ends: the kernel kills a process namespace
/// with its first process.
pub struct Host {
    pub name: String,
    pub address: String,
    /// Its data, run and log directories.
    pub dir: PathBuf,
    holder: Holder,
    port: String,
}

/// Who holds the namespaces: a child of ours, or one that outlived who started it.
enum Holder {
    Child { child: Child, pid: i32 },
    Left { pid: i32 },
}

impl Host {
    /// Makes the namespaces and connects them to the slot's bridge. `lasting` ones survive this
    /// process.
    pub fn start(
        testbed: &Path,
        slot: &Slot,
        number: u8,
        dir: &Path,
        lasting: bool,
    ) -> Result<Self> {
        let name = format!("h{number}");
        fs::create_dir_all(dir)?;
        let ready = dir.join("ready");
        let _ = fs::remove_file(&ready);
        let mut command = Command::new("setpriv");
        if !lasting {
            command.args(["--pdeathsig", "KILL"]);
        }
        command
            .args([
                "unshare",
                "--net",
                "--mount",
                "--pid",
                "--fork",
                "--kill-child",
            ])
            .arg("--mount-proc")
            .arg(testbed)
            .arg("hold")
            .arg(&ready)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(File::create(dir.join("hold.log"))?);
        if lasting {
            command.process_group(0);
        }
        let child = command
            .spawn()
            .context("`setpriv` or `unshare` can't be started")?;
        wait_for("test host", Duration::from_secs(10), || ready.exists())?;
        let pid = only_child(child.id())?;
        let host = Self {
            name,
            address: slot.address(number),
            dir: dir.to_owned(),
            holder: Holder::Child { child, pid },
            port: slot.port(number),
        };
        host.connect(slot)?;
        Ok(host)
    }

    /// A host that another process started.
    pub fn adopt(slot_port: &str, number: u8, address: &str, dir: &Path, pid: i32) -> Self {
        Self {
            name: format!("h{number}"),
            address: address.to_owned(),
            dir: dir.to_owned(),
            holder: Holder::Left { pid },
            port: slot_port.to_owned(),
        }
    }

    fn connect(&self, slot: &Slot) -> Result<()> {
        let (port, bridge, pid) = (&self.port, slot.bridge(), self.pid());
        sh(&format!(
            "ip link add {port} type veth peer name eth0 netns {pid}"
        ))?;
        sh(&format!("ip link set {port} master {bridge} up"))?;
        run(self.command(
            "ip",
            &[
                "addr",
                "add",
                &format!("{}/24", self.address),
                "dev",
                "eth0",
            ],
        ))?;
        run(self.command("ip", &["link", "set", "eth0", "up"]))?;
        Ok(())
    }

    /// The first process's pid, as this process sees it.
    pub fn pid(&self) -> i32 {
        match &self.holder {
            Holder::Child { pid, .. } | Holder::Left { pid } => *pid,
        }
    }

    /// The bridge's port that leads to it, in the namespace of who started the testbed.
    pub fn port(&self) -> &str {
        &self.port
    }

    /// A command that will run inside this host.
    pub fn command(&self, program: impl AsRef<std::ffi::OsStr>, arguments: &[&str]) -> Command {
        let mut command = Command::new("nsenter");
        command
            .args([
                "--target",
                &self.pid().to_string(),
                "--net",
                "--mount",
                "--pid",
                "--",
            ])
            .arg(program)
            .args(arguments);
        command
    }

    /// Starts a daemon inside this host; its log is `NAME.log` in the host's directory.
    pub fn daemon(&self, name: &str, mut command: Command, lasting: bool) -> Result<Child> {
        let log = File::options()
            .append(true)
            .create(true)
            .open(self.dir.join(format!("{name}.log")))?;
        command
            .stdin(Stdio::null())
            .stdout(log.try_clone()?)
            .stderr(log);
        if lasting {
            command.process_group(0);
        }
        command
            .spawn()
            .with_context(|| format!("{name} on {}", self.name))
    }

    /// Pids, as this process sees them, of the processes in this host whose program is this.
    pub fn processes(&self, program: &str) -> Result<Vec<i32>> {
        let namespace = |pid: i32| fs::read_link(format!("/proc/{pid}/ns/net")).ok();
        let mine = namespace(self.pid()).context("host has ended")?;
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?
                .file_name()
                .to_str()
                .and_then(|name| name.parse().ok())
            else {
                continue;
            };
            let is_program = fs::read_link(format!("/proc/{pid}/exe"))
                .is_ok_and(|exe| exe.file_name().is_some_and(|name| name == program));
            if is_program && namespace(pid).as_ref() == Some(&mine) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// Ends everything in it and unplugs it.
    pub fn stop(&mut self) {
        let pid = self.pid();
        let _ = nix::sys::signal::kill(Pid::from_raw(pid), nix::sys::signal::SIGKILL);
        if let Holder::Child { child, .. } = &mut self.holder {
            let _ = child.wait();
        } else {
            let gone = || !Path::new(&format!("/proc/{pid}/ns/pid")).exists();
            let _ = wait_for("test host's end", Duration::from_secs(10), gone);
        }
        // The link goes with the namespace, a little later; a second deletion is harmless.
        let _ = sh(&format!("ip link delete {}", self.port));
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        if matches!(self.holder, Holder::Child { .. }) {
            self.stop();
        }
    }
}

impl Host {
    /// Lets it live on when this value goes.
    pub fn leave(&mut self) {
        self.holder = Holder::Left { pid: self.pid() };
    }
}

fn only_child(pid: u32) -> Result<i32> {
    let path = format!("/proc/{pid}/task/{pid}/children");
    let children = fs::read_to_string(&path).with_context(|| path.clone())?;
    children
        .trim()
        .parse()
        .with_context(|| format!("`{path}`: `{children}`"))
}

/// Waits for a condition, with a deadline: never for a time.
pub fn wait_for(what: &str, patience: Duration, mut check: impl FnMut() -> bool) -> Result<()> {
    let deadline = Instant::now() + patience;
    while !check() {
        if Instant::now() > deadline {
            bail!("{what}: not reached in {} s", patience.as_secs_f32());
        }
        thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}
