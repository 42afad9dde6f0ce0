//! What is to be started, written down for the keeper: resolved inside the container as it is
//! now, its mounts included.

use std::{
    fs, io,
    os::{fd::OwnedFd, unix::fs::DirBuilderExt},
    path::{Path, PathBuf},
    process::Stdio,
};

use godwit_types::{ContainerId, ExecRequest, InstanceState};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    process::Command,
};

use super::{Plan, ended};
use crate::{
    Runtime, RuntimeError,
    container::{Bundle, CommandError, InstancePaths, User, resolve_command, resolve_user},
    frames::{Decoder, Frame, Input, Output},
    runtime::{Result, blocking},
};

/// Both halves of a conversation in [`frames`](crate::frames).
#[derive(Debug)]
pub struct Talk {
    pub input: Sender,
    pub output: Receiver,
}

#[derive(Debug)]
pub struct Sender(OwnedWriteHalf);

#[derive(Debug)]
pub struct Receiver {
    stream: OwnedReadHalf,
    decoder: Decoder,
}

impl Talk {
    pub(crate) fn new(stream: UnixStream) -> Self {
        let (stream, writer) = stream.into_split();
        Self {
            input: Sender(writer),
            output: Receiver {
                stream,
                decoder: Decoder::default(),
            },
        }
    }
}

impl Sender {
    pub async fn send(&mut self, input: &Input) -> io::Result<()> {
        self.0.write_all(&input.encode()).await
    }
}

impl Receiver {
    /// The next frame; None: the other side is gone.
    pub async fn next(&mut self) -> io::Result<Option<Output>> {
        loop {
            if let Some(frame) = self.decoder.take()? {
                return Ok(Some(frame));
            }
            let mut buffer = [0; 16 << 10];
            match self.stream.read(&mut buffer).await? {
                0 => return Ok(None),
                count => self.decoder.push(&buffer[..count]),
            }
        }
    }
}

impl Runtime {
    /// Starts a program in a container that runs. What comes first says whether it began.
    pub async fn exec(&self, id: &ContainerId, request: &ExecRequest) -> Result<Talk> {
        let pid = match self.state(id).await? {
            InstanceState::Running { pid } => pid,
            other => return Err(self.wrong_state(id, &other, "running")),
        };
        let spec = self.spec(id)?;
        let image = self.image_of(&spec)?;
        let paths = self.paths(id);
        let (id_, request, cgroup) = (id.clone(), request.clone(), self.cgroup(id));
        let log = paths.shim_log();
        let volumes = self.inner.volumes.clone();
        let init = crate::container::init_path(&self.inner.config.data);
        let dir = blocking(move || {
            // With its mounts. The dot: what leads there is a link, and would not be followed.
            let root = PathBuf::from(format!("/proc/{pid}/root/."));
            let of_container = resolve_user(&root, &image.config.user)?;
            let bundle = Bundle {
                id: &id_,
                spec: &spec,
                image: &image.config,
                user: &of_container,
                root: &crate::rootfs::Rootfs::new(&paths.rootfs()).merged(),
                netns: Path::new("/proc/1/ns/net"),
                etc: &paths.etc(),
                cgroup: &cgroup,
                volumes: &volumes,
                init: &init,
            };
            let user = match request.user.as_str() {
                "" => None,
                text => Some(resolve_user(&root, text)?),
            };
            // What this host lacks was said when the container was started.
            let (mut config, _) = bundle.config()?;
            adapt(&mut config["process"], &request, user.as_ref());
            find(&root, &config["process"])?;
            write(&paths, &id_, pid, &cgroup, &request, &config)
        })
        .await?;
        self.start_keeper(&dir, &log)
    }

    fn start_keeper(&self, dir: &Path, log: &Path) -> Result<Talk> {
        let program = self.inner.config.shim.clone();
        let started = || -> io::Result<Talk> {
            let (ours, theirs) = std::os::unix::net::UnixStream::pair()?;
            ours.set_nonblocking(true)?;
            let output = fs::OpenOptions::new().append(true).create(true).open(log)?;
            let mut child = Command::new(&program)
                .arg("--exec")
                .arg(dir)
                .current_dir("/")
                .stdin(Stdio::from(OwnedFd::from(theirs)))
                .stdout(Stdio::null())
                .stderr(output)
                .spawn()?;
            tokio::spawn(async move { child.wait().await });
            Ok(Talk::new(UnixStream::from_std(ours)?))
        };
        started().map_err(|source| {
            let _ = fs::remove_dir_all(dir);
            RuntimeError::Io {
                path: program.clone(),
                source,
            }
        })
    }
}

/// The process of the container's first program, changed to what is asked for.
fn adapt(process: &mut Value, request: &ExecRequest, user: Option<&User>) {
    process["args"] = json!(request.command);
    process["terminal"] = json!(request.tty);
    if !request.working_dir.is_empty() {
        process["cwd"] = json!(request.working_dir);
    }
    let mut env: Vec<String> = serde_json::from_value(process["env"].take()).unwrap_or_default();
    let mut set = |entry: &str| {
        let key = entry.split('=').next();
        env.retain(|old| old.split('=').next() != key);
        env.push(entry.to_owned());
    };
    if request.tty {
        set("TERM=xterm");
    }
    if let Some(user) = user {
        process["user"] = json!({"uid": user.uid, "gid": user.gid, "additionalGids": user.groups});
        set(&format!("HOME={}", user.home.as_deref().unwrap_or("/")));
        let bounding = process["capabilities"]["bounding"].take();
        let held = if user.uid == 0 {
            bounding.clone()
        } else {
            json!([])
        };
        process["capabilities"] = json!({"bounding": bounding, "effective": held,
            "permitted": held, "inheritable": []});
    }
    request.env.iter().for_each(|entry| set(entry));
    process["env"] = json!(env);
    if request.privileged {
        let all = json!(own_capabilities());
        process["capabilities"] = json!({"bounding": all, "effective": all, "permitted": all,
            "inheritable": []});
    }
}

