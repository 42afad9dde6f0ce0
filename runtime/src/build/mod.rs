//! Dockerfiles: read, planned, and the parts of a build that touch files.
//!
//! ```text
//! text ──lines──▶ logical lines ──parse──▶ instructions ──plan──▶ stages, those that are needed
//!                                                            │
//!            stage: one stage's configuration, as instructions change it (pure)
//!            key:   what a step's result depends on (pure)
//!            copy:  COPY and ADD into a mounted root;  archive: contexts and ADD's tars
//!            cache: results of steps by their keys, on disk
//! ```
//!
//! Which crate reads a Dockerfile was looked at first: those there are drop the name of a heredoc
//! that is copied, know one heredoc per instruction, or leave out instructions; so the reader is
//! ours, after BuildKit's rules.
//!
//! What drives a build, and runs its commands in containers, is the agent.

pub mod archive;
mod cache;
pub mod copy;
mod error;
mod expand;
mod glob;
mod instruction;
mod key;
mod lines;
mod parse;
mod plan;
mod stage;
mod values;

pub use cache::{Cache, CacheError, Cached};
pub use error::{BuildFault, Refused};
pub use expand::{Words, expand, split};
pub use instruction::{Command, Copy, Health, Heredoc, Instruction, Kind, Network, Run, Source};
pub use key::Key;
pub use parse::{Dockerfile, changes, parse};
pub use plan::{Base, Plan, StagePlan, plan};
pub use stage::{Arguments, Expanded, Stage};
pub use values::normalized;
