//! Which pushes this host expects, and how far they are.
//!
//! A door opens when a container was prepared and closes when the container is discarded or
//! resumed. One push at a time goes through: a newer one, of a source that lost its connection,
//! calls the older one off and waits until it has let go of the files.

use std::{
    collections::{BTreeMap, HashMap},
    sync::{Arc, Mutex},
};

use godwit_runtime::{memory::Store, rootfs::diff::Mark};
use godwit_types::{CommandFailure, ContainerId, FailureKind, Generation, HostName, MigrationId};
use tokio::sync::{Mutex as AsyncMutex, OwnedMutexGuard, watch};

use super::{memory::Arriving, protocol::Passage};

/// What a push must be to get in.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expected {
    pub migration: MigrationId,
    pub generation: Generation,
    pub from: HostName,
}

/// How far the container behind a door is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// Nothing that could be used.
    Empty,
    /// A whole push, its hashes checked. `carried`: it is nothing without the memory.
    Complete { carried: bool },
    /// It is being restored, or the door is gone: nothing more may be written.
    Shut,
}

/// Why a push does not get in.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum DoorError {
    #[error("container {0} is not awaited on this host")]
    NotAwaited(String),
    #[error("container is awaited by migration {expected}, not by {given}")]
    Migration {
        expected: MigrationId,
        given: MigrationId,
    },
    #[error("container is awaited with generation {expected}, not {given}")]
    Generation {
        expected: Generation,
        given: Generation,
    },
    #[error("container is awaited from host `{expected}`, not from `{given}`")]
    Caller { expected: HostName, given: String },
    #[error("container has everything it needs")]
    Shut,
}

struct Door {
    expected: Expected,
    /// Counts those that want to be alone behind the door; the one inside then leaves.
    knocks: watch::Sender<u64>,
    /// Locked by the push that is inside.
    progress: Arc<AsyncMutex<Progress>>,
    memory: Arc<Arriving>,
    /// What the parts of the writable layer and of volumes came to that came ahead, by name.
    layers: Mutex<BTreeMap<String, Mark>>,
}

/// What came before a restore, besides the files of the push.
#[derive(Default)]
pub struct Arrived {
    pub memory: Option<Store>,
    pub layers: BTreeMap<String, Mark>,
}

/// A push that got in.
pub struct Inside {
    carried: bool,
    door: Arc<Door>,
    progress: OwnedMutexGuard<Progress>,
    knocks: watch::Receiver<u64>,
}

/// See the module.
#[derive(Default)]
pub struct Doors {
    doors: Mutex<HashMap<ContainerId, Arc<Door>>>,
}

impl Doors {
    /// Awaits a push. A door that was open for another one is forgotten.
    /// `memory`: the most bytes of it that may come ahead.
    pub fn open(&self, container: &ContainerId, memory: u64, expected: Expected) {
        let door = Door {
            expected,
            knocks: watch::Sender::new(0),
            progress: Arc::new(AsyncMutex::new(Progress::Empty)),
            memory: Arc::new(Arriving::new(memory)),
            layers: Mutex::default(),
        };
        self.doors
            .lock()
            .expect("no holder panics")
            .insert(container.clone(), Arc::new(door));
    }

    /// Awaits nothing any more; when it returns, nothing is being written.
    pub async fn close(&self, container: &ContainerId) {
        let door = self
            .doors
            .lock()
            .expect("no holder panics")
            .remove(container);
        if let Some(door) = door {
            door.memory.shut();
            door.knocks.send_modify(|count| *count += 1);
            *door.progress.lock().await = Progress::Shut;
        }
    }

    /// Where memory that goes ahead of a push is kept. `caller` is the name in its certificate.
    pub fn memory(&self, passage: &Passage, caller: &str) -> Result<Arc<Arriving>, DoorError> {
        Ok(self.check(passage, caller)?.memory.clone())
    }

    /// The door of what is expected.
    fn check(&self, passage: &Passage, caller: &str) -> Result<Arc<Door>, DoorError> {
        let door = self.find(&passage.container);
        let door =
            door.ok_or_else(|| DoorError::NotAwaited(passage.container.short().to_owned()))?;
        let Expected {
            migration,
            generation,
            from,
        } = &door.expected;
        // First of all, so that a stranger learns nothing of the migration.
        if from.as_str() != caller {
            return Err(DoorError::Caller {
                expected: from.clone(),
                given: caller.to_owned(),
            });
        }
        if *migration != passage.migration {
            let (expected, given) = (migration.clone(), passage.migration.clone());
            return Err(DoorError::Migration { expected, given });
        }
        if *generation != passage.generation {
            let (expected, given) = (*generation, passage.generation);
            return Err(DoorError::Generation { expected, given });
        }
        Ok(door)
    }

    /// Lets a push in, once those before it have left. `caller` is the name in its certificate.
    pub async fn enter(&self, passage: &Passage, caller: &str) -> Result<Inside, DoorError> {
        let door = self.check(passage, caller)?;
        door.knocks.send_modify(|count| *count += 1);
        let knocks = door.knocks.subscribe();
        let mut progress = door.progress.clone().lock_owned().await;
        if *progress == Progress::Shut {
            return Err(DoorError::Shut);
        }
        *progress = Progress::Empty;
        let carried = passage.carried;
        Ok(Inside {
            carried,
            door,
            progress,
            knocks,
        })
    }

