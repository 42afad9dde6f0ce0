//! Mounting and unmounting the overlay.
//!
//! Options, all so that the same `upper` works above the same layers on another host:
//! `index=off` (no file handles of this host's lower inodes in `work`), `metacopy=off` (a file in
//! `upper` has its own content), `redirect_dir=off` (a directory in `upper` points at no other
//! path below), `xino=off` (the default that hosts share).
//!
//! Layers are handed over one by one (`lowerdir+`, Linux 6.7), for mount(2) takes one page of
//! options and an image of 127 layers has more. Older kernels get the page, with the layers as
//! short `/proc/self/fd/N`.

use std::{
    ffi::CString,
    fmt::Write as _,
    fs,
    io::{self, ErrorKind},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::{
            ffi::OsStrExt,
            fs::{DirBuilderExt, MetadataExt, PermissionsExt},
        },
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{AtFlags, CWD, Mode, OFlags, StatxAttributes, StatxFlags},
    io::Errno,
    mount::{
        FsMountFlags, FsOpenFlags, MountAttrFlags, MountFlags, MoveMountFlags, UnmountFlags,
        fsconfig_create, fsconfig_set_string, fsmount, fsopen, move_mount,
    },
};

use super::{Rootfs, RootfsError};

const OPTIONS: [(&str, &str); 4] = [
    ("index", "off"),
    ("metacopy", "off"),
    ("redirect_dir", "off"),
    ("xino", "off"),
];

/// fsconfig(2) takes strings of fewer bytes than this, their end included.
const MAX_STRING: usize = 256;

/// `OVERLAYFS_SUPER_MAGIC`.
const OVERLAY_MAGIC: u64 = 0x794c_7630;

/// Mounts stacked on one another that we take down before we give up.
const MAX_STACKED: usize = 16;

pub(super) fn mount(rootfs: &Rootfs, layers: &[PathBuf]) -> Result<(), RootfsError> {
    let merged = rootfs.merged();
    let Some(top) = layers.last() else {
        return Err(RootfsError::NoLayers { merged });
    };
    make_dirs(rootfs, top)?;
    if is_mount_point(&merged)? {
        let stat = rustix::fs::statfs(&merged).map_err(|source| look_at(&merged, source))?;
        // The field's type differs between architectures.
        #[allow(clippy::unnecessary_cast)]
        return match stat.f_type as u64 {
            OVERLAY_MAGIC => Ok(()),
            _ => Err(RootfsError::Taken { path: merged }),
        };
    }

    let dirs = Dirs::open(rootfs, layers)?;
    let (source, detail) = match mount_by_parts(&dirs, &merged) {
        Ok(()) => return Ok(()),
        // No fsopen, no overlay behind it, or no `lowerdir+`.
        Err((Errno::NOSYS | Errno::INVAL | Errno::OPNOTSUPP, detail)) => {
            match mount_in_one(&dirs, &merged) {
                Ok(()) => return Ok(()),
                Err(source) => (source, detail),
            }
        }
        Err(failure) => failure,
    };
    let source = source.into();
    Err(RootfsError::Mount {
        merged,
        layers: layers.len(),
        detail,
        source,
    })
}

/// The directories of one root. `merged` gets its mode and owner from `upper`, hence the new
/// `upper` gets them from the topmost layer.
fn make_dirs(rootfs: &Rootfs, top: &Path) -> Result<(), RootfsError> {
    let io = |step, path: &Path| {
        let path = path.to_owned();
        move |source| RootfsError::Io { step, path, source }
    };
    let make = |path: &Path| match fs::DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => Ok(true),
        Err(source) if source.kind() == ErrorKind::AlreadyExists => Ok(false),
        Err(source) => Err(io("make directory", path)(source)),
    };
    fs::DirBuilder::new()
        .mode(0o700)
        .recursive(true)
        .create(&rootfs.dir)
        .map_err(io("make directory", &rootfs.dir))?;
    make(&rootfs.merged())?;
    make(&rootfs.work())?;
    let upper = rootfs.upper();
    if make(&upper)? {
        let like = fs::metadata(top).map_err(io("look at", top))?;
        std::os::unix::fs::chown(&upper, Some(like.uid()), Some(like.gid()))
            .map_err(io("set the owner of", &upper))?;
        fs::set_permissions(&upper, fs::Permissions::from_mode(like.mode() & 0o7777))
            .map_err(io("set the mode of", &upper))?;
    }
    Ok(())
}

/// A directory as the kernel is told about it.
struct Named {
    path: PathBuf,
    fd: OwnedFd,
}

impl Named {
    fn open(path: &Path) -> Result<Self, RootfsError> {
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let fd =
            rustix::fs::open(path, flags, Mode::empty()).map_err(|source| RootfsError::Io {
                step: "open directory",
                path: path.to_owned(),
                source: source.into(),
            })?;
        Ok(Self {
            path: path.to_owned(),
            fd,
        })
    }

    fn short(&self) -> String {
        format!("/proc/self/fd/{}", self.fd.as_raw_fd())
    }

    /// The path itself where it fits, as it shows in `/proc/mounts`.
    fn string(&self) -> Vec<u8> {
        let path = self.path.as_os_str().as_bytes();
        if path.len() < MAX_STRING {
            path.to_owned()
        } else {
            self.short().into_bytes()
        }
    }
}

struct Dirs {
    /// Top first, as overlayfs wants them.
    layers: Vec<Named>,
    upper: Named,
    work: Named,
}

