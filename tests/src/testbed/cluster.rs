//! A whole cluster: hosts on one bridge, a member and an agent on each, and the command line to
//! speak to it.

use std::{
    fs,
    path::{Path, PathBuf},
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, bail, ensure};
use nix::{
    sys::signal::{Signal, kill},
    unistd::Pid,
};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::{Host, Slot, cgroups, host::wait_for, pauses};
use crate::{
    archive,
    command::{output, run, sh},
    programs::Programs,
};

const MEMBER_PORT: u16 = 7600;
const AGENT_PORT: u16 = 7700;
/// How long the cluster may take for anything a test waits for.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// What to start.
#[derive(Debug, Clone)]
pub struct Options {
    pub hosts: u8,
    pub members: u8,
    /// Goes on after this process.
    pub lasting: bool,
    /// Set for the agent of a host, by its number.
    pub agent_env: Vec<(u8, String, String)>,
    /// Given to the agent of a host in place of a CRIU that works.
    pub agent_criu: Vec<(u8, PathBuf)>,
    /// Given to the agent of a host besides.
    pub agent_arguments: Vec<(u8, String)>,
    /// Hosts whose data is on a file system of its own of this many bytes.
    pub small: Vec<(u8, u64)>,
    /// Hosts whose member's data is.
    pub small_members: Vec<(u8, u64)>,
    /// Where everything is kept. None: a directory of its own, removed at the end.
    pub dir: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            hosts: 3,
            members: 3,
            lasting: false,
            agent_env: Vec::new(),
            agent_criu: Vec::new(),
            agent_arguments: Vec::new(),
            small: Vec::new(),
            small_members: Vec::new(),
            dir: None,
        }
    }
}

/// A running cluster. Dropped, it ends and leaves nothing, unless it is lasting.
pub struct Cluster {
    slot: Slot,
    dir: PathBuf,
    pub hosts: Vec<Host>,
    daemons: Vec<Child>,
    programs: Programs,
    agent_criu: Vec<(u8, PathBuf)>,
    agent_arguments: Vec<(u8, String)>,
    lasting: bool,
    keep_dir: bool,
}

/// `testbed.json`: what a later process needs to end a lasting cluster.
#[derive(Serialize, Deserialize)]
struct Left {
    slot: u8,
    hosts: Vec<LeftHost>,
}

#[derive(Serialize, Deserialize)]
struct LeftHost {
    number: u8,
    pid: i32,
}

impl Cluster {
    pub fn start(options: Options) -> Result<Self> {
        ensure!(
            nix::unistd::geteuid().is_root(),
            "test hosts need root: network and mount namespaces, cgroups, CRIU; try it with sudo"
        );
        let programs = Programs::find()?;
        let slot = Slot::take()?;
        let keep_dir = options.dir.is_some();
        let dir = options.dir.clone().unwrap_or_else(|| {
            std::env::temp_dir().join(format!("godwit-testbed/cluster-{}", slot.number()))
        });
        let _ = fs::remove_dir_all(&dir);
        fs::create_dir_all(&dir)?;
        let mut cluster = Self {
            slot,
            dir,
            hosts: Vec::new(),
            daemons: Vec::new(),
            programs,
            agent_criu: options.agent_criu.clone(),
            agent_arguments: options.agent_arguments.clone(),
            lasting: false,
            keep_dir,
        };
        cluster.underlay()?;
        cluster.init(&options)?;
        for number in 1..=options.hosts {
            let dir = cluster.dir.join(format!("h{number}"));
            let host = Host::start(
                &cluster.programs.testbed,
                &cluster.slot,
                number,
                &dir,
                options.lasting,
            )?;
            cluster.hosts.push(host);
        }
        let data = options.small.iter().map(|small| ("data", small));
        let member = options.small_members.iter().map(|small| ("member", small));
        for (what, (number, bytes)) in data.chain(member) {
            let host = cluster.host(*number);
            let data = host.dir.join(what);
            fs::create_dir_all(&data)?;
            let size = format!("size={bytes}");
            let mut mount = host.command("mount", &["-t", "tmpfs", "-o", &size, "tmpfs"]);
            mount.arg(data);
            run(mount)?;
        }
        for number in 1..=options.members {
            cluster.start_member(number, options.lasting)?;
        }
        for number in 1..=options.hosts {
            let env: Vec<(String, String)> = options
                .agent_env
                .iter()
                .filter(|(host, ..)| *host == number)
                .map(|(_, key, value)| (key.clone(), value.clone()))
                .collect();
            cluster.start_agent(number, &env, options.lasting)?;
        }
        cluster.wait_for_hosts(options.hosts)?;
        if options.lasting {
            cluster.lasting = true;
            cluster.write_left()?;
        }
        Ok(cluster)
    }

