//! Where an instance keeps what, below the data root and the run directory.
//!
//! ```text
//! DATA/containers/ID/spec.json      what was asked for
//!                    shim.json      what the shim was told
//!                    shim.log       what the shim had to say
//!                    exit.json      how the first process ended
//!                    log.json       the container's output
//!                    warnings       what this host can't do for it
//!                    bundle/        the OCI bundle
//!                    etc/           files bound over /etc of the container
//!                    rootfs/        upper, work, merged
//!                    checkpoint/    source: what is sent      } one of them,
//!                    incoming/      destination: what arrived } during a migration
//!                    held           destination: it has not been resumed yet; holds the boot's id
//! RUN/shims/ID.sock                 the shim's socket
//!           ID.lock                 locked while a shim lives
//!           ID.kept                 by which another shim takes the container up
//!           ID.pages                the pager's socket
//!           ID.paged                the pager has delivered everything
//! RUN/netns/ID                      the network namespace
//! ```

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use godwit_types::ContainerId;
use serde::Serialize;

/// See [`crate::shim::held`].
pub const HELD: &str = "held";
/// See [`InstancePaths::warnings`].
pub const WARNINGS: &str = "warnings";

/// The paths of one instance.
#[derive(Debug, Clone)]
pub struct InstancePaths {
    pub dir: PathBuf,
    pub socket: PathBuf,
}

impl InstancePaths {
    pub fn new(data: &Path, run: &Path, id: &ContainerId) -> Self {
        Self {
            dir: data.join("containers").join(id.as_str()),
            // A socket's path may have 107 bytes: the whole id is too much of them.
            socket: run.join("shims").join(format!("{}.sock", id.short())),
        }
    }

    pub fn spec(&self) -> PathBuf {
        self.dir.join("spec.json")
    }

    pub fn shim_config(&self) -> PathBuf {
        self.dir.join("shim.json")
    }

    pub fn shim_log(&self) -> PathBuf {
        self.dir.join("shim.log")
    }

    pub fn exit(&self) -> PathBuf {
        self.dir.join("exit.json")
    }

    pub fn held(&self) -> PathBuf {
        self.dir.join(HELD)
    }

    pub fn log(&self) -> PathBuf {
        self.dir.join(crate::log::FILE)
    }

    /// What was asked for and this host can't do, a line each.
    pub fn warnings(&self) -> PathBuf {
        self.dir.join(WARNINGS)
    }

    pub fn bundle(&self) -> PathBuf {
        self.dir.join("bundle")
    }

    pub fn etc(&self) -> PathBuf {
        self.dir.join("etc")
    }

    pub fn rootfs(&self) -> PathBuf {
        self.dir.join("rootfs")
    }

    pub fn checkpoint(&self) -> PathBuf {
        self.dir.join("checkpoint")
    }

    pub fn incoming(&self) -> PathBuf {
        self.dir.join("incoming")
    }

    /// libcontainer's own state, made anew by each incarnation.
    pub fn state(&self) -> PathBuf {
        self.dir.join("state")
    }
}

/// Writes a whole JSON file, or leaves what was there.
pub fn write_atomic<T: Serialize>(path: &Path, value: &T) -> io::Result<()> {
    let temporary = path.with_extension("tmp");
    let file = fs::File::create(&temporary)?;
    serde_json::to_writer(&file, value)?;
    file.sync_all()?;
    fs::rename(&temporary, path)
}

/// Removes a tree. Nothing there is fine.
pub fn remove_tree(path: &Path) -> io::Result<()> {
    match fs::remove_dir_all(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}
