//! A container's writable layer and its volumes ahead of its freeze: parts of them as files to send,
//! and parts that arrived.

use std::{
    fs::{self, File},
    io::BufReader,
    os::fd::AsRawFd,
    path::{Path, PathBuf},
};

use godwit_types::{ContainerId, ContainerSpec, MountSource, VolumeId};

use super::{Result, Runtime, RuntimeError, blocking, mapped::mapped, volumes};
use crate::{
    checkpoint::CheckpointFile,
    container::mount_point,
    rootfs::{
        Rootfs,
        diff::{self, Ahead, Mapped, Mark},
    },
    volume::Volumes,
};

/// What a part of the writable layer is called on its way.
pub const LAYER: &str = "layer";
/// What a part of a volume is called on its way: this, and the volume's id.
pub const VOLUME: &str = "volume-";
/// A part ends with the file that brings it over this: it is kept on a disk on both sides.
const PART: u64 = 256 << 20;

/// A writable layer or a volume on its way: what the destination has of it by now.
pub struct Moving {
    name: String,
    /// Where a volume is mounted, without the first slash. Empty: it is the writable layer.
    mounts: Vec<PathBuf>,
    ahead: Ahead,
}

impl Moving {
    /// What its parts are called: [`LAYER`], or [`VOLUME`] and an id.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The last stream.
    pub(super) fn finish(self, out: File) -> Result<()> {
        self.ahead.finish(out)?;
        Ok(())
    }
}

/// Of the files that processes have mapped, those of a volume that is mounted there.
fn own(mounts: &[PathBuf], mapped: Mapped) -> Mapped {
    if mounts.is_empty() {
        return mapped;
    }
    let inside = |path: &PathBuf| {
        let mut mounts = mounts.iter();
        mounts.find_map(|mount| path.strip_prefix(mount).ok().map(Path::to_owned))
    };
    Mapped {
        paths: mapped.paths.iter().filter_map(inside).collect(),
        others: mapped.others,
    }
}

/// One stream of a round. Dropped, its space is free again.
pub struct LayerPart {
    name: String,
    file: File,
    size: u64,
}

impl LayerPart {
    /// Good as long as the part is.
    pub fn file(&self) -> CheckpointFile {
        CheckpointFile {
            name: self.name.clone(),
            path: format!("/proc/self/fd/{}", self.file.as_raw_fd()).into(),
            size: self.size,
        }
    }
}

/// What the parts of a volume, and the last of them in the freeze, are called.
pub(super) fn volume_part(id: &VolumeId) -> String {
    format!("{VOLUME}{id}")
}

impl Runtime {
    /// Its writable layer and its volumes, nothing of which was sent yet. One that can't be sent
    /// ahead is left out.
    pub fn moving(&self, id: &ContainerId) -> Vec<Moving> {
        let mut moving = Vec::new();
        let rootfs = Rootfs::new(&self.paths(id).rootfs());
        let upper = rootfs.upper();
        if Ahead::fits(&upper) {
            moving.push(Moving {
                name: LAYER.to_owned(),
                mounts: Vec::new(),
                ahead: Ahead::new(&upper),
            });
        }
        let Ok(spec) = self.spec(id) else {
            return moving;
        };
        for volume in volumes::ids(&spec) {
            let data = self.inner.volumes.data(&volume);
            if Ahead::fits(&data) {
                moving.push(Moving {
                    name: volume_part(&volume),
                    mounts: mounts_of(&spec, &volume, &rootfs.merged()),
                    ahead: Ahead::new(&data),
                });
            }
        }
        moving
    }

    /// Finds what changed since the last look.
    pub async fn look(&self, id: &ContainerId, mut moving: Moving) -> Result<Moving> {
        let cgroup = self.cgroup(id);
        blocking(move || {
            let mut failed = None;
            let mounts = &moving.mounts;
            moving.ahead.look(|| match mapped(&cgroup) {
                Ok(mapped) => own(mounts, mapped),
                Err(error) => {
                    failed = Some(error);
                    Mapped::default()
                }
            })?;
            failed.map_or(Ok(moving), Err)
        })
        .await
    }

    /// The next part of what a look found; None: that was all.
    pub async fn layer_part(
        &self,
        id: &ContainerId,
        mut moving: Moving,
    ) -> Result<(Moving, Option<LayerPart>)> {
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
            let Some(_) = moving.ahead.part(&file, PART)? else {
                return Ok((moving, None));
            };
            let size = file.metadata().map_err(failed)?.len();
            let name = moving.name.clone();
            Ok((moving, Some(LayerPart { name, file, size })))
        })
        .await
    }

    /// Brings the layer of a container that is awaited, or one of its volumes, from `base` to what
    /// the part `name` that arrived makes of it. After an error there is none.
    pub async fn apply_layer(&self, id: &ContainerId, name: &str, base: Mark) -> Result<Mark> {
        let (paths, volumes) = (self.paths(id), self.inner.volumes.clone());
        let volume = match name.strip_prefix(VOLUME) {
            None => None,
            Some(text) => {
                let spec = self.spec(id)?;
                let found = volumes::ids(&spec).into_iter().find(|v| v.as_str() == text);
                Some(found.ok_or_else(|| RuntimeError::NotFound(name.to_owned()))?)
            }
        };
        let name = name.to_owned();
        blocking(move || {
            let arrived = paths.incoming().join(&name);
            let mark = match &volume {
                Some(volume) => volumes.bring(volume, &arrived, base)?,
                None => bring(&arrived, &Rootfs::new(&paths.rootfs()), base)?,
            };
            fs::remove_file(&arrived).map_err(|source| RuntimeError::Io {
                path: arrived,
                source,
            })?;
            Ok(mark)
        })
        .await
    }
}

fn mounts_of(spec: &ContainerSpec, id: &VolumeId, root: &Path) -> Vec<PathBuf> {
    let mounts = spec.options.storage.mounts.iter();
    mounts
        .filter(|mount| {
            matches!(&mount.source, MountSource::Volume(volume) if volume.id.as_ref() == Some(id))
        })
        .map(|mount| {
            let path = mount_point(root, &mount.destination);
            PathBuf::from(path.trim_start_matches('/'))
        })
        .collect()
}

/// The last stream of each volume, as it arrived.
pub(super) fn bring_volumes(
    incoming: &Path,
    spec: &ContainerSpec,
    volumes: &Volumes,
    mark: impl Fn(&str) -> Mark,
) -> Result<()> {
    for volume in volumes::ids(spec) {
        let name = volume_part(&volume);
        volumes.bring(&volume, &incoming.join(&name), mark(&name))?;
    }
    Ok(())
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
