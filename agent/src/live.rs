//! The settings that change while the agent runs.

use std::sync::{Arc, Mutex};

use crate::host::Host;

/// What they are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Live {
    /// Bytes of memory that arriving containers leave for others. None: a tenth of what is
    /// available.
    pub memory_reserve: Option<u64>,
    /// Compare the memory of containers that leave with what came, in the freeze.
    pub verify_memory: bool,
}

/// Where they are looked up, each time anew.
#[derive(Debug, Default)]
pub struct LiveSettings(Mutex<Live>);

impl LiveSettings {
    pub fn new(live: Live) -> Self {
        Self(Mutex::new(live))
    }

    pub fn verify_memory(&self) -> bool {
        self.0.lock().expect("no holder panics").verify_memory
    }
}

/// Changes them.
pub struct Reload(pub(crate) Arc<Host>);

impl Reload {
    pub fn set(&self, live: &Live) {
        let reserve = godwit_runtime::memory::Reserve(live.memory_reserve);
        self.0.runtime.set_reserve(reserve);
        *self.0.live.0.lock().expect("no holder panics") = live.clone();
    }
}
