//! The table that tells CRIU's interposer which pages are carried; its layout is described in
//! `runtime/interpose/src/hidden.rs`.

use std::{
    fs::File,
    io,
    os::{
        fd::{AsFd, BorrowedFd},
        unix::fs::FileExt,
    },
};

use super::maps;

const MAGIC: &[u8; 8] = b"GODWHIDE";
/// Names the table's descriptor in CRIU's environment.
pub const VARIABLE: &str = "GODWIT_HIDDEN_FD";

/// Made before CRIU starts, filled once every task is stopped.
pub struct Table {
    file: File,
}

impl Table {
    pub fn new() -> io::Result<Self> {
        let flags = rustix::fs::MemfdFlags::CLOEXEC;
        let file = rustix::fs::memfd_create("godwit-hidden", flags)?;
        Ok(Self { file: file.into() })
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Hides the carried memory of these tasks. They must be stopped.
    pub fn fill(&self, pids: &[i32]) -> io::Result<()> {
        let mut pids = pids.to_vec();
        pids.sort_unstable();
        let mut words: Vec<u64> = vec![0];
        for pid in pids {
            let spans = match maps::carried(pid) {
                Ok(spans) => spans,
                // It has ended, or is a zombie: nothing to hide.
                Err(error) if ended(&error) => continue,
                Err(error) => return Err(error),
            };
            for span in spans {
                words.extend([pid as u64, span.start, span.end]);
                words[0] += 1;
            }
        }
        let bytes: Vec<u8> = words.iter().flat_map(|word| word.to_ne_bytes()).collect();
        self.file.write_all_at(&bytes, 8)?;
        self.file.write_all_at(MAGIC, 0)
    }
}

pub(super) fn ended(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound || error.raw_os_error() == Some(nix::libc::ESRCH)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_the_layout_that_is_read() {
        let table = Table::new().unwrap();
        let me = std::process::id() as i32;
        table.fill(&[i32::MAX, me]).unwrap();
        let mut head = [0; 16];
        table.file.read_exact_at(&mut head, 0).unwrap();
        assert_eq!(&head[..8], MAGIC);
        let count = u64::from_ne_bytes(head[8..].try_into().unwrap());
        assert!(count > 0);
        assert_eq!(table.file.metadata().unwrap().len(), 16 + 24 * count);
        let mut first = [0; 8];
        table.file.read_exact_at(&mut first, 16).unwrap();
        assert_eq!(u64::from_ne_bytes(first), me as u64);
    }
}