/// All that this host could give: on a confined one that is not all there are.
fn own_capabilities() -> Vec<String> {
    let held = caps::read(None, caps::CapSet::Permitted).unwrap_or_default();
    let mut names: Vec<String> = held.iter().map(ToString::to_string).collect();
    names.sort();
    names
}

/// Whether it is there: an answer of 127 or 126, and not a failure half-way.
fn find(root: &Path, process: &Value) -> Result<()> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let command = text(&process["args"][0]);
    let cwd = text(&process["cwd"]);
    let is_dir = pathrs::Root::open(root)
        .and_then(|root| root.resolve(&cwd))
        .ok()
        .and_then(|handle| fs::File::from(OwnedFd::from(handle)).metadata().ok())
        .is_some_and(|metadata| metadata.is_dir());
    if !is_dir {
        return Err(RuntimeError::NoWorkingDir(cwd));
    }
    let path = process["env"]
        .as_array()
        .into_iter()
        .flatten()
        .find_map(|entry| entry.as_str()?.strip_prefix("PATH="))
        .unwrap_or_default();
    resolve_command(root, &command, path, &cwd).map_err(|error| match error {
        CommandError::Empty => RuntimeError::CommandNotFound(String::new()),
        CommandError::NotFound(command) => RuntimeError::CommandNotFound(command),
        CommandError::NotExecutable(command, reason) => {
            RuntimeError::CommandNotExecutable { command, reason }
        }
    })
}

/// A directory for libcontainer and the keeper. libcontainer takes it for the state of the
/// container that it made: a container that came from elsewhere has none of its own.
fn write(
    paths: &InstancePaths,
    id: &ContainerId,
    pid: i32,
    cgroup: &str,
    request: &ExecRequest,
    config: &Value,
) -> Result<PathBuf> {
    let mut random = [0; 6];
    getrandom::fill(&mut random).map_err(|error| RuntimeError::Io {
        path: paths.dir.clone(),
        source: io::Error::other(error.to_string()),
    })?;
    let dir = paths.dir.join(format!("exec-{}", hex::encode(random)));
    let name = id.short().to_owned();
    let state = dir.join(Plan::STATE).join(&name);
    let plan = Plan {
        name: name.clone(),
        cgroup: cgroup.to_owned(),
        tty: request.tty,
        stdin: request.stdin,
        detach: request.detach,
        size: request.size,
        ended: paths.dir.join(ended::FILE),
    };
    let known = json!({"ociVersion": "1.0.2", "id": name, "status": "running", "pid": pid,
        "bundle": dir, "annotations": {}, "useSystemd": false, "intelRdtDir": null});
    let file = |path: PathBuf, text: String| {
        fs::write(&path, text).map_err(|source| RuntimeError::Io { path, source })
    };
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(&state)
        .map_err(|source| RuntimeError::Io {
            path: state.clone(),
            source,
        })?;
    let plan = serde_json::to_string(&plan).map_err(|source| RuntimeError::Stored {
        path: dir.join(Plan::FILE),
        source,
    })?;
    file(dir.join(Plan::FILE), plan)?;
    file(dir.join(Plan::PROCESS), config["process"].to_string())?;
    file(dir.join("config.json"), config.to_string())?;
    file(state.join("state.json"), known.to_string())?;
    Ok(dir)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn process() -> Value {
        json!({"user": {"uid": 0, "gid": 0}, "args": ["serve"], "cwd": "/data",
            "env": ["PATH=/bin", "HOME=/root", "A=1"],
            "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"],
                "permitted": ["CAP_KILL"]}})
    }

    #[test]
    fn an_exec_is_the_containers_process_with_what_was_asked_for() {
        let mut process = process();
        let request = ExecRequest {
            command: vec!["sh".into()],
            env: vec!["A=2".into()],
            tty: true,
            ..ExecRequest::default()
        };
        adapt(&mut process, &request, None);
        assert_eq!(process["args"], json!(["sh"]));
        assert_eq!(process["cwd"], "/data");
        let env = json!(["PATH=/bin", "HOME=/root", "TERM=xterm", "A=2"]);
        assert_eq!(process["env"], env);
        assert_eq!(process["capabilities"]["effective"], json!(["CAP_KILL"]));
    }

    #[test]
    fn another_user_has_its_home_and_no_capabilities() {
        let mut process = process();
        let user = User {
            uid: 1000,
            gid: 1000,
            groups: vec![5],
            home: Some("/home/a".into()),
        };
        adapt(&mut process, &ExecRequest::default(), Some(&user));
        assert_eq!(process["user"]["uid"], 1000);
        assert_eq!(process["env"], json!(["PATH=/bin", "A=1", "HOME=/home/a"]));
        assert_eq!(process["capabilities"]["effective"], json!([]));
        assert_eq!(process["capabilities"]["bounding"], json!(["CAP_KILL"]));
    }
}
