//! Images that are made on this host: builds, imports and commits.
//!
//! ```text
//! request ─▶ receive ─▶ job: the stages in turn
//!                        ├─ config only: runtime::build::Stage
//!                        ├─ known: runtime::build::Cache
//!                        ├─ RUN: step, a container of this runtime's
//!                        └─ COPY, ADD, WORKDIR: files, in a mounted overlay
//!                              every one's writable layer ─▶ runtime::image::author
//! <data>/builds/cache        results by their keys
//! <data>/builds/work/<id>    one build under way: context, roots, and in `held` what it has
//!                            beside them, so that the next agent can clear it away
//! ```
//!
//! The containers of steps are no containers of the cluster: no ledger knows them, and they end
//! with their build. While a build is under way its layers are had by images without a name.

mod error;
mod files;
mod job;
mod leases;
mod receive;
mod step;

pub mod service;

pub use leases::{Builds, clear_leftovers};
