//! CRIU's options for our containers: pure, and the same names that runc uses, so that archives
//! can be exchanged.
//!
//! | what | on dump | on restore |
//! |---|---|---|
//! | network namespace | external, `extRootNetNS` | the prepared one, by descriptor |
//! | stdout, stderr | half-open pipes, listed in `descriptors.json` | new pipes, by key `pipe:[inode]` |
//! | bind mounts, volumes | keyed by their destination | keyed by their destination |
//! | masked files | `/dev/null` | `/dev/null` |
//! | cgroups | not dumped | criu runs in the container's group |

use std::os::fd::RawFd;

use protobuf::EnumOrUnknown;
use rust_criu::rust_criu_protobuf::rpc::{
    Criu_cg_mode, Criu_network_lock_method, Criu_opts, Ext_mount_map, Inherit_fd,
};
use serde::{Deserialize, Serialize};

const NETNS_KEY: &str = "extRootNetNS";
/// Errors and warnings: more costs time inside the freeze.
const LOG_LEVEL: i32 = 2;

/// What a dump needs to know.
#[derive(Debug, Clone)]
pub struct DumpOptions {
    pub pid: i32,
    pub images: RawFd,
    /// The container's root as the host sees it.
    pub root: String,
    /// Inode of the network namespace.
    pub netns_inode: u64,
    pub mounts: Vec<Bind>,
    /// Binds that the user asked for: where each is mounted, and what the image calls it.
    pub places: Vec<(String, String)>,
    /// Destinations over which `/dev/null` is bound.
    pub masked: Vec<String>,
}

/// What a restore needs to know.
#[derive(Debug, Clone)]
pub struct RestoreOptions {
    pub images: RawFd,
    pub root: String,
    pub netns: RawFd,
    pub mounts: Vec<Bind>,
    /// Pipes by the key they had: `pipe:[inode]`.
    pub pipes: Vec<(String, RawFd)>,
    /// Private memory comes from the pager.
    pub lazy: bool,
}

/// A file of the host bound into the container.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Bind {
    pub destination: String,
    pub source: String,
}

impl DumpOptions {
    pub fn into_opts(self) -> Criu_opts {
        let mut opts = common("dump.log", self.images, self.root);
        opts.set_pid(self.pid);
        opts.external
            .push(format!("net[{}]:{NETNS_KEY}", self.netns_inode));
        for (at, name) in &self.places {
            opts.ext_mnt.push(map(at, name));
        }
        for bind in &self.mounts {
            opts.ext_mnt.push(map(&bind.destination, &bind.destination));
        }
        for path in &self.masked {
            opts.ext_mnt.push(map(path, "/dev/null"));
        }
        // A connection that is only being opened is opened again by its client.
        opts.set_tcp_skip_in_flight(true);
        opts
    }
}

impl RestoreOptions {
    pub fn into_opts(self) -> Criu_opts {
        let mut opts = common("restore.log", self.images, self.root);
        // The restored init becomes the shim's child, so that its exit code arrives there.
        opts.set_rst_sibling(true);
        opts.set_lazy_pages(self.lazy);
        opts.inherit_fd.push(inherit(NETNS_KEY, self.netns));
        for (key, fd) in &self.pipes {
            opts.inherit_fd.push(inherit(key, *fd));
        }
        for bind in &self.mounts {
            opts.ext_mnt.push(map(&bind.destination, &bind.source));
        }
        // On dump the value is what the image calls a mount; on restore that is the key.
        opts.ext_mnt.push(map("/dev/null", "/dev/null"));
        opts
    }
}

fn common(log: &str, images: RawFd, root: String) -> Criu_opts {
    let mut opts = Criu_opts::new();
    opts.set_images_dir_fd(images);
    opts.set_work_dir_fd(images);
    opts.set_log_level(LOG_LEVEL);
    opts.set_log_file(log.to_owned());
    opts.set_root(root);
    opts.set_tcp_established(true);
    opts.set_file_locks(true);
    opts.set_link_remap(true);
    opts.set_notify_scripts(true);
    // The master of a container's terminal is the shim's: it goes over the socket.
    opts.set_orphan_pts_master(true);
    opts.set_manage_cgroups(true);
    opts.manage_cgroups_mode = Some(EnumOrUnknown::new(Criu_cg_mode::IGNORE));
    // Our network gate is shut already.
    opts.network_lock = Some(EnumOrUnknown::new(Criu_network_lock_method::SKIP));
    opts
}

fn map(key: &str, val: &str) -> Ext_mount_map {
    let mut map = Ext_mount_map::new();
    map.set_key(key.to_owned());
    map.set_val(val.to_owned());
    map
}

fn inherit(key: &str, fd: RawFd) -> Inherit_fd {
    let mut inherit = Inherit_fd::new();
    inherit.set_key(key.to_owned());
    inherit.set_fd(fd);
    inherit
}

/// The key of a pipe with this inode.
pub fn pipe_key(inode: u64) -> String {
    format!("pipe:[{inode}]")
}

/// `descriptors.json`: what descriptors 0, 1 and 2 of the container's init were.
pub mod descriptors {
    use std::{fs, io, path::Path};

    pub const FILE: &str = "descriptors.json";

    pub fn write(images: &Path, descriptors: &[String; 3]) -> io::Result<()> {
        fs::write(images.join(FILE), serde_json::to_vec(descriptors)?)
    }

    /// Checked: a key that is neither a pipe nor `/dev/null` would let an archive name any file.
    pub fn read(images: &Path) -> io::Result<[String; 3]> {
        let descriptors: [String; 3] = serde_json::from_slice(&fs::read(images.join(FILE))?)?;
        for key in &descriptors {
            let pipe = key
                .strip_prefix("pipe:[")
                .and_then(|rest| rest.strip_suffix(']'))
                .is_some_and(|inode| inode.parse::<u64>().is_ok());
            if !pipe && key != "/dev/null" {
                return Err(io::Error::new(
                    io::ErrorKind::InvalidData,
                    format!(
                        "descriptor `{}` is neither a pipe nor `/dev/null`",
                        key.escape_debug()
                    ),
                ));
            }
        }
        Ok(descriptors)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_from_a_peer_are_checked() {
        let dir = tempfile::tempdir().unwrap();
        let good = ["/dev/null".to_owned(), pipe_key(5), pipe_key(6)];
        descriptors::write(dir.path(), &good).unwrap();
        assert_eq!(descriptors::read(dir.path()).unwrap(), good);
        descriptors::write(
            dir.path(),
            &["/etc/shadow".into(), pipe_key(5), pipe_key(6)],
        )
        .unwrap();
        assert!(descriptors::read(dir.path()).is_err());
    }

    #[test]
    fn a_restore_is_held_and_its_init_is_a_sibling() {
        let options = RestoreOptions {
            images: 9,
            root: "/r".into(),
            netns: 10,
            mounts: vec![Bind {
                destination: "/etc/hosts".into(),
                source: "/d/hosts".into(),
            }],
            pipes: vec![(pipe_key(5), 11)],
            lazy: false,
        }
        .into_opts();
        assert!(options.rst_sibling() && options.notify_scripts());
        assert_eq!(options.inherit_fd.len(), 2);
        assert_eq!(options.ext_mnt[0].val(), "/d/hosts");
        assert_eq!(options.ext_mnt[1].val(), "/dev/null");
    }
}
