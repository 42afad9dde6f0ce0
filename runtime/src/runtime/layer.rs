//! A container's writable layer ahead of its freeze: parts of it as files to send, and parts that
//! arrived.

use std::{
    fs::{self, File},
    io::BufReader,
    os::fd::AsRawFd,
    path::Path,
};

use godwit_types::ContainerId;

use super::{Result, Runtime, RuntimeError, blocking, mapped::mapped};
use crate::{
    checkpoint::CheckpointFile,
    rootfs::{
        Rootfs,
        diff::{self, Ahead, Mark},
    },
};

/// What a part is called on its way.
pub const LAYER: &str = "layer";
/// A part ends with the file that brings it over this: it is kept on a disk on both sides.
const PART: u64 = 256 << 20;

/// One stream of a round. Dropped, its space is free again.
pub struct LayerPart {
    file: File,
    size: u64,
}

impl LayerPart {
    /// Good as long as the part is.
    pub fn file(&self) -> CheckpointFile {
        CheckpointFile {
            name: LAYER.to_owned(),
            path: format!("/proc/self/fd/{}", self.file.as_raw_fd()).into(),
            size: self.size,
        }
    }
}

impl Runtime {
    /// Nothing of it was sent yet. None: this layer can't be sent ahead.
    pub fn layer(&self, id: &ContainerId) -> Option<Ahead> {
        let upper = Rootfs::new(&self.paths(id).rootfs()).upper();
        Ahead::fits(&upper).then(|| Ahead::new(&upper))
    }

    /// Finds what changed since the last look.
    pub async fn look(&self, id: &ContainerId, mut layer: Ahead) -> Result<Ahead> {
        let cgroup = self.cgroup(id);
        blocking(move || {
            let mut failed = None;
            layer.look(|| {
                mapped(&cgroup).unwrap_or_else(|error| {
                    failed = Some(error);
                    diff::Mapped::default()
                })
            })?;
            failed.map_or(Ok(layer), Err)
        })
        .await
    }

    /// The next part of what a look found; None: that was all.
    pub async fn layer_part(
        &self,
        id: &ContainerId,
        mut layer: Ahead,
    ) -> Result<(Ahead, Option<LayerPart>)> {
        let path = self.paths(id).dir.join(LAYER);
        blocking(move || {
            let failed = |source| RuntimeError::Io {
                path: path.clone(),
                source,
            };
            let options = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .create(true)
                .truncate(true)
                .open(&path);
            let file = options.map_err(failed)?;
            // Whatever happens, nothing of it is left.
            fs::remove_file(&path).map_err(failed)?;
            let Some(_) = layer.part(&file, PART)? else {
                return Ok((layer, None));
            };
            let size = file.metadata().map_err(failed)?.len();
            Ok((layer, Some(LayerPart { file, size })))
        })
        .await
    }

    /// Brings the layer of a container that is awaited from `base` to what the part that arrived
    /// makes of it. After an error there is none.
    pub async fn apply_layer(&self, id: &ContainerId, base: Mark) -> Result<Mark> {
        let paths = self.paths(id);
        blocking(move || {
            let arrived = paths.incoming().join(LAYER);
            let mark = bring(&arrived, &Rootfs::new(&paths.rootfs()), base)?;
            fs::remove_file(&arrived).map_err(|source| RuntimeError::Io {
                path: arrived,
                source,
            })?;
            Ok(mark)
        })
        .await
    }
}

/// Applies a stream to a layer that is not mounted. One against nothing begins anew.
pub(super) fn bring(stream: &Path, rootfs: &Rootfs, base: Mark) -> Result<Mark> {
    let open = || {
        let file = File::open(stream).map_err(|source| RuntimeError::Io {
            path: stream.to_owned(),
            source,
        })?;
        Ok::<_, RuntimeError>(BufReader::new(file))
    };
    let upper = rootfs.upper();
    if diff::base(open()?)? != Mark::NOTHING {
        let aside = rootfs.dir().join("aside");
        return Ok(diff::apply(open()?, &upper, &aside, base)?.mark);
    }
    rootfs.remove()?;
    fs::create_dir_all(&upper).map_err(|source| RuntimeError::Io {
        path: upper.clone(),
        source,
    })?;
    Ok(diff::unpack(open()?, &upper)?.mark)
}
