//! From what a user asked for to what the shim can create: directories, the OCI bundle, the
//! user and the command resolved inside the image.

mod bundle;
mod command;
mod etc;
mod images;
mod mounts;
mod paths;
mod user;

pub use bundle::{Bundle, MASKED_FILES, binds};
pub use command::{CommandError, resolve as resolve_command};
pub use images::{make_in_memory, remove_images};
pub use mounts::{host_mounts, missing_bind, mount_point, oci_mounts};
pub use paths::{HELD, InstancePaths, remove_tree, write_atomic};
pub use user::{User, UserError, resolve as resolve_user};
