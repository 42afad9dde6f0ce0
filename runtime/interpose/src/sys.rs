//! The interposed functions, and all `unsafe` of this library.
//!
//! The policy is in [`answer`] (which refusal is made good), in `hidden` (which
//! pages are not asked for) and in [`sendmsg`] (which question is not worth its
//! time). The rest is the mechanism, done with bare system calls: libc's own
//! wrappers would touch `errno` and end in a function that is replaced here.

use core::arch::{asm, naked_asm};
use core::ffi::{CStr, c_char, c_int, c_long};

use crate::{
    hidden::{self, Answer, MAGIC, Range},
    limits::{self, Limit},
};

#[cfg(target_arch = "x86_64")]
mod nr {
    pub(super) const READ: usize = 0;
    pub(super) const CLOSE: usize = 3;
    pub(super) const LSEEK: usize = 8;
    pub(super) const MMAP: usize = 9;
    pub(super) const MUNMAP: usize = 11;
    pub(super) const IOCTL: usize = 16;
    pub(super) const PREAD64: usize = 17;
    pub(super) const SENDMSG: usize = 46;
    pub(super) const READLINKAT: usize = 267;
    pub(super) const OPENAT: usize = 257;
    pub(super) const PRLIMIT64: usize = 302;
}

#[cfg(target_arch = "aarch64")]
mod nr {
    pub(super) const IOCTL: usize = 29;
    pub(super) const LSEEK: usize = 62;
    pub(super) const READLINKAT: usize = 78;
    pub(super) const SENDMSG: usize = 211;
    pub(super) const MUNMAP: usize = 215;
    pub(super) const MMAP: usize = 222;
    pub(super) const OPENAT: usize = 56;
    pub(super) const CLOSE: usize = 57;
    pub(super) const READ: usize = 63;
    pub(super) const PREAD64: usize = 67;
    pub(super) const PRLIMIT64: usize = 261;
}

const EPERM: isize = 1;
const EINTR: isize = 4;
const AT_FDCWD: isize = -100;
const O_CLOEXEC: usize = 0o2000000;

const SEEK_END: usize = 2;
const PROT_READ: usize = 1;
const MAP_SHARED: usize = 1;
/// `_IOWR('f', 16, struct pm_scan_arg)`
const PAGEMAP_SCAN: usize = 0xc060_6610;
const PAGE_IS_PRESENT: u64 = 1 << 3;

unsafe extern "C" {
    safe fn __errno_location() -> *mut c_int;
    fn getenv(name: *const c_char) -> *const c_char;
}

/// The kernel's `struct pm_scan_arg`.
#[repr(C)]
struct Scan {
    size: u64,
    flags: u64,
    start: u64,
    end: u64,
    walk_end: u64,
    vec: u64,
    vec_len: u64,
    max_pages: u64,
    category_inverted: u64,
    category_mask: u64,
    category_anyof_mask: u64,
    return_mask: u64,
}

/// Takes the place of libc's `int ioctl(int fd, unsigned long request, ...)`.
///
/// A question about the populated pages of a task is cut where hidden ones begin.
///
/// # Safety
///
/// As for libc's: the argument must suit the request.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn ioctl(fd: c_int, request: usize, argument: usize) -> c_int {
    // SAFETY: the argument is what the caller meant for this request.
    let result = unsafe {
        if request == PAGEMAP_SCAN && argument != 0 {
            scan(fd, &mut *(argument as *mut Scan))
        } else {
            bare(nr::IOCTL, [fd as usize, request, argument, 0])
        }
    };
    finish(result) as c_int
}

fn scan(fd: c_int, scan: &mut Scan) -> isize {
    // Other questions, such as for guard pages, are about what CRIU does dump.
    let populated = scan.category_anyof_mask & PAGE_IS_PRESENT != 0;
    let asked = scan.end;
    if populated
        && let Some(table) = Table::open()
        && let Some(pid) = pid_of(fd)
    {
        match hidden::answer(table.ranges(), pid, scan.start, asked) {
            Answer::Nothing { end } => {
                scan.walk_end = end;
                return 0;
            }
            Answer::Ask { end } => scan.end = end,
        }
    }
    let argument = core::ptr::from_mut(scan) as usize;
    // SAFETY: `scan` is the caller's whole argument for this request.
    let result = unsafe { bare(nr::IOCTL, [fd as usize, PAGEMAP_SCAN, argument, 0]) };
    scan.end = asked;
    result
}

