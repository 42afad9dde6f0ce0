//! The shim with real containers and real CRIU: create, freeze, thaw, release, stage, resume.
//! No agent, no network: a namespace with loopback, and a plain directory as root.

mod adopted;
mod carried;

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, Instant},
};

use godwit_runtime::{
    container::{Bundle, User, make_in_memory},
    criu::Program,
    shim::{
        Client, ShimError,
        protocol::{Config, Request, State},
    },
};
use godwit_types::{
    ContainerId, ContainerName, ContainerSpec, Digest, ImageConfig, ImageName, Limits, MigrationId,
};

/// What `deploy/setup.sh` made. None: it has not run; the tests say so and do nothing, or fail
/// where `cargo xtask test` runs them.
fn setup() -> Option<(PathBuf, PathBuf)> {
    let made = made();
    if let Err(missing) = &made {
        assert!(
            std::env::var_os("GODWIT_REQUIRE_ROOT_TESTS").is_none(),
            "{missing}"
        );
        println!("skipped: {missing}");
    }
    made.ok()
}

fn made() -> Result<(PathBuf, PathBuf), String> {
    if !nix::unistd::geteuid().is_root() {
        return Err("needs root for namespaces, mounts and CRIU".to_owned());
    }
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/setup/env");
    let text = fs::read_to_string(&path)
        .map_err(|error| format!("{}: {error}: run deploy/setup.sh", path.display()))?;
    let get = |key: &str| {
        text.lines()
            .find_map(|line| line.strip_prefix(key))
            .map(PathBuf::from)
            .ok_or_else(|| format!("{}: no {key}", path.display()))
    };
    Ok((get("GODWIT_CRIU=")?, get("GODWIT_IMAGES=")?))
}

fn interposer() -> PathBuf {
    let path =
        Path::new(env!("CARGO_BIN_EXE_godwit-shim")).with_file_name("libgodwit_interpose.so");
    assert!(
        path.exists(),
        "`{}` is missing: build the whole workspace",
        path.display()
    );
    path
}

fn sh(line: &str) {
    let status = Command::new("sh").args(["-ec", line]).status().unwrap();
    assert!(status.success(), "{line}");
}

/// One instance of the same container; several of them are its ways through hosts.
struct Instance {
    dir: PathBuf,
    netns: String,
    config: Config,
    client: Client,
}

