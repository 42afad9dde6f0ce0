//! The one place of the workloads with `unsafe`: processes, and memory that is mapped, moved,
//! shared and given back.

use std::{
    fs::File,
    io,
    os::fd::{AsRawFd, FromRawFd, OwnedFd},
    ptr,
    sync::atomic::AtomicU64,
};

use memmap2::MmapRaw;
use nix::libc::{self, c_int, c_void};

use super::page::SIZE;

/// The first eight bytes of a shared mapping.
pub fn atomic(map: &MmapRaw) -> &AtomicU64 {
    assert!(map.len() >= 8);
    // SAFETY: a mapping is page-aligned and at least eight bytes long, it lives as long as the
    // reference, and every process reaches these bytes only as an atomic.
    unsafe { AtomicU64::from_ptr(map.as_mut_ptr().cast()) }
}

/// The child's pid in the parent, none in the child.
///
/// The child has this thread alone: it may allocate (glibc sees to that), and must not wait for
/// what another thread held, such as the standard output's lock. See [`say`] and [`exit`].
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: what the child may do is said above, and its callers are in this folder.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(None),
        pid => Ok(Some(pid)),
    }
}

/// Ends a forked child at once: nothing that it shares with its parent is flushed or freed.
pub fn exit(code: i32) -> ! {
    // SAFETY: it takes a number and does not return.
    unsafe { libc::_exit(code) }
}

/// Writes a line to the standard output past its lock.
pub fn say(line: &str) {
    let line = format!("{line}\n");
    // SAFETY: pointer and length are those of a string that lives until the call returns.
    unsafe { libc::write(1, line.as_ptr().cast(), line.len()) };
}

/// Has the kernel kill whoever does one of these system calls: this thread, and what it starts and
/// forks from now on.
pub fn forbid(calls: &[libc::c_long]) -> io::Result<()> {
    let step = |code: u32, jt: u8, jf: u8, k: u32| libc::sock_filter {
        code: code as u16,
        jt,
        jf,
        k,
    };
    // The call's number is the first field of what a filter sees.
    let mut filter = vec![step(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, 0, 0, 0)];
    for (index, call) in calls.iter().enumerate() {
        let to_kill = (calls.len() - index) as u8;
        let equal = libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K;
        filter.push(step(equal, to_kill, 0, *call as u32));
    }
    for verdict in [libc::SECCOMP_RET_ALLOW, libc::SECCOMP_RET_KILL_PROCESS] {
        filter.push(step(libc::BPF_RET | libc::BPF_K, 0, 0, verdict));
    }
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_mut_ptr(),
    };
    // SAFETY: numbers alone.
    succeeded(unsafe { libc::prctl(libc::PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) })?;
    let mode = libc::SECCOMP_MODE_FILTER;
    // SAFETY: the program and its steps live until the call returns, and the kernel copies them.
    succeeded(unsafe { libc::prctl(libc::PR_SET_SECCOMP, mode, &raw const program) })
}

/// A system call that makes a descriptor. `structure`: where its second argument leads to.
pub fn descriptor(
    call: libc::c_long,
    [first, second, third]: [libc::c_long; 3],
    structure: Option<&mut [u8; 120]>,
) -> io::Result<OwnedFd> {
    let second = structure.map_or(second, |bytes| bytes.as_mut_ptr() as libc::c_long);
    // SAFETY: the callers' calls take numbers, and one a structure of 120 bytes, which lives.
    let made = unsafe { libc::syscall(call, first, second, third) };
    if made < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: it was just made, and nobody else has it.
    Ok(unsafe { OwnedFd::from_raw_fd(made as i32) })
}

/// Asks for one and lets it be.
pub fn ask_for_userfaultfd() {
    // SAFETY: a number goes in, a number comes out.
    unsafe { libc::syscall(libc::SYS_userfaultfd, libc::O_CLOEXEC) };
}

/// What a mapping is backed by.
#[derive(Debug, Clone, Copy)]
pub enum Backing<'a> {
    /// Zero at first, copied on write after a fork.
    Private,
    /// Zero at first, the same memory after a fork.
    Shared,
    /// The file's content at first; writes stay in the process.
    FilePrivate(&'a File),
}

/// A run of pages of this process. Dropped, they are unmapped.
#[derive(Debug)]
pub struct Mapping {
    at: *mut u8,
    pages: usize,
    writable: bool,
}

// SAFETY: it owns its pages as a `Box<[u8]>` would.
unsafe impl Send for Mapping {}