/// Takes the place of libc's `ssize_t pread64(int, void *, size_t, off64_t)`.
///
/// Kernels before 6.7 can't be asked for populated pages: CRIU reads a word for each page, and finds
/// none for the hidden ones.
///
/// # Safety
///
/// As for libc's: the buffer must have room for so many bytes.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn pread64(
    fd: c_int,
    buffer: *mut u8,
    count: usize,
    offset: i64,
) -> isize {
    // SAFETY: the caller's arguments, as it meant them for the kernel.
    let read = unsafe {
        bare(
            nr::PREAD64,
            [fd as usize, buffer as usize, count, offset as usize],
        )
    };
    if read > 0
        && let Some(table) = Table::open()
        && let Some(pid) = pid_of(fd)
    {
        // SAFETY: the kernel has just written so many bytes there.
        let words = unsafe { core::slice::from_raw_parts_mut(buffer, read as usize) };
        hidden::blank(table.ranges(), pid, offset as u64, words);
    }
    finish(read) as isize
}

/// The table of hidden ranges, mapped for one question: it changes between two.
struct Table {
    address: usize,
    length: usize,
}

impl Table {
    fn open() -> Option<Self> {
        let fd = table_fd()?;
        // SAFETY: moves an offset that nobody uses.
        let length = unsafe { bare(nr::LSEEK, [fd, 0, SEEK_END, 0]) };
        if length < 16 {
            return None;
        }
        let length = length as usize;
        // SAFETY: a new mapping that nothing else refers to.
        let address = unsafe { bare_six(nr::MMAP, [0, length, PROT_READ, MAP_SHARED, fd, 0]) };
        if (-4095..0).contains(&address) {
            return None;
        }
        let table = Self {
            address: address as usize,
            length,
        };
        (table.word(0) == MAGIC).then_some(table)
    }

    fn word(&self, index: usize) -> u64 {
        // SAFETY: the mapping has at least two words, and lives as long as this value.
        unsafe { (self.address as *const u64).add(index).read_volatile() }
    }

    fn ranges(&self) -> &[Range] {
        let room = (self.length - 16) / size_of::<Range>();
        let count = (self.word(1) as usize).min(room);
        // SAFETY: the mapping has room for `count` of them after its two words, and whoever
        // writes it has written all of them before the magic.
        unsafe { core::slice::from_raw_parts((self.address as *const Range).byte_add(16), count) }
    }
}

impl Drop for Table {
    fn drop(&mut self) {
        // SAFETY: the mapping is this value's own.
        unsafe { bare(nr::MUNMAP, [self.address, self.length, 0, 0]) };
    }
}

fn table_fd() -> Option<usize> {
    // SAFETY: CRIU changes its environment before it forks, if ever, and the text is terminated.
    let text = unsafe {
        let text = getenv(hidden::VARIABLE.as_ptr());
        if text.is_null() {
            return None;
        }
        CStr::from_ptr(text)
    };
    text.to_str()
        .ok()?
        .parse::<u32>()
        .ok()
        .map(|fd| fd as usize)
}

/// Which task's pagemap a descriptor is.
fn pid_of(fd: c_int) -> Option<u64> {
    let mut target = [0u8; 64];
    hidden::pid_of_pagemap(target_of(fd, &mut target)?)
}

/// Where a descriptor leads.
fn target_of(fd: c_int, target: &mut [u8; 64]) -> Option<&[u8]> {
    let mut path = [0u8; 32];
    let prefix = b"/proc/self/fd/";
    path[..prefix.len()].copy_from_slice(prefix);
    let mut digits = [0u8; 10];
    let first = decimal(u32::try_from(fd).ok()?, &mut digits);
    for (to, from) in path[prefix.len()..].iter_mut().zip(&digits[first..]) {
        *to = *from;
    }
    // SAFETY: the path is terminated, and the kernel writes no further than the length.
    let length = unsafe {
        bare(
            nr::READLINKAT,
            [
                AT_FDCWD as usize,
                path.as_ptr() as usize,
                target.as_mut_ptr() as usize,
                target.len(),
            ],
        )
    };
    target.get(..usize::try_from(length).ok()?)
}

