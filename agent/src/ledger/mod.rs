//! The agent's memory of what it was told: one file per container under `<data>/ledger`.
//!
//! It is what fences (the highest generation seen) and what makes commands repeatable (the
//! answers given). A file is replaced as a whole and is on disk before the answer it holds is
//! given. A file that can't be read is never taken for a container that was never seen: its
//! container is refused until a person has looked.

mod record;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
    time::{Duration, SystemTime},
};

use godwit_types::ContainerId;
use serde::Deserialize;

pub use record::{Answer, Arrived, Finished, KEPT, Life, Record, Role, Stored, VERSION};

/// How long a container that has left is remembered.
pub const REMEMBERED: Duration = Duration::from_secs(24 * 60 * 60);

#[derive(Debug, thiserror::Error)]
pub enum LedgerError {
    #[error("can't make ledger directory `{path}`")]
    Make {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't read ledger `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't write ledger `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("ledger `{path}` is damaged: the container is refused until the file is repaired")]
    Damaged {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("ledger `{path}` is of another container: the container is refused")]
    Foreign { path: PathBuf },
    #[error("ledger `{path}` has version {version}, newer than {VERSION}; upgrade this agent")]
    Version { path: PathBuf, version: u32 },
}

/// The ledger's directory. Its calls block on the disk.
#[derive(Debug, Clone)]
pub struct Ledger {
    dir: PathBuf,
}

impl Ledger {
    /// Makes the directory when it is missing, and clears away what an interrupted write left.
    pub fn open(dir: PathBuf) -> Result<Self, LedgerError> {
        let failed = |source| LedgerError::Make {
            path: dir.clone(),
            source,
        };
        fs::create_dir_all(&dir).map_err(failed)?;
        for entry in fs::read_dir(&dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            if path.extension().is_some_and(|extension| extension == "tmp") {
                fs::remove_file(path).map_err(failed)?;
            }
        }
        Ok(Self { dir })
    }

    /// None: this host never heard of the container.
    pub fn load(&self, container: &ContainerId) -> Result<Option<Record>, LedgerError> {
        #[derive(Deserialize)]
        struct Versioned {
            version: u32,
        }
        let path = self.path(container);
        let text = match fs::read(&path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(LedgerError::Read { path, source }),
        };
        let damaged = |source| LedgerError::Damaged {
            path: path.clone(),
            source,
        };
        let Versioned { version } = serde_json::from_slice(&text).map_err(damaged)?;
        if version > VERSION {
            return Err(LedgerError::Version { path, version });
        }
        let record: Record = serde_json::from_slice(&text).map_err(damaged)?;
        if record.container != *container {
            return Err(LedgerError::Foreign { path });
        }
        Ok(Some(record))
    }

    /// Replaces the container's file; it is on disk when this returns.
    pub fn store(&self, record: &Record) -> Result<(), LedgerError> {
        let path = self.path(&record.container);
        let text = serde_json::to_vec(record).expect("a record serializes to JSON");
        replace(&self.dir, &path, &text).map_err(|source| LedgerError::Write { path, source })
    }

    /// Forgets the containers that left more than [`REMEMBERED`] ago. A file that can't be read
    /// stays. Answers how many were forgotten.
    pub fn prune(&self, now_ms: u64) -> Result<usize, LedgerError> {
        let failed = |source| LedgerError::Read {
            path: self.dir.clone(),
            source,
        };
        let mut forgotten = 0;
        for entry in fs::read_dir(&self.dir).map_err(failed)? {
            let path = entry.map_err(failed)?.path();
            let container = path
                .file_stem()
                .and_then(|stem| stem.to_str())
                .and_then(|stem| ContainerId::new(stem).ok());
            let Some(container) = container else { continue };
            let Ok(Some(record)) = self.load(&container) else {
                continue;
            };
            if let Role::None { since_ms } = record.role
                && Duration::from_millis(now_ms.saturating_sub(since_ms)) > REMEMBERED
            {
                fs::remove_file(&path).map_err(|source| LedgerError::Write { path, source })?;
                forgotten += 1;
            }
        }
        Ok(forgotten)
    }

    fn path(&self, container: &ContainerId) -> PathBuf {
        self.dir.join(format!("{container}.json"))
    }
}

/// Either the old content or the new one survives a crash, never a part.
fn replace(dir: &Path, path: &Path, text: &[u8]) -> io::Result<()> {
    let beside = path.with_extension("tmp");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .open(&beside)?;
    file.write_all(text)?;
    file.sync_data()?;
    fs::rename(&beside, path)?;
    File::open(dir)?.sync_all()
}

/// Milliseconds since 1970.
pub fn now_ms() -> u64 {
    SystemTime::now()
        .duration_since(SystemTime::UNIX_EPOCH)
        .map_or(0, |since| since.as_millis() as u64)
}
