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

/// Bytes of memory that can be taken without hurting anybody.
pub fn available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no MemAvailable"))
}
