//! Who works while a container stands still comes first.
//!
//! Every process of CRIU's, and every message between it and the shim, waits for a processor when
//! others work. The restored tasks do not keep it: CRIU gives each the nice value that it had.

use std::{fs, io};

use rustix::process::{Pid, getpriority_process, setpriority_process};

const FIRST: i32 = -20;
/// The nice value of the session: counts where no cgroup has a share of the processor.
const SESSION: &str = "/proc/self/autogroup";

/// This process, and what it starts, as long as this value lives. Without the privilege, it is
/// as urgent as before.
pub struct Urgent {
    process: Option<i32>,
    session: Option<i32>,
}

impl Urgent {
    pub fn new() -> Self {
        let process = getpriority_process(None)
            .ok()
            .filter(|_| setpriority_process(None, FIRST).is_ok());
        let session = session().filter(|_| set_session(FIRST).is_ok());
        Self { process, session }
    }
}

impl Drop for Urgent {
    fn drop(&mut self) {
        if let Some(nice) = self.process {
            let _ = setpriority_process(None, nice);
        }
        if let Some(nice) = self.session {
            let _ = set_session(nice);
        }
    }
}

/// For a child that was started before.
pub fn hurry(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = setpriority_process(Some(pid), FIRST);
    }
}

/// `/autogroup-31 nice 0`
fn session() -> Option<i32> {
    let text = fs::read_to_string(SESSION).ok()?;
    text.trim_end().rsplit_once(" nice ")?.1.parse().ok()
}

fn set_session(nice: i32) -> io::Result<()> {
    fs::write(SESSION, nice.to_string())
}
