//! Whether the file system below the data root carries containers: tried once at the start, where
//! the answer can be a clear one, and not with the first container.

use std::{
    fs,
    os::unix::fs::{FileTypeExt, MetadataExt},
    path::Path,
};

use rustix::fs::{Dir, FileType};

use super::{Rootfs, RootfsError, remove_tree};

/// Makes a small overlay below `dir`, which is this check's own and gone afterwards. An error says
/// what the file system lacks.
pub fn check(dir: &Path) -> Result<(), RootfsError> {
    // Of a check that was cut off.
    Rootfs::new(&dir.join("root")).remove()?;
    remove_tree(dir)?;
    let checked = tried(dir);
    let removed = Rootfs::new(&dir.join("root")).remove();
    checked.and(removed).and(remove_tree(dir))
}

fn tried(dir: &Path) -> Result<(), RootfsError> {
    let unfit = |lacks: &'static str| RootfsError::Unfit {
        path: dir.to_owned(),
        lacks,
    };
    let io = |step: &'static str| {
        move |source| RootfsError::Io {
            step,
            path: dir.to_owned(),
            source,
        }
    };
    let layer = dir.join("layer");
    fs::create_dir_all(&layer).map_err(io("make directory"))?;
    fs::write(layer.join("gone"), "x").map_err(io("write to"))?;
    // Overlayfs finds whiteouts by the types in directory listings.
    let listing = fs::File::open(&layer).map_err(io("open"))?;
    for entry in Dir::read_from(&listing).map_err(|errno| io("list")(errno.into()))? {
        let entry = entry.map_err(|errno| io("list")(errno.into()))?;
        if entry.file_type() == FileType::Unknown {
            return Err(unfit(
                "types of files in its directories (d_type; XFS: `ftype=1`)",
            ));
        }
    }
    let rootfs = Rootfs::new(&dir.join("root"));
    rootfs.mount(&[layer])?;
    fs::remove_file(rootfs.merged().join("gone")).map_err(io("remove a file of"))?;
    let mark = fs::symlink_metadata(rootfs.upper().join("gone")).map_err(io("look at"))?;
    if mark.file_type().is_char_device() && mark.rdev() == 0 {
        Ok(())
    } else {
        Err(unfit("the marks by which overlayfs deletes files"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Needs root.
    #[test]
    fn a_file_system_that_carries_an_overlay_is_taken_and_nothing_stays() {
        let host = tempfile::tempdir().unwrap();
        let dir = host.path().join("check");
        check(&dir).unwrap();
        assert!(!dir.exists());
        // What a check left that was cut off is no reason against it.
        fs::create_dir_all(dir.join("root/upper")).unwrap();
        check(&dir).unwrap();
        assert_eq!(fs::read_dir(host.path()).unwrap().count(), 0);
    }

    /// An overlay with an upper layer on `/proc` is refused with its reason.
    #[test]
    fn one_that_does_not_is_refused_before_any_container() {
        assert!(check(Path::new("/proc/godwit-check")).is_err());
    }
}