    /// Lets no push in any more, if a whole one came: what comes next is the restore. Answers the
    /// memory and the layer that came ahead of it.
    pub fn shut_complete(
        &self,
        container: &ContainerId,
        migration: &MigrationId,
    ) -> Result<Arrived, CommandFailure> {
        let refused = |text: &str| Err(CommandFailure::new(FailureKind::WrongState, text));
        let door = self.find(container);
        let Some(door) = door.filter(|door| door.expected.migration == *migration) else {
            return refused("nothing was transferred since this agent started");
        };
        let Ok(mut progress) = door.progress.try_lock() else {
            return refused("the transfer is not complete");
        };
        match *progress {
            Progress::Empty => refused("the transfer is not complete"),
            Progress::Shut => refused("the container is being restored already"),
            Progress::Complete { carried } => {
                *progress = Progress::Shut;
                let taken = door.memory.take().map_err(|error| {
                    CommandFailure::new(FailureKind::WrongState, error.to_string())
                })?;
                let layers = door.layers.lock().expect("no holder panics").clone();
                match (carried, taken) {
                    (true, None) => refused("its memory did not come with it"),
                    (true, memory) => Ok(Arrived { memory, layers }),
                    // Sent ahead in vain: the push has everything.
                    (false, _) => Ok(Arrived {
                        memory: None,
                        layers,
                    }),
                }
            }
        }
    }

    fn find(&self, container: &ContainerId) -> Option<Arc<Door>> {
        self.doors
            .lock()
            .expect("no holder panics")
            .get(container)
            .cloned()
    }
}

impl Inside {
    /// Changes when the push has to leave.
    pub fn called_off(&self) -> watch::Receiver<u64> {
        self.knocks.clone()
    }

    /// What a layer is, while it is brought to something else: if that fails, it is nothing.
    pub fn take_layer(&self, name: &str) -> Mark {
        let mut layers = self.door.layers.lock().expect("no holder panics");
        layers.remove(name).unwrap_or_default()
    }

    /// What a layer was brought to.
    pub fn set_layer(&self, name: String, mark: Mark) {
        let mut layers = self.door.layers.lock().expect("no holder panics");
        layers.insert(name, mark);
    }

    pub fn complete(mut self) {
        *self.progress = Progress::Complete {
            carried: self.carried,
        };
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container() -> ContainerId {
        ContainerId::from_bytes([2; 32])
    }

    fn passage() -> Passage {
        Passage {
            migration: MigrationId::from_bytes([1; 8]),
            container: container(),
            generation: Generation(2),
            carried: false,
        }
    }

    fn doors() -> Doors {
        let doors = Doors::default();
        let from = HostName::new("h1").unwrap();
        let Passage {
            migration,
            generation,
            ..
        } = passage();
        doors.open(
            &container(),
            u64::MAX,
            Expected {
                migration,
                generation,
                from,
            },
        );
        doors
    }

    #[tokio::test]
    async fn only_the_expected_push_gets_in() {
        let doors = doors();
        let mut other = passage();
        other.generation = Generation(1);
        let refused = doors.enter(&other, "h1").await.err();
        assert!(matches!(refused, Some(DoorError::Generation { .. })));
        other = passage();
        other.migration = MigrationId::from_bytes([9; 8]);
        let refused = doors.enter(&other, "h1").await.err();
        assert!(matches!(refused, Some(DoorError::Migration { .. })));
        let refused = doors.enter(&passage(), "h3").await.err();
        assert!(matches!(refused, Some(DoorError::Caller { .. })));
        doors.enter(&passage(), "h1").await.unwrap().complete();
        doors.close(&container()).await;
        let refused = doors.enter(&passage(), "h1").await.err();
        assert!(matches!(refused, Some(DoorError::NotAwaited(_))));
    }

    #[tokio::test]
    async fn only_a_complete_push_can_be_restored_and_then_none_gets_in() {
        let doors = doors();
        let migration = passage().migration;
        let shut = || doors.shut_complete(&container(), &migration);
        assert_eq!(shut().err().unwrap().kind, FailureKind::WrongState);
        let inside = doors.enter(&passage(), "h1").await.unwrap();
        assert!(shut().is_err());
        inside.complete();
        shut().map(drop).unwrap();
        assert!(matches!(
            doors.enter(&passage(), "h1").await.err(),
            Some(DoorError::Shut)
        ));
    }

    #[tokio::test]
    async fn a_checkpoint_without_its_memory_is_not_restored() {
        let doors = doors();
        let mut carried = passage();
        carried.carried = true;
        let inside = doors.enter(&carried, "h1").await.unwrap();
        inside.complete();
        let refused = doors.shut_complete(&container(), &carried.migration);
        assert!(refused.err().unwrap().message.contains("memory"));
    }

    #[tokio::test]
    async fn a_newer_push_calls_the_older_one_off() {
        let doors = Arc::new(doors());
        let first = doors.enter(&passage(), "h1").await.unwrap();
        let mut called_off = first.called_off();
        let second = {
            let doors = doors.clone();
            tokio::spawn(async move { doors.enter(&passage(), "h1").await.map(Inside::complete) })
        };
        called_off.changed().await.unwrap();
        drop(first);
        second.await.unwrap().unwrap();
    }
}
