//! What builds have beside their directories, and how it is given back, also after a crash.

use std::{
    collections::BTreeSet,
    fs::{self, DirBuilder},
    io,
    net::Ipv4Addr,
    os::unix::fs::DirBuilderExt,
    path::{Path, PathBuf},
    sync::Mutex,
};

use godwit_proto::failure::chain;
use godwit_runtime::{Runtime, container::remove_tree, rootfs::Rootfs};
use godwit_types::{ContainerId, Digest, NetworkAttachment, NetworkName, NetworkSpec, Subnet};
use tracing::{info, warn};

/// The network of steps: each host's own, and no cluster network has its number or its addresses
/// (RFC 2544 keeps them for tests of devices).
const VNI: u32 = 0x00ff_fffe;
const SUBNET: &str = "198.19.240.0/20";

/// The builds of this host.
#[derive(Debug, Default)]
pub struct Builds {
    addresses: Mutex<BTreeSet<Ipv4Addr>>,
}

impl Builds {
    /// A place in the network of steps, for as long as a step takes. None: all are taken.
    pub fn attach(&self) -> Option<NetworkAttachment> {
        let subnet: Subnet = SUBNET.parse().ok()?;
        let mut taken = self.addresses.lock().expect("no holder panics");
        let address = subnet.hosts().find(|address| !taken.contains(address))?;
        taken.insert(address);
        Some(NetworkAttachment {
            network: NetworkSpec {
                name: NetworkName::new("build").ok()?,
                vni: VNI,
                subnet,
            },
            address,
        })
    }

    pub fn detach(&self, attachment: &NetworkAttachment) {
        let mut taken = self.addresses.lock().expect("no holder panics");
        taken.remove(&attachment.address);
    }
}

/// The directory of one build.
pub struct Workplace {
    dir: PathBuf,
}

impl Workplace {
    /// Makes a new one, called `name`.
    pub fn make(runtime: &Runtime, name: &str) -> io::Result<Self> {
        let dir = runtime.builds().join("work").join(name);
        let make = |path: &Path, mode| DirBuilder::new().recursive(true).mode(mode).create(path);
        make(&dir, 0o700)?;
        for below in ["context", "roots", "texts", "held"] {
            make(&dir.join(below), 0o700)?;
        }
        // What a stage from scratch has below: its mode becomes the root's.
        make(&dir.join("empty"), 0o755)?;
        Ok(Self { dir })
    }

    pub fn context(&self) -> PathBuf {
        self.dir.join("context")
    }

    pub fn empty(&self) -> PathBuf {
        self.dir.join("empty")
    }

    pub fn texts(&self, step: u32) -> PathBuf {
        self.dir.join("texts").join(step.to_string())
    }

    /// A root to be mounted; `what` tells those of one step apart.
    pub fn root(&self, step: u32, what: &str) -> Rootfs {
        Rootfs::new(&self.dir.join("roots").join(format!("{step}-{what}")))
    }

    /// Notes a container before it is made.
    pub fn hold_container(&self, id: &ContainerId) -> io::Result<()> {
        fs::write(self.dir.join("held").join(id.as_str()), "")
    }

    pub fn held_container(&self, id: &ContainerId) {
        let _ = fs::remove_file(self.dir.join("held").join(id.as_str()));
    }

    /// Notes an image without a name before it is made.
    pub fn hold_image(&self, id: &Digest) -> io::Result<()> {
        fs::write(
            self.dir.join("held").join(format!("image-{}", id.hex())),
            "",
        )
    }

    /// Leaves nothing. Goes on after a failure, and logs it.
    pub async fn clear(self, runtime: &Runtime) {
        clear(runtime, &self.dir).await;
    }
}

/// Clears away what builds left that ended with the agent before this one.
pub async fn clear_leftovers(runtime: &Runtime) {
    let Ok(entries) = fs::read_dir(runtime.builds().join("work")) else {
        return;
    };
    for entry in entries.flatten() {
        info!(path = %entry.path().display(), "clearing away a build that was cut off");
        clear(runtime, &entry.path()).await;
    }
}

async fn clear(runtime: &Runtime, dir: &Path) {
    let failed = |what: &str, error: &(dyn std::error::Error + 'static)| {
        warn!(path = %dir.display(), error = chain(error), "{what} of a build is left behind");
    };
    let mut images = Vec::new();
    let held = fs::read_dir(dir.join("held")).into_iter().flatten();
    for entry in held.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if let Some(hex) = name.strip_prefix("image-") {
            images.extend(format!("sha256:{hex}").parse::<Digest>());
        } else if let Ok(id) = ContainerId::new(name)
            && let Err(error) = runtime.remove(&id, true).await
        {
            failed("a container", &error);
        }
    }
    let (store, path) = (runtime.images().clone(), dir.to_owned());
    let cleared = tokio::task::spawn_blocking(move || {
        let forgotten = store.forget(&images);
        let mut unmounted = Ok(());
        for root in fs::read_dir(path.join("roots"))
            .into_iter()
            .flatten()
            .flatten()
        {
            unmounted = unmounted.and(Rootfs::new(&root.path()).remove());
        }
        // Never into a mount.
        let removed = match &unmounted {
            Ok(()) => remove_tree(&path),
            Err(_) => Ok(()),
        };
        (forgotten, unmounted, removed)
    });
    match cleared.await {
        Ok((forgotten, unmounted, removed)) => {
            if let Err(error) = forgotten {
                failed("an image", &error);
            }
            if let Err(error) = unmounted {
                failed("a mount", &error);
            }
            if let Err(error) = removed {
                failed("the directory", &error);
            }
        }
        Err(error) => failed("all", &error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_that_run_at_once_have_addresses_of_their_own() {
        let builds = Builds::default();
        let (a, b) = (builds.attach().unwrap(), builds.attach().unwrap());
        assert_ne!(a.address, b.address);
        builds.detach(&a);
        assert_eq!(builds.attach().unwrap().address, a.address);
    }
}