    fn underlay(&self) -> Result<()> {
        let bridge = self.slot.bridge();
        sh(&format!(
            "ip link add {bridge} type bridge forward_delay 0 stp_state 0"
        ))?;
        sh(&format!(
            "ip addr add {}/24 dev {bridge}",
            self.slot.address(254)
        ))?;
        sh(&format!("ip link set {bridge} up"))?;
        Ok(())
    }

    fn init(&self, options: &Options) -> Result<()> {
        let mut command = Command::new(&self.programs.godwit);
        command
            .args(["cluster", "init", "--name", "testbed", "--dir"])
            .arg(self.config_dir());
        for number in 1..=options.members {
            let address = self.slot.address(number);
            command.args(["--member", &format!("m{number}={address}:{MEMBER_PORT}")]);
        }
        for number in 1..=options.hosts {
            let address = self.slot.address(number);
            command.args(["--host", &format!("h{number}={address}:{AGENT_PORT}")]);
        }
        run(command)?;
        Ok(())
    }

    pub fn config_dir(&self) -> PathBuf {
        self.dir.join("config")
    }

    pub fn admin_dir(&self) -> PathBuf {
        self.config_dir().join("admin")
    }

    /// The cgroup of everything in it, below every root.
    pub fn cgroup(&self) -> String {
        self.slot.cgroup()
    }

    /// An address of the machine that its hosts reach: where a counterpart of theirs may serve.
    pub fn outside(&self) -> std::net::Ipv4Addr {
        let address = self.slot.address(254).parse();
        address.unwrap_or(std::net::Ipv4Addr::LOCALHOST)
    }

