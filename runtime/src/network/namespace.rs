//! A container's network namespace: a file in the run directory over which it is bound.
//!
//! Everything that enters a namespace does so on a thread of its own, which ends afterwards: a
//! runtime's worker thread would carry the namespace on to other work.

use std::{
    fs::{self, File},
    io,
    path::Path,
    thread,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, setns, unshare},
};

use super::error::{NetworkError, Result};

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> NetworkError {
    let path = path.to_owned();
    move |source| NetworkError::Namespace { step, path, source }
}

/// Makes a namespace with loopback up and binds it to `path`.
pub fn create(path: &Path) -> Result<()> {
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent).map_err(failed("making the directory", path))?;
    }
    File::create(path).map_err(failed("making the file", path))?;
    on_thread(|| {
        unshare(CloneFlags::CLONE_NEWNET)?;
        // Addresses that nobody asked for, and their neighbour traffic.
        fs::write("/proc/sys/net/ipv6/conf/all/disable_ipv6", "1").or_else(|error| {
            // A kernel without IPv6.
            if error.kind() == io::ErrorKind::NotFound {
                Ok(())
            } else {
                Err(error)
            }
        })?;
        crate::sys::set_link_up("lo", true)?;
        mount(
            Some("/proc/thread-self/ns/net"),
            path,
            None::<&str>,
            MsFlags::MS_BIND,
            None::<&str>,
        )?;
        Ok(())
    })
    .map_err(failed("making", path))
}

/// Whether a namespace is bound there.
pub fn exists(path: &Path) -> bool {
    // nsfs, from the kernel's magic.h.
    const NSFS: i64 = 0x6e73_6673;
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == NSFS)
}

/// Removes it. Nothing there is fine.
pub fn remove(path: &Path) -> Result<()> {
    match umount2(path, MntFlags::MNT_DETACH) {
        Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOENT) => {}
        Err(errno) => return Err(failed("unmounting", path)(errno.into())),
    }
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(failed("removing", path)(error))
        }
        _ => Ok(()),
    }
}

/// Does something inside the namespace at `path`.
pub fn inside<T: Send>(path: &Path, work: impl FnOnce() -> io::Result<T> + Send) -> Result<T> {
    on_thread(|| {
        setns(File::open(path)?, CloneFlags::CLONE_NEWNET)?;
        work()
    })
    .map_err(failed("working inside", path))
}

/// Does something asynchronous inside the namespace at `path`, on a runtime of its own, so that
/// its sockets are made there.
pub fn inside_async<T: Send>(
    path: &Path,
    work: impl AsyncFnOnce() -> Result<T> + Send,
) -> Result<T> {
    inside(path, || {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        Ok(runtime.block_on(work()))
    })?
}

fn on_thread<T: Send>(work: impl FnOnce() -> io::Result<T> + Send) -> io::Result<T> {
    thread::scope(|scope| match scope.spawn(work).join() {
        Ok(result) => result,
        Err(panic) => std::panic::resume_unwind(panic),
    })
}
