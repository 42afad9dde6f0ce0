//! Can this host's kernel carry memory at all?

use std::{fs, io};

use super::{
    maps::Span,
    sys::{self, Kind, Scan},
};

/// Why it can't, in words for an operator. Asked once at the agent's start.
pub fn supported() -> Result<(), String> {
    let tracking = sys::userfaultfd().and_then(|fault| fault.track_writes());
    tracking.map_err(|error| {
        format!("writes to memory can't be tracked (Linux 6.7 or newer with userfaultfd): {error}")
    })?;
    let nothing = Span { start: 0, end: 0 };
    Scan::open(std::process::id() as i32)
        .and_then(|mut scan| scan.populated(nothing, Kind::Look, &mut Vec::new()))
        .map_err(|error| format!("written pages can't be listed: {error}"))
}

/// Bytes of memory that are kept for others than containers that arrive. None: a tenth of what is
/// available then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reserve(pub Option<u64>);

impl Reserve {
    /// What it leaves of the memory available now. A host that does not say what it has, has
    /// enough.
    pub fn leaves(self) -> u64 {
        available().map_or(u64::MAX, |bytes| self.leaves_of(bytes))
    }

    fn leaves_of(self, available: u64) -> u64 {
        available.saturating_sub(self.0.unwrap_or(available / 10))
    }
}

/// Bytes of memory that can be taken without hurting anybody.
fn available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_kept_for_others_is_not_for_arrivals() {
        assert_eq!(Reserve(None).leaves_of(1000), 900);
        assert_eq!(Reserve(Some(300)).leaves_of(1000), 700);
        assert_eq!(Reserve(Some(3000)).leaves_of(1000), 0);
        assert!(Reserve::default().leaves() > 0);
    }
}