impl Dirs {
    fn open(rootfs: &Rootfs, layers: &[PathBuf]) -> Result<Self, RootfsError> {
        Ok(Self {
            layers: layers
                .iter()
                .rev()
                .map(|path| Named::open(path))
                .collect::<Result<_, _>>()?,
            upper: Named::open(&rootfs.upper())?,
            work: Named::open(&rootfs.work())?,
        })
    }
}

fn mount_by_parts(dirs: &Dirs, merged: &Path) -> Result<(), (Errno, String)> {
    let fs = fsopen("overlay", FsOpenFlags::FSOPEN_CLOEXEC).map_err(|e| (e, String::new()))?;
    let configure = || {
        fsconfig_set_string(&fs, "source", "godwit")?;
        for layer in &dirs.layers {
            fsconfig_set_string(&fs, "lowerdir+", layer.string())?;
        }
        fsconfig_set_string(&fs, "upperdir", dirs.upper.string())?;
        fsconfig_set_string(&fs, "workdir", dirs.work.string())?;
        for (key, value) in OPTIONS {
            fsconfig_set_string(&fs, key, value)?;
        }
        fsconfig_create(&fs)
    };
    configure().map_err(|source| (source, kernel_log(&fs)))?;
    let attach = || {
        let mount = fsmount(&fs, FsMountFlags::FSMOUNT_CLOEXEC, MountAttrFlags::empty())?;
        move_mount(
            &mount,
            "",
            CWD,
            merged,
            MoveMountFlags::MOVE_MOUNT_F_EMPTY_PATH,
        )
    };
    attach().map_err(|source| (source, kernel_log(&fs)))
}

/// The kernel explains a refusal on the file system context's own descriptor, a line per read.
fn kernel_log(fs: &OwnedFd) -> String {
    let mut log = String::new();
    let mut line = [0; 1024];
    while let Ok(n @ 1..) = rustix::io::read(fs, &mut line) {
        let text = String::from_utf8_lossy(&line[..n]);
        // `e ` is an error; information and warnings are left out.
        if let Some(text) = text.strip_prefix("e ") {
            let _ = write!(log, ": {}", text.trim());
        }
    }
    log
}

fn mount_in_one(dirs: &Dirs, merged: &Path) -> Result<(), Errno> {
    let lower: Vec<String> = dirs.layers.iter().map(Named::short).collect();
    let mut data = format!(
        "lowerdir={},upperdir={},workdir={}",
        lower.join(":"),
        dirs.upper.short(),
        dirs.work.short()
    );
    for (key, value) in OPTIONS {
        let _ = write!(data, ",{key}={value}");
    }
    let data = CString::new(data).map_err(|_| Errno::INVAL)?;
    rustix::mount::mount(
        "godwit",
        merged,
        "overlay",
        MountFlags::empty(),
        data.as_c_str(),
    )
}

pub(super) fn is_mount_point(path: &Path) -> Result<bool, RootfsError> {
    match rustix::fs::statx(
        CWD,
        path,
        AtFlags::SYMLINK_NOFOLLOW,
        StatxFlags::BASIC_STATS,
    ) {
        Ok(stat) => Ok(stat.stx_attributes.contains(StatxAttributes::MOUNT_ROOT)),
        Err(Errno::NOENT | Errno::NOTDIR) => Ok(false),
        Err(source) => Err(look_at(path, source)),
    }
}

fn look_at(path: &Path, source: Errno) -> RootfsError {
    RootfsError::Io {
        step: "look at",
        path: path.to_owned(),
        source: source.into(),
    }
}

pub(super) fn unmount(merged: &Path) -> Result<(), RootfsError> {
    let failed = |source: Errno| RootfsError::Unmount {
        path: merged.to_owned(),
        source: io::Error::from(source),
    };
    for _ in 0..MAX_STACKED {
        if !is_mount_point(merged)? {
            return Ok(());
        }
        match rustix::mount::unmount(merged, UnmountFlags::NOFOLLOW) {
            // Not a mount point any more: somebody else was faster.
            Ok(()) | Err(Errno::INVAL | Errno::NOENT) => {}
            Err(Errno::BUSY) => {
                rustix::mount::unmount(merged, UnmountFlags::NOFOLLOW | UnmountFlags::DETACH)
                    .map_err(failed)?;
                tracing::debug!(path = %merged.display(), "root was busy and is detached");
            }
            Err(source) => return Err(failed(source)),
        }
    }
    if is_mount_point(merged)? {
        Err(failed(Errno::BUSY))
    } else {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What kernels before 6.7 get. Needs root.
    #[test]
    fn a_page_of_options_is_enough_for_127_layers() {
        let host = tempfile::tempdir().unwrap();
        let rootfs = Rootfs::new(&host.path().join("root"));
        let layers: Vec<_> = (0..127)
            .map(|n| {
                let layer = host.path().join(format!("{}/{n}", "x".repeat(200)));
                fs::create_dir_all(&layer).unwrap();
                fs::write(layer.join("top"), n.to_string()).unwrap();
                layer
            })
            .collect();
        make_dirs(&rootfs, &layers[126]).unwrap();
        let dirs = Dirs::open(&rootfs, &layers).unwrap();
        mount_in_one(&dirs, &rootfs.merged()).unwrap();
        drop(dirs);
        let top = fs::read_to_string(rootfs.merged().join("top"));
        rootfs.remove().unwrap();
        assert_eq!(top.unwrap(), "126");
    }
}
