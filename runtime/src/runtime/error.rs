//! What can go wrong on one host, by what the caller can do about it.

use std::{io, path::PathBuf};

use crate::{
    cgroup::CgroupError,
    container::{BundleError, UserError},
    image::{ImageError, author::AuthorError},
    memory::StoreError,
    network::NetworkError,
    rootfs::{DiffError, RootfsError},
    shim::ShimError,
    volume::VolumeError,
};

#[derive(Debug, thiserror::Error)]
pub enum RuntimeError {
    #[error("no instance of container {0} on this host")]
    NotFound(String),
    #[error("container {container} is {state}, not {wanted}")]
    WrongState {
        container: String,
        state: String,
        wanted: &'static str,
    },
    #[error("image `{0}` is not on this host")]
    NoImage(String),
    #[error("no command was given and image `{0}` has none")]
    NoCommand(String),
    #[error("command `{0}` not found in the container")]
    CommandNotFound(String),
    #[error("command `{command}` can't be executed in the container: {reason}")]
    CommandNotExecutable {
        command: String,
        reason: &'static str,
    },
    #[error("bind source `{0}` does not exist on this host")]
    NoBindSource(String),
    #[error("working directory `{0}` is not a directory of the container")]
    NoWorkingDir(String),
    #[error("this host can't checkpoint or restore: {0}")]
    NoCriu(String),
    #[error("container {0} was frozen by another agent, which had the way of its memory")]
    MemoryLost(String),
    #[error("memory that container {id} left behind can't be read")]
    LeftBehind {
        id: String,
        #[source]
        source: std::io::Error,
    },
    #[error(transparent)]
    Memory(#[from] StoreError),
    #[error("no room: {need} bytes needed, {free} free")]
    NoRoom { need: u64, free: u64 },
    #[error("too little memory: {need} bytes needed, {free} free beside what is kept for others")]
    NoMemory { need: u64, free: u64 },
    #[error("{0}")]
    Unmovable(String),
    #[error("`{path}`")]
    Io {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` can't be read")]
    Stored {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("shim did not start; its log is `{log}`: {said}")]
    ShimStart { log: PathBuf, said: String },
    #[error(transparent)]
    Shim(#[from] ShimError),
    #[error(transparent)]
    Image(#[from] ImageError),
    #[error(transparent)]
    Author(#[from] AuthorError),
    #[error(transparent)]
    Rootfs(#[from] RootfsError),
    #[error("writable layer can't be carried")]
    Diff(#[from] DiffError),
    #[error(transparent)]
    Volume(#[from] VolumeError),
    #[error(transparent)]
    Network(#[from] NetworkError),
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    #[error(transparent)]
    User(#[from] UserError),
    #[error(transparent)]
    Bundle(#[from] BundleError),
    #[error("sysctl `{name}`")]
    Sysctl {
        name: String,
        #[source]
        source: io::Error,
    },
}