impl Mapping {
    pub fn new(pages: usize, backing: Backing<'_>) -> io::Result<Self> {
        let (flags, fd) = match backing {
            Backing::Private => (libc::MAP_PRIVATE | libc::MAP_ANONYMOUS, -1),
            Backing::Shared => (libc::MAP_SHARED | libc::MAP_ANONYMOUS, -1),
            Backing::FilePrivate(file) => (libc::MAP_PRIVATE, file.as_raw_fd()),
        };
        let access = libc::PROT_READ | libc::PROT_WRITE;
        // SAFETY: the kernel chooses a free place, so nothing that exists is replaced.
        let at = unsafe { libc::mmap(ptr::null_mut(), pages * SIZE, access, flags, fd, 0) };
        Ok(Self {
            at: checked(at)?,
            pages,
            writable: true,
        })
    }

    pub fn pages(&self) -> usize {
        self.pages
    }

    pub fn page(&self, page: usize) -> &[u8] {
        assert!(page < self.pages);
        // SAFETY: the page is within the mapping, which is readable, and lives as long as the
        // reference. Shared ones are written by one process at a time: see `churn::partner`.
        unsafe { std::slice::from_raw_parts(self.at.add(page * SIZE), SIZE) }
    }

    pub fn page_mut(&mut self, page: usize) -> &mut [u8] {
        assert!(page < self.pages && self.writable);
        // SAFETY: as in `page`, and the mapping is writable and borrowed alone.
        unsafe { std::slice::from_raw_parts_mut(self.at.add(page * SIZE), SIZE) }
    }

    /// The first eight bytes of a page that two processes use as an atomic, and as nothing else.
    pub fn word(&self, page: usize) -> &AtomicU64 {
        assert!(page < self.pages);
        // SAFETY: aligned, within the mapping, and lives as long as the reference.
        unsafe { AtomicU64::from_ptr(self.at.add(page * SIZE).cast()) }
    }

    /// Gives pages back: they hold what they held when they were first mapped.
    pub fn discard(&mut self, first: usize, count: usize) -> io::Result<()> {
        assert!(first + count <= self.pages);
        // SAFETY: the range is within the mapping, which is borrowed alone.
        let done = unsafe {
            let at = self.at.add(first * SIZE).cast::<c_void>();
            libc::madvise(at, count * SIZE, libc::MADV_DONTNEED)
        };
        succeeded(done)
    }

    /// Makes it longer or shorter; the kernel moves it if it has to.
    pub fn resize(&mut self, pages: usize) -> io::Result<()> {
        assert!(pages > 0);
        let (old, new) = (self.pages * SIZE, pages * SIZE);
        // SAFETY: the mapping is whole and borrowed alone, and its address is replaced below.
        let at = unsafe { libc::mremap(self.at.cast(), old, new, libc::MREMAP_MAYMOVE) };
        self.at = checked(at)?;
        self.pages = pages;
        Ok(())
    }

    /// Moves it to where another was, which goes.
    pub fn move_onto(&mut self, other: Self) -> io::Result<()> {
        let target = other.at;
        assert!(other.pages == self.pages);
        let (len, flags) = (self.pages * SIZE, libc::MREMAP_MAYMOVE | libc::MREMAP_FIXED);
        // SAFETY: the target is a mapping of the same length that nobody refers to any more.
        let at = unsafe { libc::mremap(self.at.cast(), len, len, flags, target) };
        self.at = checked(at)?;
        // Its place is ours now.
        std::mem::forget(other);
        Ok(())
    }

    /// Unmaps its first pages.
    pub fn cut_front(&mut self, pages: usize) -> io::Result<()> {
        assert!(pages < self.pages);
        // SAFETY: the range is the mapping's beginning, which nobody refers to.
        succeeded(unsafe { libc::munmap(self.at.cast(), pages * SIZE) })?;
        // SAFETY: still within what was the mapping.
        self.at = unsafe { self.at.add(pages * SIZE) };
        self.pages -= pages;
        Ok(())
    }

    /// Takes the right to write away, or gives it back.
    pub fn protect(&mut self, writable: bool) -> io::Result<()> {
        let write: c_int = if writable { libc::PROT_WRITE } else { 0 };
        // SAFETY: the whole mapping; `page_mut` asks whether it is writable.
        succeeded(unsafe {
            libc::mprotect(self.at.cast(), self.pages * SIZE, libc::PROT_READ | write)
        })?;
        self.writable = writable;
        Ok(())
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the mapping is ours and whole, and nobody refers to it any more.
        unsafe { libc::munmap(self.at.cast(), self.pages * SIZE) };
    }
}

fn checked(at: *mut c_void) -> io::Result<*mut u8> {
    if at == libc::MAP_FAILED {
        return Err(io::Error::last_os_error());
    }
    Ok(at.cast())
}

fn succeeded(code: c_int) -> io::Result<()> {
    if code == 0 {
        return Ok(());
    }
    Err(io::Error::last_os_error())
}
