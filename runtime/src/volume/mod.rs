//! The data of volumes on one host, by id. Who uses a volume, and where it is, is the caller's
//! business.
//!
//! ```text
//! DATA/volumes/ID/data       what containers see
//!                 arriving   it came here ahead of the container that this file names, which has
//!                            not been resumed: worth nothing without it
//!                 fresh      being filled from an image } in between
//!                 aside      files of a stream          }
//! ```

use std::{
    fs::{self, DirBuilder, File},
    io::{self, BufReader},
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    thread,
};

use godwit_types::{ContainerId, VolumeId};

use crate::rootfs::{
    RootfsError,
    diff::{self, DiffError, Mark},
    remove_tree,
};

#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    #[error("could not {step} `{}`", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("content of the image can't be copied into volume {volume}")]
    Fill {
        volume: VolumeId,
        #[source]
        source: DiffError,
    },
    #[error("volume {volume} can't be carried")]
    Carry {
        volume: VolumeId,
        #[source]
        source: DiffError,
    },
    #[error(transparent)]
    Remove(#[from] RootfsError),
}

type Result<T, E = VolumeError> = std::result::Result<T, E>;

/// See the module.
#[derive(Debug, Clone)]
pub struct Volumes {
    dir: PathBuf,
}

impl Volumes {
    /// Touches no file.
    pub fn new(data: &Path) -> Self {
        Self {
            dir: data.join("volumes"),
        }
    }

    fn dir(&self, id: &VolumeId) -> PathBuf {
        self.dir.join(id.as_str())
    }

    /// What containers see.
    pub fn data(&self, id: &VolumeId) -> PathBuf {
        self.dir(id).join("data")
    }

    fn arriving(&self, id: &VolumeId) -> PathBuf {
        self.dir(id).join("arriving")
    }

    /// Makes what is missing. `image`: the directory whose content, owner and mode an empty volume
    /// gets; None: it stays empty, root's, 0755.
    pub fn ensure(&self, id: &VolumeId, image: Option<&Path>) -> Result<()> {
        let (dir, data) = (self.dir(id), self.data(id));
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed("make", &dir))?;
        match (is_empty(&data)?, image) {
            (None, Some(image)) => {
                // Renamed whole, so that half a copy is never taken for a volume.
                let fresh = dir.join("fresh");
                remove_tree(&fresh)?;
                copy(id, image, &fresh)?;
                fs::rename(&fresh, &data).map_err(failed("put in place", &data))
            }
            (None, None) => {
                fs::create_dir(&data).map_err(failed("make", &data))?;
                let mode = fs::Permissions::from_mode(0o755);
                fs::set_permissions(&data, mode).map_err(failed("set the mode of", &data))
            }
            (Some(true), Some(image)) => copy(id, image, &data),
            (Some(_), _) => Ok(()),
        }
    }

    /// Nothing of it is here, and it is about to come with this container.
    pub fn expect(&self, id: &VolumeId, container: &ContainerId) -> Result<()> {
        self.remove(id)?;
        let dir = self.dir(id);
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(failed("make", &dir))?;
        let path = self.arriving(id);
        fs::write(&path, container.as_str()).map_err(failed("write", &path))
    }

    /// Brings it from `base` to what a stream makes of it. One against nothing begins anew. After an
    /// error it is worth nothing.
    pub fn bring(&self, id: &VolumeId, stream: &Path, base: Mark) -> Result<Mark> {
        let open = || {
            let file = File::open(stream).map_err(failed("open", stream))?;
            Ok::<_, VolumeError>(BufReader::new(file))
        };
        let carried = |source| VolumeError::Carry {
            volume: id.clone(),
            source,
        };
        let data = self.data(id);
        let brought = if diff::base(open()?).map_err(carried)? == Mark::NOTHING {
            remove_tree(&data)?;
            diff::unpack(open()?, &data)
        } else {
            let aside = self.dir(id).join("aside");
            diff::apply(open()?, &data, &aside, base)
        };
        Ok(brought.map_err(carried)?.mark)
    }

    /// Its container runs here: from now on it is this host's.
    pub fn arrived(&self, id: &VolumeId) -> Result<()> {
        let path = self.arriving(id);
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(failed("remove", &path)(error))
            }
            _ => Ok(()),
        }
    }

    /// Removes it, if it came here with this container and that was never resumed.
    pub fn discard(&self, id: &VolumeId, container: &ContainerId) -> Result<()> {
        let path = self.arriving(id);
        match fs::read(&path) {
            Ok(said) if said == container.as_str().as_bytes() => self.remove(id),
            Ok(_) => Ok(()),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failed("read", &path)(error)),
        }
    }

    /// Nothing there is fine.
    pub fn remove(&self, id: &VolumeId) -> Result<()> {
        Ok(remove_tree(&self.dir(id))?)
    }
}

