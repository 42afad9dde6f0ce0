//! What to compare with: Podman with runc, checkpoint to a file and restore from it on the same
//! host. Nothing is transferred, and both commands count, since the container is stopped from
//! one's beginning to the other's end.
//!
//! Everything it stores is below one directory of its own, which goes afterwards.

use std::{
    env, fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};

use super::{
    report::{Row, median},
    sys,
};
use crate::{
    archive,
    command::{output, run},
    programs::Programs,
    testbed::wait_for,
};

const CONTAINER: &str = "godwit-bench";
const PATIENCE: Duration = Duration::from_secs(60);

/// Its medians.
pub fn measure(rss_mib: u64, times: usize) -> Result<Row> {
    let podman = Podman::new()?;
    let archive = podman.dir.join("workload.tar");
    archive::write(&archive, "workload", &podman.programs.workload)?;
    run(podman.command(&["load", "-q", "-i", &archive.display().to_string()]))?;
    podman.start(rss_mib)?;
    let mut stopped = Vec::new();
    for _ in 0..times {
        ensure!(!sys::interrupted(), "interrupted");
        stopped.push(podman.there_and_back()?);
    }
    podman.verify()?;
    let stopped = median(stopped);
    Ok(Row {
        system: "podman+runc".into(),
        rss_mib: Some(rss_mib),
        processes: Some(1),
        writer_mb_s: Some(0),
        freeze_ms: stopped,
        total_ms: stopped,
        ..Row::default()
    })
}

/// Podman with a storage of its own. Dropped, all of it is gone.
struct Podman {
    dir: PathBuf,
    programs: Programs,
}

impl Podman {
    fn new() -> Result<Self> {
        let programs = Programs::find()?;
        let dir = env::temp_dir().join(format!("godwit-bench-{}", std::process::id()));
        fs::create_dir_all(&dir)?;
        // Its networks are kept elsewhere otherwise, and the machine may lack its policy file.
        fs::write(
            dir.join("policy.json"),
            r#"{"default":[{"type":"insecureAcceptAnything"}]}"#,
        )?;
        Ok(Self { dir, programs })
    }

    fn command(&self, arguments: &[&str]) -> Command {
        let dir = |name: &str| self.dir.join(name);
        let mut command = Command::new("podman");
        command
            .arg("--root")
            .arg(dir("root"))
            .arg("--runroot")
            .arg(dir("run"))
            .arg("--tmpdir")
            .arg(dir("tmp"))
            .args([
                "--storage-driver",
                "overlay",
                "--cgroup-manager",
                "cgroupfs",
            ])
            .args(["--events-backend", "none", "--runtime", "runc"])
            .args(arguments)
            .env("PATH", self.path());
        command
    }

    /// The same CRIU as ours, before any other.
    fn path(&self) -> String {
        let criu = self.programs.criu.parent().unwrap_or(Path::new("/"));
        let path = env::var("PATH").unwrap_or_default();
        format!("{}:{path}", criu.display())
    }

    fn start(&self, rss_mib: u64) -> Result<()> {
        let rss = rss_mib.to_string();
        // Hosts that lack CAP_SYS_RESOURCE can't raise limits, and Podman's own are higher.
        let mut arguments = vec!["run", "-d", "--name", CONTAINER, "--network", "none"];
        arguments.extend([
            "--ulimit",
            "nofile=1024:1024",
            "--ulimit",
            "nproc=1024:1024",
        ]);
        arguments.extend(["--log-driver", "k8s-file", "workload"]);
        arguments.extend(["/bin/godwit-workload", "memory", "--rss", &rss]);
        run(self.command(&arguments))?;
        wait_for("the container's output", PATIENCE, || {
            output(&mut self.command(&["logs", CONTAINER]))
                .is_ok_and(|said| String::from_utf8_lossy(&said.stdout).contains("ready"))
        })
    }

    /// Milliseconds for both.
    fn there_and_back(&self) -> Result<f64> {
        let archive = self.dir.join("checkpoint.tar");
        let path = archive.display().to_string();
        let checkpoint = [
            "container",
            "checkpoint",
            "-c",
            "none",
            "--export",
            &path,
            CONTAINER,
        ];
        let restore = ["container", "restore", "--import", &path];
        let began = Instant::now();
        run(self.command(&checkpoint))?;
        let mut took = began.elapsed();
        // An import makes a container of the same name.
        run(self.command(&["rm", "-f", CONTAINER]))?;
        let began = Instant::now();
        run(self.command(&restore))?;
        took += began.elapsed();
        fs::remove_file(&archive)?;
        Ok(took.as_secs_f64() * 1000.0)
    }

    /// Ends it, which makes it check every page.
    fn verify(&self) -> Result<()> {
        run(self.command(&["kill", "--signal", "TERM", CONTAINER]))?;
        let code = run(self.command(&["wait", CONTAINER]))?;
        ensure!(
            code.trim() == "0",
            "its memory is wrong after the last restore: it ended with {}",
            code.trim()
        );
        Ok(())
    }
}

impl Drop for Podman {
    fn drop(&mut self) {
        for arguments in [
            &["rm", "-f", "-t", "0", "--all"][..],
            &["rmi", "-f", "--all"][..],
        ] {
            let _ = output(&mut self.command(arguments));
        }
        // What it mounts for itself stays mounted when it ends.
        for mounted in mounts_below(&self.dir).unwrap_or_default() {
            let _ = nix::mount::umount2(&mounted, nix::mount::MntFlags::MNT_DETACH);
        }
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// Deepest first.
fn mounts_below(dir: &Path) -> Result<Vec<PathBuf>> {
    let mounts = fs::read_to_string("/proc/self/mounts").context("mounts")?;
    let mut below: Vec<PathBuf> = mounts
        .lines()
        .filter_map(|line| line.split(' ').nth(1).map(PathBuf::from))
        .filter(|at| at.starts_with(dir))
        .collect();
    below.sort();
    below.reverse();
    Ok(below)
}
