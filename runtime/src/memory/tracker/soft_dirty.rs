//! By the kernel's soft-dirty bits (`CONFIG_MEM_SOFT_DIRTY`): `clear_refs` clears them, and a write
//! sets the page's again. New and moved mappings have all of theirs set, and a forked child those of
//! its parent.
//!
//! A bit that is set between reading and clearing is lost, and the page with it: both are done while
//! every thread of the process is stopped. That takes some 10 ms a GiB, each round.

use std::{fs, io};

use crate::memory::{
    maps::{self, Span},
    pagemap::{Bits, Pagemap},
    sys::{Region, with_stopped},
};

/// `CLEAR_REFS_SOFT_DIRTY`
const CLEAR: &str = "4";

#[derive(Default)]
pub struct SoftDirty {
    /// Its bits were cleared before.
    known: bool,
}

impl SoftDirty {
    pub fn take(&mut self, pid: i32) -> io::Result<Vec<Region>> {
        let known = self.known;
        let mut found = with_stopped(pid, |_| {
            let found = look(pid, &maps::carried(pid)?)?;
            clear(pid)?;
            Ok(found)
        })?;
        if !known {
            // Somebody else may have cleared them.
            found.iter_mut().for_each(|region| region.written = true);
        }
        self.known = true;
        Ok(found)
    }

    /// What a stopped process wrote since.
    pub fn look(&self, pid: i32, spans: &[Span]) -> io::Result<Vec<Region>> {
        look(pid, spans)
    }
}

fn look(pid: i32, spans: &[Span]) -> io::Result<Vec<Region>> {
    Pagemap::open(pid)?.populated(spans)
}

fn clear(pid: i32) -> io::Result<()> {
    fs::write(format!("/proc/{pid}/clear_refs"), CLEAR)
}

/// Tries it on a page of this process.
pub fn works() -> Result<(), String> {
    let failed = |what: &str, error: io::Error| format!("{what}: {error}");
    let me = std::process::id() as i32;
    // A whole page among them is nobody else's.
    let mut memory = vec![1u8; 2 * crate::memory::PAGE as usize];
    let page = (memory.as_ptr() as u64).next_multiple_of(crate::memory::PAGE);
    let offset = (page - memory.as_ptr() as u64) as usize;
    let pagemap = Pagemap::open(me).map_err(|error| failed("pagemap", error))?;
    let dirty = || {
        let bits = pagemap.bits(page);
        bits.map_err(|error| failed("pagemap", error))
            .map(Bits::is_soft_dirty)
    };
    clear(me).map_err(|error| failed("clear_refs", error))?;
    let before = dirty()?;
    std::hint::black_box(&mut memory)[offset] = 2;
    judge(before, dirty()?)
}

/// Whether a page was marked after its bit was cleared, and after it was then written.
fn judge(cleared: bool, written: bool) -> Result<(), String> {
    match (cleared, written) {
        (false, true) => Ok(()),
        (true, _) => Err("a cleared mark stays set".to_owned()),
        (false, false) => Err("a page that was written is not marked".to_owned()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_works_where_a_write_sets_what_was_cleared() {
        assert_eq!(judge(false, true), Ok(()));
        for (cleared, written) in [(true, true), (true, false), (false, false)] {
            judge(cleared, written).unwrap_err();
        }
    }

    #[test]
    fn all_is_written_at_first_and_the_process_goes_on() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        // Until it is `sleep`, with all of its own memory: an exec gives the name first.
        let named =
            || fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "sleep\n");
        while !named() || crate::memory::maps::vdso(pid).is_err() {
            std::thread::yield_now();
        }
        let pages = |regions: &[Region], written: bool| -> u64 {
            let fits = regions.iter().filter(|region| !written || region.written);
            fits.map(|region| region.span.pages()).sum()
        };
        let mut tracker = SoftDirty::default();
        let first = tracker.take(pid);
        let second = tracker.take(pid);
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        let (first, second) = (first.unwrap(), second.unwrap());
        assert!(pages(&first, false) > 0);
        assert_eq!(pages(&first, true), pages(&first, false));
        // Asleep, it writes little if anything.
        assert!(pages(&second, true) < pages(&second, false));
        assert!(status.contains("TracerPid:\t0\n"), "{status}");
    }

    #[test]
    fn a_kernel_is_believed_only_when_its_bits_follow_writes() {
        // What this kernel can is said by a page of this test's own, read by itself.
        let mut memory = vec![1u8; 3 * 4096];
        let page = (memory.as_ptr() as u64).next_multiple_of(4096);
        let offset = (page - memory.as_ptr() as u64) as usize;
        let me = std::process::id() as i32;
        let bit = || {
            Pagemap::open(me)
                .unwrap()
                .bits(page)
                .unwrap()
                .is_soft_dirty()
        };
        let cleared = clear(me).is_ok() && !bit();
        std::hint::black_box(&mut memory)[offset] = 2;
        assert_eq!(works().is_ok(), cleared && bit());
    }
}