impl Instance {
    fn new(base: &Path, name: &str, command: &[&str], env: &[(&str, &str)]) -> Option<Self> {
        let (criu, images) = setup()?;
        let dir = base.join(name);
        let root = dir.join("root");
        for sub in ["bundle", "etc", "root"] {
            fs::create_dir_all(dir.join(sub)).unwrap();
        }
        make_in_memory(&dir.join("incoming/criu")).unwrap();
        let archive = images.join("busybox.tar");
        sh(&format!(
            "cd {0} && mkdir a && tar -C a -xf {1} && tar -C root -xf a/*layer*.tar 2>/dev/null \
             || for l in $(find a -name '*.tar'); do tar -C root -xf $l; done; rm -rf a; \
             mount --bind root root",
            dir.display(),
            archive.display()
        ));
        let unique = base.file_name().unwrap().to_string_lossy().replace('.', "");
        let netns = format!("gwt-{unique}-{name}");
        sh(&format!(
            "ip netns add {netns} && ip -n {netns} link set lo up"
        ));
        let id = ContainerId::from_bytes([9; 32]);
        let spec = ContainerSpec {
            name: ContainerName::new("shim-test").unwrap(),
            image: "busybox".parse::<ImageName>().unwrap(),
            image_id: Digest::from_sha256([0; 32]),
            command: command.iter().map(|word| (*word).to_owned()).collect(),
            env: Vec::new(),
            limits: Limits {
                pids: Some(16),
                ..Limits::default()
            },
            network: None,
            hostname: String::new(),
            options: godwit_types::Options::default(),
        };
        let cgroup = format!("godwit-shim-{unique}/{name}");
        let netns_path = PathBuf::from(format!("/run/netns/{netns}"));
        let bundle = Bundle {
            id: &id,
            spec: &spec,
            image: &ImageConfig::default(),
            user: &User::default(),
            root: &root,
            netns: &netns_path,
            etc: &dir.join("etc"),
            cgroup: &cgroup,
            volumes: &godwit_runtime::volume::Volumes::new(&dir),
            init: Path::new("/none"),
        };
        fs::write(
            dir.join("bundle/config.json"),
            bundle.config().unwrap().0.to_string(),
        )
        .unwrap();
        for (name, text) in bundle.etc_files() {
            fs::write(dir.join("etc").join(name), text).unwrap();
        }
        let config = Config {
            id: id.as_str().to_owned(),
            dir: dir.clone(),
            socket: dir.join("sock"),
            cgroup,
            root,
            netns: netns_path,
            gate: None,
            criu: Program {
                path: criu,
                interpose: Some(interposer()),
            },
            limits: spec.limits,
            mounts: Vec::new(),
            devices: serde_json::json!([]),
            binds: Vec::new(),
            terminal: spec.options.terminal.clone(),
        };
        fs::write(dir.join("shim.json"), serde_json::to_vec(&config).unwrap()).unwrap();
        let log = fs::File::create(dir.join("shim.log")).unwrap();
        let status = Command::new(env!("CARGO_BIN_EXE_godwit-shim"))
            .arg(dir.join("shim.json"))
            .envs(env.iter().copied())
            .stdin(std::process::Stdio::null())
            .stdout(std::process::Stdio::null())
            .stderr(log)
            .status()
            .unwrap();
        assert!(status.success());
        let client = Client::new(config.socket.clone());
        Some(Self {
            dir,
            netns,
            config,
            client,
        })
    }

    fn lines(&self) -> Vec<u64> {
        let bytes = fs::read(self.dir.join("log.json")).unwrap_or_default();
        let (entries, _) = godwit_runtime::log::parse(&bytes);
        entries
            .iter()
            .filter_map(|entry| entry.log.trim().parse().ok())
            .collect()
    }

    async fn wait_for_lines(&self, more_than: usize) -> Vec<u64> {
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            let lines = self.lines();
            if lines.len() > more_than {
                return lines;
            }
            assert!(
                Instant::now() < deadline,
                "no more than {} lines; shim: {}",
                lines.len(),
                fs::read_to_string(self.dir.join("shim.log")).unwrap_or_default()
            );
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }
}

impl Drop for Instance {
    fn drop(&mut self) {
        let name = Path::new(&self.config.cgroup)
            .file_name()
            .unwrap()
            .to_string_lossy();
        let parent = self.config.cgroup.split('/').next().unwrap();
        let _ = Command::new("sh")
            .args([
                "-c",
                &format!(
                    "echo 1 >/sys/fs/cgroup/unified/{0}/cgroup.kill; \
                     echo 1 >/sys/fs/cgroup/{0}/cgroup.kill; \
                     umount -l {1} {3}/*/criu; ip netns delete {2}; sleep 0.1; \
                     for d in /sys/fs/cgroup/*/{parent}/{name} /sys/fs/cgroup/*/{parent} \
                     /sys/fs/cgroup/{parent}/{name} /sys/fs/cgroup/{parent}; do rmdir $d; done",
                    self.config.cgroup,
                    self.config.root.display(),
                    self.netns,
                    self.dir.display(),
                ),
            ])
            .stderr(std::process::Stdio::null())
            .status();
    }
}

const COUNT: [&str; 3] = [
    "sh",
    "-c",
    "trap 'exit 42' TERM; sleep 1000000 & i=0; while :; do echo $i; i=$((i+1)); usleep 5000; done",
];

/// What the agents do: the checkpoint and the writable root of one become the other's.
fn carry(from: &Instance, to: &Instance) {
    sh(&format!(
        "cp {0}/checkpoint/criu/* {1}/incoming/criu/ && cp {0}/log.json {1}/log.json && \
         cd {1}/incoming && mv criu/pages-1.img . && ln -s ../pages-1.img criu/",
        from.dir.display(),
        to.dir.display()
    ));
}

