//! A container's root file system: the image's layers below, one writable layer on top, joined by
//! overlayfs.
//!
//! ```text
//! <dir>/upper    the writable layer: all that the container changed
//! <dir>/work     overlayfs' own scratch space, on the same file system as upper
//! <dir>/merged   where the overlay is mounted: what the container sees as /
//! ```
//!
//! What makes a root movable: the layers are the same on every host that has the image, and
//! [`diff`] carries `upper`. Hence the mount options (see `mount.rs`): none that ties `upper` to
//! the inodes of this host's layers.
//!
//! It knows no container and no image store: it is given directories. The runtime calls it.

mod check;
pub mod diff;
mod error;
mod mount;
mod remove;
mod space;
pub(crate) mod tree;
pub(crate) mod xattr;

use std::path::{Path, PathBuf};

pub use check::check;
pub use diff::DiffError;
pub use error::RootfsError;
pub(crate) use remove::names;
pub use space::size;
pub use tree::PathFault;

pub(crate) use remove::remove_tree;
pub(crate) use space::free;

/// The paths of one root. Making the value touches no file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rootfs {
    dir: PathBuf,
}

impl Rootfs {
    pub fn new(dir: &Path) -> Rootfs {
        Self {
            dir: dir.to_owned(),
        }
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Where the container's root is once mounted.
    pub fn merged(&self) -> PathBuf {
        self.dir.join("merged")
    }

    /// The writable layer, to be packed or unpacked by [`diff`].
    pub fn upper(&self) -> PathBuf {
        self.dir.join("upper")
    }

    fn work(&self) -> PathBuf {
        self.dir.join("work")
    }

    /// Mounts `layers`, bottom first, below the writable layer, and makes the directories that are
    /// missing. Nothing is done when an overlay is mounted there already.
    pub fn mount(&self, layers: &[PathBuf]) -> Result<(), RootfsError> {
        mount::mount(self, layers)
    }

    /// True when something is mounted on `merged`. False also when one can't tell: `mount` will
    /// say why.
    pub fn is_mounted(&self) -> bool {
        mount::is_mount_point(&self.merged()).unwrap_or(false)
    }

    /// Unmounts; what is still busy is detached and goes when its last user does. Fine when
    /// nothing is mounted.
    pub fn unmount(&self) -> Result<(), RootfsError> {
        mount::unmount(&self.merged())
    }

    /// Unmounts and deletes everything below `<dir>`, and `<dir>`. Goes on after errors and
    /// reports the first; fine when there is nothing.
    pub fn remove(&self) -> Result<(), RootfsError> {
        let unmounted = self.unmount();
        // `remove_tree` enters no mount, so the layers are safe even if unmounting failed.
        let removed = remove_tree(&self.dir);
        unmounted.and(removed)
    }
}