/// Takes the place of libc's `int openat(int, const char *, int, ...)`.
///
/// CRIU finds the mappings of a task in a file that lies ready, where there is one, and not in the
/// kernel's, for which every page is counted.
///
/// # Safety
///
/// As for libc's: `path` must be terminated.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn openat64(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: u32,
) -> c_int {
    // SAFETY: the caller's path is terminated.
    let is_smaps = !path.is_null() && unsafe { CStr::from_ptr(path) } == c"smaps";
    if is_smaps && let Some(fd) = open_ready(directory, flags) {
        return fd;
    }
    // SAFETY: the caller's arguments, as it meant them for the kernel.
    let result = unsafe {
        bare(
            nr::OPENAT,
            [
                directory as usize,
                path as usize,
                flags as usize,
                mode as usize,
            ],
        )
    };
    finish(result) as c_int
}

/// As [`openat64`]: on these machines both names mean the same.
///
/// # Safety
///
/// As for libc's: `path` must be terminated.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn openat(
    directory: c_int,
    path: *const c_char,
    flags: c_int,
    mode: u32,
) -> c_int {
    // SAFETY: the caller's arguments.
    unsafe { openat64(directory, path, flags, mode) }
}

/// `$GODWIT_SMAPS/PID` for the task whose directory in `/proc` this is.
fn open_ready(directory: c_int, flags: c_int) -> Option<c_int> {
    let mut target = [0u8; 64];
    let pid = hidden::pid_of_directory(target_of(directory, &mut target)?)?;
    // SAFETY: CRIU changes its environment before it forks, if ever, and the text is terminated.
    let base = unsafe {
        let text = getenv(hidden::SMAPS.as_ptr());
        if text.is_null() {
            return None;
        }
        CStr::from_ptr(text).to_bytes()
    };
    let mut digits = [0u8; 10];
    let first = decimal(u32::try_from(pid).ok()?, &mut digits);
    let mut path = [0u8; 512];
    let parts = base.iter().chain(b"/").chain(&digits[first..]);
    // The last byte stays a zero.
    let room = path.len() - 1;
    if base.len() + 1 + digits[first..].len() > room {
        return None;
    }
    for (to, from) in path.iter_mut().zip(parts) {
        *to = *from;
    }
    // SAFETY: the path is terminated, and outlives the call.
    let opened = unsafe {
        bare(
            nr::OPENAT,
            [AT_FDCWD as usize, path.as_ptr() as usize, flags as usize, 0],
        )
    };
    (opened >= 0).then_some(opened as c_int)
}

/// What CRIU asks of netfilter: `NFNL_SUBSYS_CTNETLINK`, `IPCTNL_MSG_CT_GET`.
const CONNTRACK_GET: u16 = 0x0101;
/// `IPCTNL_MSG_CT_GET_UNCONFIRMED`
const CONNTRACK_GET_UNCONFIRMED: u16 = 0x0107;
const AF_NETLINK: u16 = 16;

#[repr(C)]
pub(crate) struct Message {
    name: *const u16,
    name_length: u32,
    parts: *mut Part,
    part_count: usize,
    control: *const u8,
    control_length: usize,
    flags: c_int,
}

#[repr(C)]
struct Part {
    base: *mut u8,
    length: usize,
}

