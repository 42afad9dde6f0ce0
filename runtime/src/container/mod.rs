//! From what a user asked for to what the shim can create: directories, the OCI bundle, the
//! user and the command resolved inside the image.

mod bundle;
mod command;
mod confine;
mod etc;
mod images;
mod init;
mod mounts;
mod paths;
mod seccomp;
mod user;

pub use bundle::{Bundle, BundleError, INIT, MASKED_FILES, binds};
pub use command::{CommandError, resolve as resolve_command};
pub use confine::devices;
pub use images::{make_in_memory, remove_images};
pub use init::{install as install_init, path as init_path};
pub use mounts::{host_mounts, missing_bind, mount_point, oci_mounts};
pub use paths::{HELD, InstancePaths, WARNINGS, remove_tree, write_atomic};
pub use user::{User, UserError, resolve as resolve_user};