    /// The bridge between its hosts.
    pub fn bridge(&self) -> String {
        self.slot.bridge()
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    pub fn programs(&self) -> &Programs {
        &self.programs
    }

    pub fn host(&self, number: u8) -> &Host {
        &self.hosts[usize::from(number) - 1]
    }

    /// `198.18.N.H:7600`
    pub fn member_address(&self, number: u8) -> String {
        format!("{}:{MEMBER_PORT}", self.slot.address(number))
    }

    /// `198.18.N.H:7700`
    pub fn agent_address(&self, number: u8) -> String {
        format!("{}:{AGENT_PORT}", self.slot.address(number))
    }

    /// The command that starts a host's member.
    pub fn member_command(&self, number: u8) -> Command {
        let host = self.host(number);
        let mut command = host.command(&self.programs.controller, &[]);
        command
            .arg("--config")
            .arg(self.config_dir().join(format!("members/m{number}")));
        command.arg("--data").arg(host.dir.join("member"));
        command.env(pauses::VARIABLE, host.dir.join(pauses::DIRECTORY));
        command
    }

    pub fn start_member(&mut self, number: u8, lasting: bool) -> Result<()> {
        let command = self.member_command(number);
        let child = self.host(number).daemon("member", command, lasting)?;
        self.daemons.push(child);
        Ok(())
    }

    /// The command that starts a host's agent.
    pub fn agent_command(&self, number: u8) -> Command {
        let host = self.host(number);
        let mut command = host.command(&self.programs.agent, &[]);
        command
            .arg("--config")
            .arg(self.config_dir().join(format!("hosts/h{number}")));
        command.arg("--data").arg(host.dir.join("data"));
        command.arg("--run").arg(host.dir.join("run"));
        command.args(["--cgroup", &format!("{}/h{number}", self.slot.cgroup())]);
        command.env(pauses::VARIABLE, host.dir.join(pauses::DIRECTORY));
        let other = self.agent_criu.iter().find(|(host, _)| *host == number);
        let criu = other.map_or(&self.programs.criu, |(_, criu)| criu);
        command.arg("--criu").arg(criu);
        let others = self.agent_arguments.iter();
        command.args(
            others
                .filter(|(host, _)| *host == number)
                .map(|(_, text)| text),
        );
        command
    }

    pub fn start_agent(
        &mut self,
        number: u8,
        env: &[(String, String)],
        lasting: bool,
    ) -> Result<()> {
        let mut command = self.agent_command(number);
        command.envs(env.iter().cloned());
        let child = self.host(number).daemon("agent", command, lasting)?;
        self.daemons.push(child);
        Ok(())
    }

    /// SIGKILL, as the kernel's out-of-memory killer would.
    pub fn kill(&mut self, number: u8, program: &str) -> Result<()> {
        let pids = self.host(number).processes(program)?;
        ensure!(!pids.is_empty(), "no `{program}` runs on h{number}");
        for pid in pids {
            kill(Pid::from_raw(pid), Signal::SIGKILL)?;
        }
        let host = self.host(number);
        wait_for("the end of a killed program", PATIENCE, || {
            host.processes(program).is_ok_and(|left| left.is_empty())
        })
    }

    /// The shim of a container on a host, by the container's full id: no pager, which is the same
    /// program.
    pub fn shims(&self, number: u8, id: &str) -> Result<Vec<i32>> {
        let mut pids = self.host(number).processes("godwit-shim")?;
        pids.retain(|pid| {
            let line = fs::read_to_string(format!("/proc/{pid}/cmdline"));
            line.is_ok_and(|line| !line.contains("--pager") && line.contains(id))
        });
        Ok(pids)
    }

    /// SIGKILL to the shim of a container.
    pub fn kill_shim(&self, number: u8, container: &str) -> Result<()> {
        let id = self.id(container)?;
        let pids = self.shims(number, &id)?;
        ensure!(!pids.is_empty(), "`{container}` has no shim on h{number}");
        for pid in &pids {
            kill(Pid::from_raw(*pid), Signal::SIGKILL)?;
        }
        wait_for("the end of a killed shim", PATIENCE, || {
            let left = self.shims(number, &id).unwrap_or_default();
            pids.iter().all(|pid| !left.contains(pid))
        })
    }

    pub fn wait_for_hosts(&self, count: u8) -> Result<()> {
        let mut last = String::new();
        let up = wait_for("every host up", PATIENCE, || {
            match self.json(&["host", "ls"]) {
                Ok(hosts) => {
                    last = hosts.to_string();
                    let up = |host: &&Value| host["up"] == Value::Bool(true);
                    list(&hosts).iter().filter(up).count() == usize::from(count)
                }
                Err(error) => {
                    last = format!("{error:#}");
                    false
                }
            }
        });
        up.with_context(|| format!("{last}; logs are in `{}`", self.dir.display()))
    }

    /// The command line as a person on this machine would use it.
    pub fn godwit(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(&self.programs.godwit);
        command
            .arg("--config")
            .arg(self.admin_dir())
            .args(arguments);
        command
    }

    /// What it prints, if it succeeds.
    pub fn ok(&self, arguments: &[&str]) -> Result<String> {
        Ok(run(self.godwit(arguments))?.trim().to_owned())
    }

    /// What it does, whatever that is.
    pub fn output(&self, arguments: &[&str]) -> Result<Output> {
        output(&mut self.godwit(arguments))
    }

    /// Its error text; an error if it succeeds.
    pub fn refused(&self, arguments: &[&str]) -> Result<String> {
        let output = self.output(arguments)?;
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        if output.status.success() {
            bail!("`godwit {}` succeeded", arguments.join(" "));
        }
        Ok(text)
    }

    /// What it prints with `--format json`.
    pub fn json(&self, arguments: &[&str]) -> Result<Value> {
        let mut all = vec!["--format", "json"];
        all.extend(arguments);
        let text = self.ok(&all)?;
        serde_json::from_str(&text).with_context(|| format!("`{text}` is not JSON"))
    }

    /// Loads an image archive onto every host.
    pub fn load_image(&self, archive: &Path) -> Result<()> {
        self.ok(&["image", "load", "-i", &archive.display().to_string()])
            .map(drop)
    }

    /// Builds the workload's image and loads it onto every host.
    pub fn load_workload(&self) -> Result<()> {
        let path = self.dir.join("workload.tar");
        archive::write(&path, "workload", &self.programs.workload)?;
        self.load_image(&path)
    }

    /// Moves a container and insists that it arrived. Answers the migration.
    pub fn migrate(&self, container: &str, to: u8) -> Result<Value> {
        let moved = self.json(&["migrate", container, "--to", &format!("h{to}")])?;
        ensure!(moved["phase"] == "done", "migration ended as {moved}");
        Ok(moved)
    }

    /// A container's full id.
    pub fn id(&self, container: &str) -> Result<String> {
        let view = self.json(&["inspect", container])?;
        view["id"].as_str().map(str::to_owned).context("no id")
    }

    /// A container's address in its network.
    pub fn address(&self, container: &str) -> Result<String> {
        let view = self.json(&["inspect", container])?;
        let address = view["spec"]["network"]["address"].as_str();
        address.map(str::to_owned).context("no address")
    }

    /// The processes in a container's cgroup, whichever host it is on.
    pub fn processes_of(&self, id: &str) -> Result<Vec<i32>> {
        let cgroup = format!("/{}/", self.cgroup());
        // Groups are named by the beginning of the id.
        let short = id.get(..12).unwrap_or(id);
        let mut found = Vec::new();
        for entry in fs::read_dir("/proc")? {
            let Some(pid) = entry?.file_name().to_str().and_then(|n| n.parse().ok()) else {
                continue;
            };
            let groups = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
            if groups.contains(&cgroup) && groups.contains(short) {
                found.push(pid);
            }
        }
        Ok(found)
    }

    /// What a container has printed so far.
    pub fn logs(&self, container: &str) -> Result<String> {
        let output = self.output(&["logs", container])?;
        ensure!(
            output.status.success(),
            "{}",
            String::from_utf8_lossy(&output.stderr)
        );
        Ok(String::from_utf8_lossy(&output.stdout).into_owned())
    }

    /// Waits until a container has printed something that fits.
    pub fn wait_for_log(&self, container: &str, mut fits: impl FnMut(&str) -> bool) -> Result<()> {
        let mut last = String::new();
        wait_for("the container's output", PATIENCE, || {
            last = self
                .logs(container)
                .unwrap_or_else(|error| format!("{error:#}"));
            fits(&last)
        })
        .with_context(|| format!("`{container}` printed `{last}`"))
    }

    /// The number of the host whose member leads.
    pub fn leader(&self) -> Result<u8> {
        let mut found = None;
        wait_for("a leader", PATIENCE, || {
            found = self.json(&["member", "ls"]).ok().and_then(|members| {
                list(&members)
                    .iter()
                    .find(|m| m["leader"] == Value::Bool(true))
                    .and_then(|m| m["name"].as_str()?.strip_prefix('m')?.parse().ok())
            });
            found.is_some()
        })?;
        found.context("no leader")
    }

    fn write_left(&self) -> Result<()> {
        let hosts = (1..).zip(&self.hosts).map(|(number, host)| LeftHost {
            number,
            pid: host.pid(),
        });
        let left = Left {
            slot: self.slot.number(),
            hosts: hosts.collect(),
        };
        Ok(fs::write(
            self.dir.join("testbed.json"),
            serde_json::to_vec(&left)?,
        )?)
    }

    /// A lasting cluster that another process started, by its directory. None: there is none.
    pub fn adopt(dir: &Path) -> Result<Option<Self>> {
        let Ok(text) = fs::read(dir.join("testbed.json")) else {
            return Ok(None);
        };
        let left: Left = serde_json::from_slice(&text)?;
        let slot = Slot::adopt(left.slot);
        let hosts = left
            .hosts
            .iter()
            .map(|host| {
                Host::adopt(
                    &slot.port(host.number),
                    host.number,
                    &slot.address(host.number),
                    &dir.join(format!("h{}", host.number)),
                    host.pid,
                )
            })
            .collect();
        Ok(Some(Self {
            slot,
            dir: dir.to_owned(),
            hosts,
            daemons: Vec::new(),
            programs: Programs::find()?,
            agent_criu: Vec::new(),
            agent_arguments: Vec::new(),
            lasting: true,
            keep_dir: true,
        }))
    }

    /// Ends everything and leaves nothing but the directory, if it was asked for.
    pub fn stop(&mut self) {
        // First: one that is stopped reaps no child, and a host would wait for that.
        for daemon in &mut self.daemons {
            let _ = daemon.kill();
        }
        for host in &mut self.hosts {
            host.stop();
        }
        self.hosts.clear();
        for daemon in &mut self.daemons {
            let _ = daemon.wait();
        }
        self.daemons.clear();
        let _ = Command::new("ip")
            .args(["link", "delete", &self.slot.bridge()])
            .stderr(Stdio::null())
            .status();
        cgroups::remove(&self.slot.cgroup());
        let _ = fs::remove_file(self.dir.join("testbed.json"));
        if !self.keep_dir {
            let _ = fs::remove_dir_all(&self.dir);
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        if self.lasting {
            for host in &mut self.hosts {
                host.leave();
            }
            return;
        }
        if std::thread::panicking() {
            // The reason is most likely in one of these.
            for host in &self.hosts {
                for name in ["agent.log", "member.log"] {
                    let text = fs::read_to_string(host.dir.join(name)).unwrap_or_default();
                    let lines: Vec<&str> = text.lines().rev().take(25).collect();
                    eprintln!("--- {} {name}", host.name);
                    lines.iter().rev().for_each(|line| eprintln!("{line}"));
                }
            }
        }
        self.stop();
    }
}

/// The elements of a JSON list.
pub fn list(value: &Value) -> &[Value] {
    value.as_array().map_or(&[], Vec::as_slice)
}