fn migration() -> MigrationId {
    MigrationId::from_bytes([5; 8])
}

fn consecutive(lines: &[u64]) {
    for (index, line) in lines.iter().enumerate() {
        assert_eq!(*line, index as u64, "output lost or doubled at {index}");
    }
}

#[tokio::test]
async fn a_container_moves_and_its_output_and_exit_code_with_it() {
    let base = tempfile::tempdir().unwrap();
    let Some(source) = Instance::new(base.path(), "a", &COUNT, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(20).await;

    // A freeze that is taken back leaves it running.
    let steps = source
        .client
        .ask(Request::Freeze {
            migration: migration(),
            carried: false,
        })
        .await
        .unwrap();
    assert!(steps.iter().any(|step| step.name == "dump"), "{steps:?}");
    let frozen = source.lines().len();
    assert!(matches!(
        source.client.state().await.unwrap(),
        State::Frozen { .. }
    ));
    source.client.ask(Request::Thaw).await.unwrap();
    source.wait_for_lines(frozen + 20).await;

    // One that is not: it goes on elsewhere.
    let steps = source
        .client
        .ask(Request::Freeze {
            migration: migration(),
            carried: false,
        })
        .await
        .unwrap();
    println!("{steps:?}");
    let target = Instance::new(base.path(), "b", &COUNT, &[]).unwrap();
    target
        .client
        .ask(Request::Arm {
            migration: migration(),
        })
        .await
        .unwrap();
    carry(&source, &target);
    let steps = target
        .client
        .ask(Request::Stage { memory: None })
        .await
        .unwrap();
    println!("{steps:?}");
    let held = target.lines().len();
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(target.lines().len(), held, "staged is held");
    let steps = target.client.ask(Request::Resume).await.unwrap();
    println!("{steps:?}");
    target.wait_for_lines(held + 20).await;
    source.client.ask(Request::Release).await.unwrap();
    assert!(matches!(
        source.client.state().await,
        Ok(State::Gone) | Err(ShimError::Gone { .. } | ShimError::BrokeOff(_))
    ));

    let running = target.client.state().await.unwrap();
    assert!(matches!(running, State::Running { .. }));
    target
        .client
        .ask(Request::Signal { signal: 15 })
        .await
        .unwrap();
    let ended = target.client.watch(running).await;
    let exit: serde_json::Value =
        serde_json::from_slice(&fs::read(target.dir.join("exit.json")).unwrap()).unwrap();
    assert_eq!(exit["code"], 42, "{ended:?}");
    consecutive(&target.lines());
}

/// Of `/proc/PID/stat`, counted from the state.
const NICE: usize = 16;

fn stat_field(pid: i32, field: usize) -> Option<i32> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let rest = text.rsplit_once(") ")?.1;
    rest.split(' ').nth(field)?.parse().ok()
}

/// The nice values of the processes that stay, by their names.
fn nice_values(instance: &Instance) -> Vec<(String, i32)> {
    let mut values: Vec<(String, i32)> = pids(instance)
        .into_iter()
        .filter_map(|pid| {
            let name = fs::read_to_string(format!("/proc/{pid}/comm")).ok()?;
            Some((name.trim_end().to_owned(), pid))
        })
        .filter(|(name, _)| name != "usleep")
        .filter_map(|(name, pid)| Some((name, stat_field(pid, NICE)?)))
        .collect();
    values.sort();
    values
}