fn failed(step: &'static str, path: &Path) -> impl FnOnce(io::Error) -> VolumeError {
    let path = path.to_owned();
    move |source| VolumeError::Io { step, path, source }
}

/// None: it is not there.
fn is_empty(data: &Path) -> Result<Option<bool>> {
    match fs::read_dir(data) {
        Ok(mut entries) => Ok(Some(entries.next().is_none())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(failed("look at", data)(error)),
    }
}

/// With owners, modes, times and attributes, by the stream that moves have.
fn copy(id: &VolumeId, from: &Path, to: &Path) -> Result<()> {
    let (reader, writer) = io::pipe().map_err(failed("open a pipe to", to))?;
    let (packed, unpacked) = thread::scope(|scope| {
        let packing = scope.spawn(|| diff::pack(from, writer));
        let unpacked = diff::unpack(reader, to);
        match packing.join() {
            Ok(packed) => (packed, unpacked),
            Err(panic) => std::panic::resume_unwind(panic),
        }
    });
    let fill = |source| VolumeError::Fill {
        volume: id.clone(),
        source,
    };
    // What could not be written is why it could not be read on.
    unpacked.map_err(fill)?;
    packed.map_err(fill)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    fn id() -> VolumeId {
        VolumeId::from_bytes([1; 16])
    }

    /// Needs root, as owners are set.
    #[test]
    fn an_empty_volume_gets_what_the_image_has_there_and_a_full_one_keeps_what_it_has() {
        let host = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(host.path());
        let image = host.path().join("image");
        fs::create_dir(&image).unwrap();
        fs::set_permissions(&image, fs::Permissions::from_mode(0o1770)).unwrap();
        fs::write(image.join("a"), "of the image").unwrap();
        std::os::unix::fs::chown(image.join("a"), Some(1001), Some(1002)).unwrap();
        volumes.ensure(&id(), Some(&image)).unwrap();
        let data = volumes.data(&id());
        assert_eq!(fs::metadata(&data).unwrap().mode() & 0o7777, 0o1770);
        let metadata = fs::metadata(data.join("a")).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1001, 1002));
        fs::write(data.join("a"), "of the container").unwrap();
        volumes.ensure(&id(), Some(&image)).unwrap();
        assert_eq!(
            fs::read_to_string(data.join("a")).unwrap(),
            "of the container"
        );
        fs::remove_file(data.join("a")).unwrap();
        volumes.ensure(&id(), Some(&image)).unwrap();
        assert_eq!(fs::read_to_string(data.join("a")).unwrap(), "of the image");
    }

    #[test]
    fn what_came_ahead_is_discarded_only_with_the_container_it_came_with() {
        let host = tempfile::tempdir().unwrap();
        let volumes = Volumes::new(host.path());
        let [mine, other] = [1, 2].map(|byte| ContainerId::from_bytes([byte; 32]));
        volumes.expect(&id(), &mine).unwrap();
        volumes.ensure(&id(), None).unwrap();
        volumes.discard(&id(), &other).unwrap();
        assert!(volumes.data(&id()).is_dir());
        volumes.discard(&id(), &mine).unwrap();
        assert!(!volumes.data(&id()).exists());
        volumes.expect(&id(), &mine).unwrap();
        volumes.ensure(&id(), None).unwrap();
        volumes.arrived(&id()).unwrap();
        volumes.discard(&id(), &mine).unwrap();
        assert!(volumes.data(&id()).is_dir(), "it is this host's");
        volumes.remove(&id()).unwrap();
        volumes.remove(&id()).unwrap();
        assert!(!volumes.data(&id()).exists());
    }
}
