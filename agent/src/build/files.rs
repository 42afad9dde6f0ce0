//! The steps that only change files: `COPY`, `ADD` and `WORKDIR`, in a mounted overlay. All of it
//! blocks.

use std::{
    fs,
    os::unix::fs::{DirBuilderExt, PermissionsExt},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use godwit_runtime::{
    Interrupt,
    build::{
        Expanded, Source,
        copy::{self, Found, Target},
    },
    container::resolve_user,
    image::{
        Store,
        author::{Authored, Clamp},
    },
    rootfs::Rootfs,
};
use godwit_types::Digest;

use super::error::StepError;

/// What a copy is from.
#[derive(Debug, Clone)]
pub enum From {
    Context(PathBuf),
    /// The root of a stage or an image, to be mounted at a root of its own.
    Layers {
        shown: String,
        layers: Vec<Digest>,
        root: Rootfs,
    },
}

/// One step's layer.
#[derive(Debug, Clone)]
pub struct Making {
    pub store: Store,
    /// Of the stage so far, bottom first.
    pub layers: Vec<Digest>,
    /// Where it is mounted.
    pub root: Rootfs,
    /// What is below a stage that has no layer.
    pub empty: PathBuf,
    pub clamp: Clamp,
    pub interrupt: Interrupt,
}

/// A copy: where from, what, and where the texts of heredocs are put.
#[derive(Debug, Clone)]
pub struct Copying {
    pub add: bool,
    pub from: From,
    pub expanded: Expanded,
    pub texts: PathBuf,
}

impl Copying {
    /// What a copy from a stage or an image depends on, told without looking at a file.
    pub fn origin(&self) -> Option<[u8; 32]> {
        let From::Layers { layers, .. } = &self.from else {
            return None;
        };
        let mut hash = blake3::Hasher::new();
        for layer in layers {
            hash.update(layer.as_str().as_bytes());
        }
        hash.update(format!("{:?}", self.expanded.sources).as_bytes());
        Some(hash.finalize().into())
    }

    /// A digest of what is copied.
    pub fn content(&self, making: &Making) -> Result<[u8; 32], StepError> {
        let owners = matches!(self.from, From::Layers { .. });
        self.with_sources(making, |found| {
            Ok(copy::digest(found, owners, &|| !making.interrupt.is_set())?)
        })
    }

    /// Copies, and makes what that changed a layer.
    pub fn make(&self, making: &Making) -> Result<Authored, StepError> {
        self.with_sources(making, |found| {
            making.layer(|root| {
                let target = Target {
                    root,
                    dest: &self.expanded.dest,
                    owner: self.owner(root)?,
                    mode: self.expanded.chmod,
                    unpack: self.add,
                    go_on: &|| !making.interrupt.is_set(),
                };
                Ok(copy::copy(found, &target)?)
            })
        })
    }

    /// Names are looked up in the image that is made.
    fn owner(&self, root: &Path) -> Result<Option<(u32, u32)>, StepError> {
        let Some(text) = &self.expanded.chown else {
            return Ok(match (&self.from, self.add) {
                // Whose it is there, or whom an archive names.
                (From::Layers { .. }, _) | (_, true) => None,
                (From::Context(_), false) => Some((0, 0)),
            });
        };
        let user = resolve_user(root, text).map_err(|source| StepError::Owner {
            owner: text.clone(),
            source,
        })?;
        // A number without a group is that group, too.
        let gid = match text.parse::<u32>() {
            Ok(number) => number,
            Err(_) => user.gid,
        };
        Ok(Some((user.uid, gid)))
    }

    fn with_sources<T>(
        &self,
        making: &Making,
        work: impl FnOnce(&[Found]) -> Result<T, StepError>,
    ) -> Result<T, StepError> {
        match &self.from {
            From::Context(dir) => {
                let found = self.find(dir, "the build context")?;
                work(&found)
            }
            From::Layers {
                shown,
                layers,
                root,
            } => mounted(making, root, layers, |dir| {
                let found = self.find(dir, shown)?;
                work(&found)
            }),
        }
    }

    fn find(&self, dir: &Path, shown: &str) -> Result<Vec<Found>, StepError> {
        let mut found = Vec::new();
        for source in &self.expanded.sources {
            match source {
                Source::Path(path) => found.extend(copy::find(dir, path, shown)?),
                Source::Text(text) => {
                    let path = self.texts.join(&text.name);
                    let written = write_text(&self.texts, &path, &text.text);
                    written.map_err(|source| StepError::Io(text.name.clone(), source))?;
                    found.extend(copy::find(&self.texts, &text.name, "the Dockerfile")?);
                }
            }
        }
        Ok(found)
    }
}

/// The text of a heredoc as a file; of no particular time, so that it makes the same layer again.
fn write_text(dir: &Path, path: &Path, text: &str) -> std::io::Result<()> {
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(dir)?;
    fs::write(path, text)?;
    fs::set_permissions(path, fs::Permissions::from_mode(0o644))?;
    let file = fs::File::options().write(true).open(path)?;
    file.set_modified(SystemTime::UNIX_EPOCH + Duration::from_secs(1))
}

impl Making {
    /// Makes a directory of the image. None: it was there.
    pub fn directory(&self, path: &str) -> Result<Option<Authored>, StepError> {
        let mut made = false;
        let there = self.store.unpacked(&self.layers).unwrap_or_default();
        // Most often it is, and there is nothing to mount then.
        let relative = path.trim_start_matches('/');
        let plain = there.last().map(|top| top.join(relative));
        if plain.is_some_and(|path| fs::symlink_metadata(path).is_ok_and(|found| found.is_dir())) {
            return Ok(None);
        }
        let authored = self.layer_if(|root| {
            made = copy::directory(root, path)?;
            Ok(made)
        })?;
        Ok(authored)
    }

    fn layer(
        &self,
        work: impl FnOnce(&Path) -> Result<(), StepError>,
    ) -> Result<Authored, StepError> {
        let authored = self.layer_if(|root| work(root).map(|()| true))?;
        authored.ok_or(StepError::Interrupted)
    }

    /// What the work changed in the root; None: it says that nothing did.
    fn layer_if(
        &self,
        work: impl FnOnce(&Path) -> Result<bool, StepError>,
    ) -> Result<Option<Authored>, StepError> {
        let changed = mounted(self, &self.root, &self.layers, work)?;
        let authored = changed.then(|| {
            let go_on = || !self.interrupt.is_set();
            self.store
                .author(&self.layers, &self.root.upper(), self.clamp, &go_on)
        });
        let authored = authored.transpose();
        let removed = self.root.remove();
        let authored = authored?;
        removed?;
        Ok(authored)
    }
}

/// Does something with layers that are mounted, and unmounts them. What was written stays in the
/// root's writable layer.
fn mounted<T>(
    making: &Making,
    root: &Rootfs,
    layers: &[Digest],
    work: impl FnOnce(&Path) -> Result<T, StepError>,
) -> Result<T, StepError> {
    let missing = || StepError::NoImage("a layer of an earlier step".to_owned());
    let mut paths = making.store.unpacked(layers).ok_or_else(missing)?;
    if paths.is_empty() {
        paths.push(making.empty.clone());
    }
    root.mount(&paths)?;
    let result = work(&root.merged());
    let unmounted = root.unmount();
    let value = result?;
    unmounted?;
    Ok(value)
}
