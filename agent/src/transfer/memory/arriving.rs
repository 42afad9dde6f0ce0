//! The memory of one container that is awaited: what came, over which lanes, and whether it is
//! whole.

use std::{
    collections::BTreeSet,
    sync::{Arc, Mutex},
};

use godwit_runtime::memory::{Fingerprint, Frame, Store, StoreError, difference};

use super::LANES;

#[derive(Debug, thiserror::Error)]
pub enum MemoryError {
    #[error("lane {lane} of {lanes} is not one of those that were opened")]
    Lane { lane: u32, lanes: u32 },
    #[error("memory is not awaited any more")]
    Shut,
    #[error("memory is not whole: {closed} of {lanes} lanes came to their end")]
    NotWhole { closed: usize, lanes: u32 },
    #[error(
        "memory of task {} is not the source's: {} pages that hash to {:016x} came, and {} that \
         hash to {:016x} are there",
        came.task, came.pages, came.hash, there.pages, there.hash
    )]
    Differs {
        came: Fingerprint,
        there: Fingerprint,
    },
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// See the module.
pub struct Arriving {
    state: Mutex<State>,
}

enum State {
    Open {
        store: Arc<Store>,
        /// 0: no lane was opened yet.
        lanes: u32,
        joined: BTreeSet<u32>,
        closed: BTreeSet<u32>,
        /// What the source's tasks hold, if it is to be compared.
        there: Option<Vec<Fingerprint>>,
    },
    /// Taken, or given up.
    Shut,
}

impl Arriving {
    /// `limit`: the most bytes that are taken.
    pub fn new(limit: u64) -> Self {
        Self {
            state: Mutex::new(State::Open {
                store: Arc::new(Store::new(limit)),
                lanes: 0,
                joined: BTreeSet::new(),
                closed: BTreeSet::new(),
                there: None,
            }),
        }
    }

    /// A lane begins. Each can only once: one that broke has lost something.
    pub fn join(&self, lane: u32, of: u32) -> Result<(), MemoryError> {
        let mut state = self.state.lock().expect("no holder panics");
        let State::Open { lanes, joined, .. } = &mut *state else {
            return Err(MemoryError::Shut);
        };
        let fits = (1..=LANES).contains(&of) && lane < of && (*lanes == 0 || *lanes == of);
        if !fits || !joined.insert(lane) {
            return Err(MemoryError::Lane { lane, lanes: of });
        }
        *lanes = of;
        Ok(())
    }

    pub fn apply(&self, frame: &Frame) -> Result<(), MemoryError> {
        let store = match &*self.state.lock().expect("no holder panics") {
            State::Open { store, .. } => store.clone(),
            State::Shut => return Err(MemoryError::Shut),
        };
        Ok(store.apply(frame)?)
    }

    /// A lane came to its end, and what it brought was counted. The last one is not at its end
    /// before what came was compared with what any of them said is `there`; that walks all of it.
    pub fn close(&self, lane: u32, there: Option<Vec<Fingerprint>>) -> Result<(), MemoryError> {
        let (store, there) = {
            let mut state = self.state.lock().expect("no holder panics");
            let State::Open {
                store,
                lanes,
                closed,
                there: known,
                ..
            } = &mut *state
            else {
                return Err(MemoryError::Shut);
            };
            if there.is_some() {
                *known = there;
            }
            match known {
                Some(there) if closed.len() + 1 == *lanes as usize => {
                    (store.clone(), std::mem::take(there))
                }
                _ => {
                    closed.insert(lane);
                    return Ok(());
                }
            }
        };
        let came = store.fingerprints()?;
        if let Some((came, there)) = difference(&came, &there) {
            return Err(MemoryError::Differs { came, there });
        }
        drop(store);
        if let State::Open { closed, .. } = &mut *self.state.lock().expect("no holder panics") {
            closed.insert(lane);
        }
        Ok(())
    }

    /// The store, if memory was to come this way at all. Nothing arrives any more.
    pub fn take(&self) -> Result<Option<Store>, MemoryError> {
        let mut state = self.state.lock().expect("no holder panics");
        let State::Open { lanes, closed, .. } = &*state else {
            return Err(MemoryError::Shut);
        };
        let (lanes, closed) = (*lanes, closed.len());
        if closed != lanes as usize {
            return Err(MemoryError::NotWhole { closed, lanes });
        }
        match std::mem::replace(&mut *state, State::Shut) {
            State::Open { store, .. } if lanes > 0 => Arc::into_inner(store)
                .map(Some)
                .ok_or(MemoryError::NotWhole { closed, lanes }),
            _ => Ok(None),
        }
    }

    /// Whether any lane was opened.
    pub fn has_begun(&self) -> bool {
        matches!(&*self.state.lock().expect("no holder panics"),
            State::Open { lanes, .. } if *lanes > 0)
    }

    /// Gives up what came.
    pub fn shut(&self) {
        *self.state.lock().expect("no holder panics") = State::Shut;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_whole_when_every_lane_came_to_its_end() {
        let arriving = Arriving::new(1 << 20);
        assert!(!arriving.has_begun());
        arriving.join(0, 2).unwrap();
        for (lane, of) in [(0, 2), (2, 2), (1, 3), (0, 0), (1, LANES + 1)] {
            assert!(arriving.join(lane, of).is_err(), "{lane} of {of}");
        }
        arriving.join(1, 2).unwrap();
        let frame = Frame::pages(1, 0x10000, vec![1; 4096].into());
        arriving.apply(&frame).unwrap();
        arriving.close(0, None).unwrap();
        assert!(matches!(arriving.take(), Err(MemoryError::NotWhole { .. })));
        arriving.close(1, None).unwrap();
        assert_eq!(arriving.take().unwrap().unwrap().bytes(), 4096);
        assert!(matches!(arriving.apply(&frame), Err(MemoryError::Shut)));
        assert!(arriving.take().is_err() && arriving.join(0, 2).is_err());
    }

    #[test]
    fn memory_that_is_not_the_sources_is_not_whole() {
        let page = [7; 4096];
        let mut there = Fingerprint::of(1);
        there.add(0x10000, &page);
        for (address, equal) in [(0x10000, true), (0x11000, false)] {
            let arriving = Arriving::new(1 << 20);
            arriving.join(0, 2).unwrap();
            arriving.join(1, 2).unwrap();
            let frame = Frame::pages(1, address, page.to_vec().into());
            arriving.apply(&frame).unwrap();
            arriving.close(1, Some(vec![there])).unwrap();
            let closed = arriving.close(0, None);
            assert_eq!(closed.is_ok(), equal);
            assert_eq!(arriving.take().is_ok(), equal);
            if let Err(error) = closed {
                assert!(error.to_string().contains("task 1"), "{error}");
            }
        }
    }

    #[test]
    fn none_may_come_at_all() {
        let arriving = Arriving::new(1 << 20);
        assert!(arriving.take().unwrap().is_none());
        let arriving = Arriving::new(1 << 20);
        arriving.shut();
        assert!(arriving.take().is_err());
    }
}
