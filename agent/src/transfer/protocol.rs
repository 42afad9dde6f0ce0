//! What a push is on the wire.
//!
//! ```text
//! source                                              destination
//!   │ Open {version, migration, container, generation}     │  expected? from this host?
//!   │─────────────────────────────────────────────────────▶│
//!   │ File {name, size}                                    │  name stays in its folder, is
//!   │─────────────────────────────────────────────────────▶│  new, and there is room
//!   │ data, data, …          each at most limits::CHUNK    │  hash, write
//!   │─────────────────────────────────────────────────────▶│
//!   │ End {hash}                                           │  all bytes there, hash equal
//!   │─────────────────────────────────────────────────────▶│
//!   │   … more files …                                     │
//!   │ Close {files, bytes}                                 │  both equal
//!   │─────────────────────────────────────────────────────▶│
//!   │                                   PushReply {bytes}  │  complete: it may be staged
//!   │◀─────────────────────────────────────────────────────│
//! ```
//!
//! The destination's states: `Between` (awaits File or Close), `Within` a file (awaits data or
//! End), `Closed`. Anything else, an end of the stream before Close included, ends the push
//! with an error, and what was written is removed.
//!
//! Version rule: the destination refuses a version higher than its own.

use godwit_proto::{
    failure::problem,
    transfer::{Open, PushChunk, push_chunk::Chunk},
};
use godwit_types::{ContainerId, Generation, IdError, MigrationId};
use tonic::{Code, Status};

/// The version this build sends and the highest it accepts.
pub const VERSION: u32 = 1;
/// Most files in one push.
pub const FILES: u32 = 65_536;

/// Which container's checkpoint it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Passage {
    pub migration: MigrationId,
    pub container: ContainerId,
    /// The one after the commit.
    pub generation: Generation,
    /// Private memory comes another way, and the container can't be restored without it.
    pub carried: bool,
}

/// Why an Open was not understood.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the push does not begin with an open")]
    Missing,
    #[error("push version {0} is newer than {VERSION}, the highest this agent reads; upgrade it")]
    Version(u32),
    #[error("open names no valid container or migration")]
    Id(#[from] IdError),
}

impl Passage {
    pub fn open(&self) -> PushChunk {
        chunk(Chunk::Open(self.opening()))
    }

    pub fn opening(&self) -> Open {
        Open {
            version: VERSION,
            migration: self.migration.to_string(),
            container: self.container.to_string(),
            generation: self.generation.0,
            carried: self.carried,
        }
    }

    pub fn read(first: Option<PushChunk>) -> Result<Self, OpenError> {
        let Some(PushChunk {
            chunk: Some(Chunk::Open(open)),
        }) = first
        else {
            return Err(OpenError::Missing);
        };
        Self::of(&open)
    }

    pub fn of(open: &Open) -> Result<Self, OpenError> {
        if open.version > VERSION {
            return Err(OpenError::Version(open.version));
        }
        Ok(Self {
            migration: open.migration.parse()?,
            container: open.container.parse()?,
            generation: Generation(open.generation),
            carried: open.carried,
        })
    }
}

/// What the other agent answered, or what became of the connection to it.
pub fn said(status: &Status) -> String {
    let message = status.message();
    match status.code() {
        Code::Unknown | Code::Unavailable | Code::Aborted | Code::Cancelled | Code::Internal
            if problem(status).is_none() =>
        {
            format!("the connection broke: {message}")
        }
        _ => message.to_owned(),
    }
}

pub fn chunk(chunk: Chunk) -> PushChunk {
    PushChunk { chunk: Some(chunk) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_open_reads_back_and_a_newer_one_is_refused() {
        let passage = Passage {
            migration: MigrationId::from_bytes([1; 8]),
            container: ContainerId::from_bytes([2; 32]),
            generation: Generation(3),
            carried: true,
        };
        assert_eq!(Passage::read(Some(passage.open())).unwrap(), passage);
        assert!(matches!(Passage::read(None), Err(OpenError::Missing)));
        let Some(Chunk::Open(mut open)) = passage.open().chunk else {
            unreachable!()
        };
        open.version += 1;
        let newer = Some(chunk(Chunk::Open(open)));
        assert!(matches!(Passage::read(newer), Err(OpenError::Version(2))));
    }
}
