//! The directory of CRIU's images: in memory, for a disk that others write to makes CRIU wait for
//! each of its 25 small files, while the container stands still.
//!
//! Pages are another matter: all of a container's memory twice may be too much for its host.

use std::{fs, io, path::Path};

use rustix::{
    io::Errno,
    mount::{MountFlags, UnmountFlags, mount, unmount},
};

/// Makes an empty directory; one in memory, where the host lets us mount.
pub fn make_in_memory(images: &Path) -> io::Result<()> {
    remove_images(images)?;
    fs::create_dir_all(images)?;
    let flags = MountFlags::NOSUID | MountFlags::NODEV | MountFlags::NOEXEC;
    if let Err(errno) = mount("godwit", images, "tmpfs", flags, c"mode=700") {
        tracing::warn!(error = %errno, "images will be on disk");
    }
    Ok(())
}

/// Removes it and what is in it. Nothing there is fine.
pub fn remove_images(images: &Path) -> io::Result<()> {
    loop {
        match unmount(images, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            Ok(()) => {}
            // Nothing is mounted there any more, or it is not there.
            Err(Errno::INVAL | Errno::NOENT) => break,
            Err(errno) => return Err(errno.into()),
        }
    }
    super::remove_tree(images)
}