/// Takes the place of libc's `ssize_t sendmsg(int, const struct msghdr *, int)`.
///
/// CRIU asks twice for every tracked connection of the network namespace, even of one that it
/// does not dump, and the kernel goes through the table of the whole machine each time: 9 ms of
/// freeze. The question for unconfirmed ones has the same form and an empty answer.
///
/// # Safety
///
/// As for libc's: `message` must be one.
#[cfg_attr(not(test), unsafe(no_mangle))]
pub(crate) unsafe extern "C" fn sendmsg(fd: c_int, message: *mut Message, flags: c_int) -> isize {
    // SAFETY: the caller's message, whole as sendmsg takes it; an nlmsghdr is 16 bytes, its type
    // the two after the first four.
    unsafe {
        if let Some(message) = message.as_ref()
            && !message.name.is_null()
            && message.name_length >= 2
            && message.name.read_unaligned() == AF_NETLINK
            && message.part_count == 1
            && let Some(part) = message.parts.as_ref()
            && part.length >= 16
        {
            let kind = part.base.add(4).cast::<u16>();
            if kind.read_unaligned() == CONNTRACK_GET {
                kind.write_unaligned(CONNTRACK_GET_UNCONFIRMED);
            }
        }
        finish(bare(
            nr::SENDMSG,
            [fd as usize, message as usize, flags as usize, 0],
        )) as isize
    }
}

/// Takes the place of libc's `long syscall(long number, ...)`.
///
/// Naked, so that every call but one is what libc does, instruction for
/// instruction: no frame of ours is on the stack when CRIU clones by it. A
/// variadic call hands its integers over as any other, so six of them are always
/// passed on, as libc does too.
///
/// # Safety
///
/// As for libc's: the arguments must suit the system call.
#[cfg(target_arch = "x86_64")]
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn syscall(number: c_long) -> c_long {
    naked_asm!(
        "cmp rdi, {prlimit64}",
        "je 2f",
        "mov rax, rdi",
        "mov rdi, rsi",
        "mov rsi, rdx",
        "mov rdx, rcx",
        "mov r10, r8",
        "mov r8, r9",
        "mov r9, [rsp + 8]",
        "syscall",
        "cmp rax, -4095",
        "jae 3f",
        "ret",
        // Both are tail calls: the stack is as our caller left it, and the
        // arguments of the first are already in place.
        "2: jmp {answer}",
        "3: mov rdi, rax",
        "jmp {finish}",
        prlimit64 = const nr::PRLIMIT64,
        answer = sym answer,
        finish = sym finish,
    )
}

/// Takes the place of libc's `long syscall(long number, ...)`; see the other one.
///
/// # Safety
///
/// As for libc's: the arguments must suit the system call.
#[cfg(target_arch = "aarch64")]
#[cfg_attr(not(test), unsafe(no_mangle))]
#[unsafe(naked)]
pub(crate) unsafe extern "C" fn syscall(number: c_long) -> c_long {
    naked_asm!(
        "cmp x0, #{prlimit64}",
        "b.eq 2f",
        "mov x8, x0",
        "mov x0, x1",
        "mov x1, x2",
        "mov x2, x3",
        "mov x3, x4",
        "mov x4, x5",
        "mov x5, x6",
        "svc #0",
        "cmn x0, #4095",
        "b.hs 3f",
        "ret",
        "2: b {answer}",
        "3: b {finish}",
        prlimit64 = const nr::PRLIMIT64,
        answer = sym answer,
        finish = sym finish,
    )
}

/// `prlimit64`, with the one refusal made good: a question about another task.
/// A request that sets a limit stays refused.
///
/// # Safety
///
/// `old` must be null or valid for a write, as for the system call itself.
unsafe extern "C" fn answer(
    _number: c_long,
    pid: c_int,
    resource: u32,
    new: *const Limit,
    old: *mut Limit,
) -> c_long {
    // SAFETY: these are the caller's arguments, as it meant them for the kernel.
    let result = unsafe {
        bare(
            nr::PRLIMIT64,
            [pid as usize, resource as usize, new as usize, old as usize],
        )
    };
    if result == -EPERM
        && new.is_null()
        && !old.is_null()
        && let Some(limit) = limit_from_proc(pid, resource)
    {
        // SAFETY: not null, and the caller gave it to be written to.
        unsafe { old.write(limit) };
        return 0;
    }
    finish(result)
}

