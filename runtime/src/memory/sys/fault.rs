//! `userfaultfd`: tracking writes, and serving page faults.

use std::{
    fs::File,
    io,
    os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::libc;

use super::check;
use crate::memory::{PAGE, maps::Span};

const API: u64 = 0xaa;
const UFFDIO_API: u64 = 0xc018_aa3f;
const UFFDIO_REGISTER: u64 = 0xc020_aa00;
const UFFDIO_WAKE: u64 = 0x8010_aa02;
const UFFDIO_COPY: u64 = 0xc028_aa03;
const UFFDIO_ZEROPAGE: u64 = 0xc020_aa04;

const PAGEFAULT_FLAG_WP: u64 = 1 << 0;
const WP_HUGETLBFS_SHMEM: u64 = 1 << 12;
const WP_UNPOPULATED: u64 = 1 << 13;
const WP_ASYNC: u64 = 1 << 15;
const REGISTER_MODE_WP: u64 = 1 << 1;

const EVENT_PAGEFAULT: u8 = 0x12;
const EVENT_FORK: u8 = 0x13;
const EVENT_REMAP: u8 = 0x14;
const EVENT_REMOVE: u8 = 0x15;
const EVENT_UNMAP: u8 = 0x16;

/// A userfaultfd of another task.
pub struct Fault(OwnedFd);

/// What a task did with memory that is registered for missing pages.
#[derive(Debug)]
pub enum Event {
    Missing {
        address: u64,
    },
    Fork {
        child: Fault,
    },
    Remap {
        from: u64,
        to: u64,
        length: u64,
    },
    /// Emptied; the next touch finds zeros.
    Remove(Span),
    Unmap(Span),
}

impl AsFd for Fault {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fault({})", self.0.as_raw_fd())
    }
}

impl Fault {
    pub fn new(fd: OwnedFd) -> Self {
        Self(fd)
    }

    fn ioctl<T>(&self, request: u64, argument: &mut T) -> io::Result<()> {
        // SAFETY: every caller below hands over the struct that its request is defined with.
        check(libc::c_long::from(unsafe {
            libc::ioctl(
                self.0.as_raw_fd(),
                request as _,
                core::ptr::from_mut(argument),
            )
        }))
        .map(drop)
    }

    /// Makes it track writes without stopping who writes. Kernels before 6.7 refuse.
    pub fn track_writes(&self) -> io::Result<()> {
        let features = PAGEFAULT_FLAG_WP | WP_HUGETLBFS_SHMEM | WP_UNPOPULATED | WP_ASYNC;
        self.ioctl(UFFDIO_API, &mut [API, features, 0])
    }

    /// Tracks the writes to a mapping. Once more is harmless.
    pub fn register(&self, span: Span) -> io::Result<()> {
        let mut argument = [span.start, span.end - span.start, REGISTER_MODE_WP, 0];
        self.ioctl(UFFDIO_REGISTER, &mut argument)
    }

    /// Fills pages that are missing, and wakes who waits for them. Answers how many bytes from
    /// the beginning were filled; an error when it is none.
    pub fn copy(&self, address: u64, source: &[u8]) -> io::Result<u64> {
        let mut argument = [
            address,
            source.as_ptr() as u64,
            source.len() as u64,
            0,
            0u64,
        ];
        let done = self.ioctl(UFFDIO_COPY, &mut argument);
        partial(done, argument[4] as i64)
    }

    /// As [`copy`](Self::copy), with zeros.
    pub fn zero(&self, span: Span) -> io::Result<u64> {
        let mut argument = [span.start, span.end - span.start, 0, 0u64];
        let done = self.ioctl(UFFDIO_ZEROPAGE, &mut argument);
        partial(done, argument[3] as i64)
    }

    pub fn wake(&self, span: Span) -> io::Result<()> {
        self.ioctl(UFFDIO_WAKE, &mut [span.start, span.end - span.start])
    }

    /// The next event, None when none waits.
    pub fn next(&self) -> io::Result<Option<Event>> {
        let mut message = [0u64; 4];
        // SAFETY: the buffer has room for one message of 32 bytes.
        let read = check(unsafe {
            libc::read(
                self.0.as_raw_fd(),
                message.as_mut_ptr().cast(),
                size_of_val(&message),
            )
        } as libc::c_long);
        match read {
            Ok(32) => {}
            Ok(_) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(None),
            Err(error) => return Err(error),
        }
        let [head, first, second, third] = message;
        let span = Span {
            start: first,
            end: second,
        };
        Ok(Some(match head as u8 {
            EVENT_PAGEFAULT => Event::Missing {
                address: second & !(PAGE - 1),
            },
            EVENT_FORK => Event::Fork {
                // SAFETY: the kernel made this descriptor for whoever reads the message.
                child: Self(unsafe { OwnedFd::from_raw_fd(first as u32 as i32) }),
            },
            EVENT_REMAP => Event::Remap {
                from: first,
                to: second,
                length: third,
            },
            EVENT_REMOVE => Event::Remove(span),
            EVENT_UNMAP => Event::Unmap(span),
            other => return Err(io::Error::other(format!("unknown event {other:#x}"))),
        }))
    }
}

fn partial(done: io::Result<()>, bytes: i64) -> io::Result<u64> {
    match done {
        Ok(()) => Ok(bytes as u64),
        Err(_) if bytes > 0 => Ok(bytes as u64),
        Err(error) => Err(error),
    }
}

/// A part of a file, readable as memory.
pub struct Mapped {
    address: *mut libc::c_void,
    length: usize,
}

impl Mapped {
    pub fn new(file: &File, offset: u64, length: usize) -> io::Result<Self> {
        // SAFETY: a new mapping that nothing else refers to.
        let address = unsafe {
            libc::mmap(
                core::ptr::null_mut(),
                length,
                libc::PROT_READ,
                libc::MAP_SHARED,
                file.as_raw_fd(),
                offset as libc::off_t,
            )
        };
        if address == libc::MAP_FAILED {
            return Err(io::Error::last_os_error());
        }
        Ok(Self { address, length })
    }

    /// Its bytes. Nobody writes the file any more once it is served from.
    pub fn bytes(&self) -> &[u8] {
        // SAFETY: the mapping is this long and lives as long as `self`; the store's files are
        // longer than any span that is asked for, so no access is beyond their end.
        unsafe { core::slice::from_raw_parts(self.address.cast(), self.length) }
    }
}

impl Drop for Mapped {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { libc::munmap(self.address, self.length) };
    }
}