/// The shell forks all the time: now and then there are two of it.
async fn wait_for_nice_values(instance: &Instance, expected: &[(String, i32)]) {
    for _ in 0..100 {
        if nice_values(instance) == expected {
            return;
        }
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    assert_eq!(nice_values(instance), expected);
}

fn pids(instance: &Instance) -> Vec<i32> {
    let procs = format!(
        "/sys/fs/cgroup/unified/{}/cgroup.procs",
        instance.config.cgroup
    );
    let text = fs::read_to_string(&procs)
        .or_else(|_| fs::read_to_string(procs.replace("/unified", "")))
        .unwrap();
    text.lines().map(|line| line.parse().unwrap()).collect()
}

#[tokio::test]
async fn what_hurries_the_move_does_not_stay_with_the_container() {
    let command = [
        "sh",
        "-c",
        "echo kept >/dev/shm/file; sleep 1000000 & renice 7 -p $!; \
         i=0; while :; do echo $i; i=$((i+1)); usleep 5000; done",
    ];
    let base = tempfile::tempdir().unwrap();
    let Some(source) = Instance::new(base.path(), "a", &command, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(20).await;
    let ours = rustix::process::getpriority_process(None).unwrap();
    let expected = [("sh".to_owned(), ours), ("sleep".to_owned(), 7)];
    wait_for_nice_values(&source, &expected).await;
    let target = Instance::new(base.path(), "b", &command, &[]).unwrap();
    target
        .client
        .ask(Request::Arm {
            migration: migration(),
        })
        .await
        .unwrap();
    source
        .client
        .ask(Request::Freeze {
            migration: migration(),
            carried: false,
        })
        .await
        .unwrap();
    for entry in fs::read_dir(source.dir.join("checkpoint/criu")).unwrap() {
        let path = entry.unwrap().path();
        if path.to_string_lossy().ends_with(".tar.gz.img") {
            // gzip itself would name this system here.
            assert_eq!(fs::read(path).unwrap()[9], 255, "our `tar` wrote it");
        }
    }
    carry(&source, &target);
    target
        .client
        .ask(Request::Stage { memory: None })
        .await
        .unwrap();
    let held = target.lines().len();
    target.client.ask(Request::Resume).await.unwrap();
    source.client.ask(Request::Release).await.unwrap();
    target.wait_for_lines(held + 20).await;
    wait_for_nice_values(&target, &expected).await;
    let State::Running { pid, .. } = target.client.state().await.unwrap() else {
        panic!("it runs");
    };
    let kept = fs::read_to_string(format!("/proc/{pid}/root/dev/shm/file"));
    assert_eq!(kept.unwrap(), "kept\n");
    // The shim itself is as urgent as before, and so is what it starts.
    let shim = stat_field(pid, 1).unwrap();
    assert_eq!(stat_field(shim, NICE), Some(ours));
    target
        .client
        .ask(Request::Signal { signal: 9 })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_dump_that_fails_leaves_the_container_running() {
    let base = tempfile::tempdir().unwrap();
    for fault in ["1", "3", "5"] {
        let Some(source) = Instance::new(base.path(), fault, &COUNT, &[("CRIU_FAULT", fault)])
        else {
            return;
        };
        source.client.ask(Request::Create).await.unwrap();
        let before = source.wait_for_lines(5).await.len();
        let refused = source
            .client
            .ask(Request::Freeze {
                migration: migration(),
                carried: false,
            })
            .await;
        assert!(refused.is_err(), "CRIU_FAULT={fault}");
        assert!(matches!(
            source.client.state().await.unwrap(),
            State::Running { .. }
        ));
        let lines = source.wait_for_lines(before + 20).await;
        consecutive(&lines);
        source
            .client
            .ask(Request::Signal { signal: 9 })
            .await
            .unwrap();
        let _ = source.client.watch(State::Ready).await;
    }
}

#[tokio::test]
async fn a_restore_that_fails_leaves_nothing_and_the_source_goes_on() {
    let base = tempfile::tempdir().unwrap();
    let Some(source) = Instance::new(base.path(), "a", &COUNT, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(5).await;
    for fault in ["2", "6"] {
        source
            .client
            .ask(Request::Freeze {
                migration: migration(),
                carried: false,
            })
            .await
            .unwrap();
        let frozen = source.lines().len();
        let target = Instance::new(
            base.path(),
            &format!("b{fault}"),
            &COUNT,
            &[("CRIU_FAULT", fault)],
        )
        .unwrap();
        target
            .client
            .ask(Request::Arm {
                migration: migration(),
            })
            .await
            .unwrap();
        carry(&source, &target);
        let staged = target.client.ask(Request::Stage { memory: None }).await;
        println!("{staged:?}");
        assert!(staged.is_err(), "CRIU_FAULT={fault}");
        let group = format!("/sys/fs/cgroup/unified/{}", target.config.cgroup);
        assert!(
            !Path::new(&group).exists(),
            "its cgroup, and so every process, is gone"
        );
        source.client.ask(Request::Thaw).await.unwrap();
        consecutive(&source.wait_for_lines(frozen + 10).await);
    }
    source
        .client
        .ask(Request::Signal { signal: 9 })
        .await
        .unwrap();
}

#[tokio::test]
async fn a_staged_container_that_is_discarded_never_ran() {
    let base = tempfile::tempdir().unwrap();
    let Some(source) = Instance::new(base.path(), "a", &COUNT, &[]) else {
        return;
    };
    source.client.ask(Request::Create).await.unwrap();
    source.wait_for_lines(5).await;
    source
        .client
        .ask(Request::Freeze {
            migration: migration(),
            carried: false,
        })
        .await
        .unwrap();
    let target = Instance::new(base.path(), "b", &COUNT, &[]).unwrap();
    target
        .client
        .ask(Request::Arm {
            migration: migration(),
        })
        .await
        .unwrap();
    carry(&source, &target);
    target
        .client
        .ask(Request::Stage { memory: None })
        .await
        .unwrap();
    let held = target.lines().len();
    target.client.ask(Request::Discard).await.unwrap();
    assert_eq!(target.lines().len(), held);
    source.client.ask(Request::Thaw).await.unwrap();
    consecutive(&source.wait_for_lines(held + 10).await);
    source
        .client
        .ask(Request::Signal { signal: 9 })
        .await
        .unwrap();
}

/// Freezes it, kills it as the kernel's out-of-memory killer would, and says what becomes of it.
async fn killed_while_frozen(instance: &Instance, thaw: bool) -> State {
    instance.client.ask(Request::Create).await.unwrap();
    instance.wait_for_lines(5).await;
    instance
        .client
        .ask(Request::Freeze {
            migration: migration(),
            carried: false,
        })
        .await
        .unwrap();
    let frozen = instance.client.state().await.unwrap();
    assert!(matches!(frozen, State::Frozen { .. }), "{frozen:?}");
    let group = &instance.config.cgroup;
    sh(&format!(
        "for d in /sys/fs/cgroup/unified/{group} /sys/fs/cgroup/{group}; do \
         if test -e $d/cgroup.kill; then echo 1 >$d/cgroup.kill; fi; done"
    ));
    if thaw {
        instance.client.ask(Request::Thaw).await.unwrap();
    }
    let patience = Duration::from_secs(10);
    let exit = instance.dir.join("exit.json");
    let state = tokio::time::timeout(patience, instance.client.watch(frozen)).await;
    let deadline = Instant::now() + patience;
    while !exit.exists() {
        assert!(Instant::now() < deadline, "no exit code; {state:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    let exit = serde_json::from_slice::<serde_json::Value>(&fs::read(exit).unwrap()).unwrap();
    assert_eq!(exit["code"], 128 + 9, "{state:?}");
    state.unwrap().unwrap_or(State::Gone)
}

#[tokio::test]
async fn a_frozen_container_whose_only_process_is_killed_has_ended() {
    let base = tempfile::tempdir().unwrap();
    let one = ["sh", "-c", "i=0; while :; do echo $i; i=$((i+1)); done"];
    let Some(instance) = Instance::new(base.path(), "a", &one, &[]) else {
        return;
    };
    let state = killed_while_frozen(&instance, false).await;
    assert!(
        matches!(state, State::Exited { .. } | State::Gone),
        "{state:?}"
    );
}

#[tokio::test]
async fn a_frozen_container_of_several_processes_that_is_killed_ends_with_the_thaw() {
    let base = tempfile::tempdir().unwrap();
    let Some(instance) = Instance::new(base.path(), "a", &COUNT, &[]) else {
        return;
    };
    killed_while_frozen(&instance, true).await;
}