/// What libc's `syscall` returns for a result of the kernel.
extern "C" fn finish(result: isize) -> c_long {
    if !(-4095..0).contains(&result) {
        return result as c_long;
    }
    // SAFETY: libc's own address of this thread's errno.
    unsafe { __errno_location().write(-result as c_int) };
    -1
}

fn limit_from_proc(pid: c_int, resource: u32) -> Option<Limit> {
    // The file has 17 lines of 79 bytes at the most.
    let mut buffer = [0u8; 4096];
    let text = read_file(&path_of_limits(pid)?, &mut buffer)?;
    limits::find(text, resource as usize)
}

/// `/proc/PID/limits` and zeros after it. `None` for a pid that names no other task.
fn path_of_limits(pid: c_int) -> Option<[u8; 32]> {
    let pid = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
    let mut digits = [0u8; 10];
    let first = decimal(pid, &mut digits);
    let mut path = [0u8; 32];
    let parts = b"/proc/".iter().chain(&digits[first..]).chain(b"/limits");
    for (to, from) in path.iter_mut().zip(parts) {
        *to = *from;
    }
    Some(path)
}

/// Writes a number to the end of `digits`; answers where it begins.
fn decimal(mut number: u32, digits: &mut [u8; 10]) -> usize {
    let mut first = digits.len();
    loop {
        first -= 1;
        digits[first] = b'0' + (number % 10) as u8;
        number /= 10;
        if number == 0 {
            return first;
        }
    }
}

/// The whole of a file that fits the buffer. `path` ends with a zero.
fn read_file<'a>(path: &[u8; 32], buffer: &'a mut [u8]) -> Option<&'a [u8]> {
    debug_assert_eq!(path.last(), Some(&0));
    // SAFETY: the path is terminated, and outlives the call.
    let fd = unsafe {
        bare(
            nr::OPENAT,
            [AT_FDCWD as usize, path.as_ptr() as usize, O_CLOEXEC, 0],
        )
    };
    if fd < 0 {
        return None;
    }

    let mut filled = 0;
    let complete = loop {
        let room = &mut buffer[filled..];
        if room.is_empty() {
            break false;
        }
        // SAFETY: the kernel writes to `room` and no further.
        let read = unsafe {
            bare(
                nr::READ,
                [fd as usize, room.as_mut_ptr() as usize, room.len(), 0],
            )
        };
        match read {
            0 => break true,
            1.. => filled += read as usize,
            _ if read == -EINTR => {}
            _ => break false,
        }
    };
    // SAFETY: the descriptor is ours and is not used after this.
    unsafe { bare(nr::CLOSE, [fd as usize, 0, 0, 0]) };
    complete.then(|| &buffer[..filled])
}

/// A system call of up to four arguments. Returns what the kernel does: a
/// negated error number on failure.
///
/// # Safety
///
/// The arguments must suit the system call.
unsafe fn bare(number: usize, [a, b, c, d]: [usize; 4]) -> isize {
    // SAFETY: the caller answers for the arguments.
    unsafe { bare_six(number, [a, b, c, d, 0, 0]) }
}

/// A system call of up to six arguments; see [`bare`].
///
/// # Safety
///
/// The arguments must suit the system call.
unsafe fn bare_six(number: usize, arguments: [usize; 6]) -> isize {
    let result: isize;
    // SAFETY: the registers are those of the kernel's ABI. The caller answers
    // for the arguments.
    #[cfg(target_arch = "x86_64")]
    unsafe {
        asm!(
            "syscall",
            inlateout("rax") number as isize => result,
            in("rdi") arguments[0],
            in("rsi") arguments[1],
            in("rdx") arguments[2],
            in("r10") arguments[3],
            in("r8") arguments[4],
            in("r9") arguments[5],
            lateout("rcx") _,
            lateout("r11") _,
            options(nostack),
        );
    }
    // SAFETY: as above.
    #[cfg(target_arch = "aarch64")]
    unsafe {
        asm!(
            "svc #0",
            in("x8") number,
            inlateout("x0") arguments[0] as isize => result,
            in("x1") arguments[1],
            in("x2") arguments[2],
            in("x3") arguments[3],
            in("x4") arguments[4],
            in("x5") arguments[5],
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests;
