//! What the command line does, without a terminal: it makes a cluster's first files, reaches the
//! cluster, follows logs and migrations, and says which hint and exit code belong to a failure.
//!
//! Nothing here prints or reads arguments; the binary `godwit` beside it does both.

pub mod address;
pub mod archive;
pub mod author;
pub mod client;
pub mod cluster;
pub mod context;
pub mod docker_view;
pub mod door;
pub mod drain;
pub mod env;
pub mod error;
pub mod exit_code;
pub mod hint;
pub mod images;
pub mod keys;
pub mod logs;
pub mod membership;
pub mod migration;
pub mod moment;
pub mod observe;
pub mod registries;
pub mod session;
pub mod template;
