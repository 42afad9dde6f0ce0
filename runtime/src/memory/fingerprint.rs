//! What one task's carried memory holds, in one number: to compare source and destination in the
//! freeze, when somebody asks for it.
//!
//! The source's is made from the memory of its stopped tasks, not from what was sent; so it finds
//! what tracking missed. It walks all memory.

use std::{collections::BTreeMap, io};

use twox_hash::XxHash3_64;

use super::{
    PAGE,
    frame::{self, cells},
    hidden::ended,
    maps,
    read::{fill, is_zero},
    session::inner_pid,
    tracker,
};

/// Of one task. Pages of zeros are as good as none.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Fingerprint {
    /// The task's pid inside the container.
    pub task: u32,
    /// Pages that hold anything but zeros.
    pub pages: u64,
    /// Over their addresses and bytes.
    pub hash: u64,
}

impl Fingerprint {
    pub fn of(task: u32) -> Self {
        Self {
            task,
            pages: 0,
            hash: 0,
        }
    }

    /// Whole pages, in the order of their addresses.
    pub fn add(&mut self, address: u64, bytes: &[u8]) {
        let pages = (address..).step_by(PAGE as usize);
        for (address, page) in pages.zip(bytes.chunks_exact(PAGE as usize)) {
            if !is_zero(page) {
                let next = frame::hash(self.task, address, page);
                self.hash = XxHash3_64::oneshot_with_seed(self.hash, &next.to_le_bytes());
                self.pages += 1;
            }
        }
    }

    /// None: its task holds nothing.
    pub fn anything(self) -> Option<Self> {
        (self.pages > 0).then_some(self)
    }
}

/// Of the tasks with these pids, which must be stopped; in the order of their pids inside the
/// container.
pub fn fingerprints(pids: &[i32]) -> io::Result<Vec<Fingerprint>> {
    let mut found = Vec::new();
    for pid in pids {
        match of_task(*pid) {
            Ok(print) => found.extend(print.anything()),
            // A zombie has no memory.
            Err(error) if ended(&error) => {}
            Err(error) => return Err(error),
        }
    }
    found.sort_by_key(|print| print.task);
    Ok(found)
}

fn of_task(pid: i32) -> io::Result<Fingerprint> {
    let mut print = Fingerprint::of(inner_pid(pid)?);
    for region in tracker::untracked(pid, &maps::carried(pid)?)? {
        for span in cells(region.span) {
            let mut buffer = vec![0; (span.end - span.start) as usize];
            if let Some(page) = fill(pid, span.start, &mut buffer)?.first() {
                let address = span.start + *page as u64 * PAGE;
                let text = format!("page {address:#x} of task {} can't be read", print.task);
                return Err(io::Error::other(text));
            }
            print.add(span.start, &buffer);
        }
    }
    Ok(print)
}

/// The first task that is not the same, with what each side has of it.
pub fn difference(
    one: &[Fingerprint],
    other: &[Fingerprint],
) -> Option<(Fingerprint, Fingerprint)> {
    let by_task = |prints: &[Fingerprint]| -> BTreeMap<u32, Fingerprint> {
        prints.iter().map(|print| (print.task, *print)).collect()
    };
    let (one, other) = (by_task(one), by_task(other));
    one.keys().chain(other.keys()).find_map(|task| {
        let of = |side: &BTreeMap<u32, Fingerprint>| {
            side.get(task).copied().unwrap_or(Fingerprint::of(*task))
        };
        (of(&one) != of(&other)).then(|| (of(&one), of(&other)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_that_changed_moved_or_is_missing_makes_another_fingerprint() {
        let of = |pages: &[(u64, u8)]| {
            let mut print = Fingerprint::of(1);
            for (number, byte) in pages {
                print.add(number * PAGE, &[*byte; PAGE as usize]);
            }
            print
        };
        let print = of(&[(1, 1), (2, 2), (9, 3)]);
        assert_eq!(print, of(&[(1, 1), (2, 2), (3, 0), (9, 3)]));
        for other in [
            &[(1, 1), (2, 2)][..],
            &[(1, 1), (2, 2), (9, 4)],
            &[(1, 1), (3, 2), (9, 3)],
            &[(1, 2), (2, 1), (9, 3)],
            &[(1, 1), (2, 2), (9, 3), (10, 1)],
        ] {
            assert_ne!(print, of(other));
        }
    }

    #[test]
    fn the_first_task_that_differs_is_named() {
        let print = |task, hash| Fingerprint {
            task,
            pages: 1,
            hash,
        };
        let one = [print(1, 5), print(2, 6)];
        assert_eq!(difference(&one, &one), None);
        assert_eq!(
            difference(&one, &[print(1, 5), print(2, 7)]),
            Some((print(2, 6), print(2, 7)))
        );
        let none = Fingerprint::of(2);
        assert_eq!(difference(&one, &one[..1]), Some((print(2, 6), none)));
        assert_eq!(difference(&one[..1], &one), Some((none, print(2, 6))));
    }

    #[test]
    fn a_task_has_the_fingerprint_of_its_memory() {
        let mut child = std::process::Command::new("sleep")
            .arg("60")
            .spawn()
            .unwrap();
        let pid = child.id() as i32;
        let until = |state: &str| {
            let stat = || std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
            while !stat().contains(&format!(") {state} ")) {
                std::thread::sleep(std::time::Duration::from_millis(1));
            }
        };
        until("S");
        let signal = nix::sys::signal::Signal::SIGSTOP;
        nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), signal).unwrap();
        until("T");
        let first = fingerprints(&[pid]).unwrap();
        let again = fingerprints(&[pid]).unwrap();
        let heap = maps::carried(pid).unwrap()[0];
        let mem = std::fs::File::options()
            .write(true)
            .open(format!("/proc/{pid}/mem"))
            .unwrap();
        std::os::unix::fs::FileExt::write_all_at(&mem, b"changed", heap.start).unwrap();
        let changed = fingerprints(&[pid]).unwrap();
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(first[0].pages > 0);
        assert_eq!(first, again);
        assert_eq!(first[0].task, changed[0].task);
        assert_ne!(first[0].hash, changed[0].hash);
    }
}
