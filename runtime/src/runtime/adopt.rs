//! A container that has lost its shim: killed by a person, or by the kernel when memory was short.
//! Its processes run on, or stay frozen; another shim takes them up.
//!
//! Not taken up is what is certain never to run (it was staged, see [`held`]), what did not come
//! through a resume in which its shim was killed, and what has lost memory that had not arrived in it
//! yet.

use std::{
    fs::File,
    io,
    path::Path,
    time::{Duration, Instant},
};

use godwit_types::{ContainerId, InstanceState};
use rustix::fs::{FlockOperation, flock};

use super::{Result, Runtime, RuntimeError, blocking, lifecycle::Start};
use crate::{
    cgroup::Group,
    container::InstancePaths,
    shim::{
        ShimError, held,
        kept::{self, Kept},
        protocol::feed,
        restored,
    },
};

/// How long a shim may take to listen, or to end once it is killed, and the time between two looks.
const ENDS: Duration = Duration::from_secs(2);
const LOOK: Duration = Duration::from_millis(5);

/// What there is of a container whose shim does not answer.
#[derive(Debug, PartialEq, Eq)]
enum Found {
    /// Nothing that another shim could take up; what is left on disk tells the rest.
    Nothing,
    /// A shim has the lock: it has begun this moment, or is about to end.
    Shim,
    /// It runs or is frozen, or has ended since.
    Container,
    Lost(&'static str),
}

impl Runtime {
    /// What it is doing once another shim has it.
    pub(super) async fn adopt(&self, id: &ContainerId) -> Result<InstanceState> {
        let paths = self.paths(id);
        // Most that have no shim have ended, and wait for nobody.
        if paths.exit().exists() || !kept::path(&paths.socket).exists() {
            return self.left_behind(id);
        }
        let _one = self.inner.adopting.lock().await;
        let deadline = Instant::now() + ENDS;
        loop {
            // By who had the lock before, or by a call of ours that was dropped.
            let answered = self.shim(id).state().await;
            if !matches!(
                answered,
                Err(ShimError::Gone { .. } | ShimError::BrokeOff(_))
            ) {
                return self.known(id, answered);
            }
            let (at, cgroup) = (paths.clone(), self.cgroup(id));
            match blocking(move || find(&at, &cgroup)).await? {
                Found::Nothing => return self.left_behind(id),
                Found::Lost(reason) => {
                    return Ok(InstanceState::Lost {
                        reason: reason.to_owned(),
                    });
                }
                // It listens in a moment, or is gone in one.
                Found::Shim if Instant::now() < deadline => tokio::time::sleep(LOOK).await,
                Found::Shim => return Err(ShimError::Silent(paths.socket).into()),
                Found::Container => {
                    tracing::warn!(
                        container = id.short(),
                        "its shim is gone: another takes it up"
                    );
                    self.start_shim(&paths, Start::Adopt).await?;
                    let answered = self.shim(id).state().await;
                    return match answered {
                        // It found that the container has ended.
                        Err(ShimError::Gone { .. } | ShimError::BrokeOff(_)) => {
                            self.left_behind(id)
                        }
                        answered => self.known(id, answered),
                    };
                }
            }
        }
    }
}

fn find(paths: &InstancePaths, cgroup: &str) -> Result<Found> {
    // Told already, or never to run.
    if paths.exit().exists() || held::is_proof(&paths.held()) {
        return Ok(Found::Nothing);
    }
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| RuntimeError::Io { path, source }
    };
    let path = kept::path(&paths.socket);
    let Some(kept) = Kept::read(&path).map_err(failed(&path))? else {
        return Ok(Found::Nothing);
    };
    let lock = kept::lock(&paths.socket);
    if is_locked(&lock).map_err(failed(&lock))? {
        return Ok(Found::Shim);
    }
    if let Some(restorer) = kept.restorer
        && !restored::runs(kept.init, restorer)
    {
        return Ok(Found::Lost("its shim was killed while it resumed it"));
    }
    let gone = kept.pager.is_some_and(|pager| !pager.lives());
    if gone && !kept::paged(&feed(&paths.socket)).exists() {
        // It would go on with zeros.
        Group::new(cgroup)?.kill()?;
        return Ok(Found::Lost(
            "its shim was killed, and with it what held memory that had not arrived in it yet",
        ));
    }
    Ok(Found::Container)
}

/// By a shim that lives.
fn is_locked(path: &Path) -> io::Result<bool> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&file, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(errno) => Err(errno.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shim::kept::Task;

    fn paths(base: &Path) -> InstancePaths {
        let paths = InstancePaths::new(base, base, &ContainerId::from_bytes([4; 32]));
        std::fs::create_dir_all(&paths.dir).unwrap();
        std::fs::create_dir_all(base.join("shims")).unwrap();
        paths
    }

    #[test]
    fn only_what_was_kept_and_has_no_shim_is_taken_up() {
        let base = tempfile::tempdir().unwrap();
        let paths = paths(base.path());
        let found = || find(&paths, "godwit-none").unwrap();
        assert_eq!(found(), Found::Nothing);
        let own = Task::of(std::process::id() as i32).unwrap();
        let mut kept = Kept::new(own, "pipe:[1]".into(), "pipe:[2]".into()).unwrap();
        let at = kept::path(&paths.socket);
        kept.write(&at).unwrap();
        assert_eq!(found(), Found::Container);

        let lock = File::create(kept::lock(&paths.socket)).unwrap();
        flock(&lock, FlockOperation::NonBlockingLockExclusive).unwrap();
        assert_eq!(found(), Found::Shim);
        drop(lock);
        assert_eq!(found(), Found::Container);

        let gone = Task {
            start: own.start - 1,
            ..own
        };
        kept.restorer = Some(gone);
        kept.write(&at).unwrap();
        assert_eq!(found(), Found::Container, "it came through its resume");
        kept.init = gone;
        kept.write(&at).unwrap();
        assert!(matches!(found(), Found::Lost(_)));
        held::begin(&paths.held()).unwrap();
        assert_eq!(found(), Found::Nothing, "it never ran");
        held::end(&paths.held()).unwrap();

        kept.restorer = None;
        kept.pager = Some(gone);
        kept.write(&at).unwrap();
        assert!(matches!(found(), Found::Lost(_)));
        std::fs::write(kept::paged(&feed(&paths.socket)), "").unwrap();
        assert_eq!(found(), Found::Container, "all memory had arrived");
        std::fs::write(paths.exit(), "{}").unwrap();
        assert_eq!(found(), Found::Nothing);
    }
}
