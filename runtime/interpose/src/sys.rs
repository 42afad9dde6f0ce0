//! The interposed `syscall`, and all `unsafe` of this library.
//!
//! The policy is in [`answer`]: which refusal is made good. The rest is the
//! mechanism, done with bare system calls: libc's own wrappers would touch
//! `errno` and end in the function that is replaced here.

use core::arch::{asm, naked_asm};
use core::ffi::{c_int, c_long};

use crate::limits::{self, Limit};

#[cfg(target_arch = "x86_64")]
mod nr {
    pub(super) const READ: usize = 0;
    pub(super) const CLOSE: usize = 3;
    pub(super) const OPENAT: usize = 257;
    pub(super) const PRLIMIT64: usize = 302;
}

#[cfg(target_arch = "aarch64")]
mod nr {
    pub(super) const OPENAT: usize = 56;
    pub(super) const CLOSE: usize = 57;
    pub(super) const READ: usize = 63;
    pub(super) const PRLIMIT64: usize = 261;
}

const EPERM: isize = 1;
const EINTR: isize = 4;
const AT_FDCWD: isize = -100;
const O_CLOEXEC: usize = 0o2000000;

unsafe extern "C" {
    safe fn __errno_location() -> *mut c_int;
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
    let mut rest = u32::try_from(pid).ok().filter(|pid| *pid != 0)?;
    let mut digits = [0u8; 10];
    let mut first = digits.len();
    while rest > 0 {
        first -= 1;
        digits[first] = b'0' + (rest % 10) as u8;
        rest /= 10;
    }

    let mut path = [0u8; 32];
    let parts = b"/proc/".iter().chain(&digits[first..]).chain(b"/limits");
    for (to, from) in path.iter_mut().zip(parts) {
        *to = *from;
    }
    Some(path)
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
unsafe fn bare(number: usize, arguments: [usize; 4]) -> isize {
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
            options(nostack),
        );
    }
    result
}

#[cfg(test)]
mod tests {
    use super::*;

    type Syscall = unsafe extern "C" fn(c_long, ...) -> c_long;

    fn interposed() -> Syscall {
        // SAFETY: it takes its arguments as a variadic function does; that is
        // what it is for.
        unsafe { core::mem::transmute::<unsafe extern "C" fn(c_long) -> c_long, Syscall>(syscall) }
    }

    fn errno() -> c_int {
        // SAFETY: libc's own address of this thread's errno.
        unsafe { __errno_location().read() }
    }

    #[test]
    fn the_path_names_the_task() {
        let path = path_of_limits(c_int::MAX).unwrap();
        assert!(path.starts_with(b"/proc/2147483647/limits\0"));
        assert!(path_of_limits(7).unwrap().starts_with(b"/proc/7/limits\0"));
        assert_eq!(path_of_limits(0), None);
        assert_eq!(path_of_limits(-1), None);
    }

    #[test]
    fn proc_says_what_the_kernel_says() {
        let pid = std::process::id() as c_int;
        for resource in 0..16u32 {
            let mut limit = Limit { soft: 1, hard: 2 };
            // SAFETY: `limit` is valid for the write.
            let result = unsafe {
                interposed()(
                    nr::PRLIMIT64 as c_long,
                    pid,
                    resource,
                    core::ptr::null::<Limit>(),
                    &raw mut limit,
                )
            };
            assert_eq!(result, 0);
            assert_eq!(limit_from_proc(pid, resource), Some(limit), "{resource}");
        }
    }

    #[test]
    fn an_error_is_minus_one_and_errno() {
        // SAFETY: no such resource, and no such descriptor: nothing is written.
        unsafe {
            let null = core::ptr::null::<Limit>();
            assert_eq!(interposed()(nr::PRLIMIT64 as c_long, 0, 99, null, null), -1);
            assert_eq!(errno(), 22);
            assert_eq!(interposed()(nr::CLOSE as c_long, -1), -1);
            assert_eq!(errno(), 9);
        }
    }

    #[test]
    fn all_six_arguments_reach_the_kernel() {
        // mmap looks at every one of them; an odd offset is its last.
        #[cfg(target_arch = "x86_64")]
        const MMAP: c_long = 9;
        #[cfg(target_arch = "aarch64")]
        const MMAP: c_long = 222;
        let null = core::ptr::null_mut::<u8>();
        let (length, read_only, private_anonymous) = (4096usize, 1usize, 0x22usize);
        // SAFETY: a new mapping of its own, which nothing refers to.
        unsafe {
            let map = interposed()(
                MMAP,
                null,
                length,
                read_only,
                private_anonymous,
                -1isize,
                0usize,
            );
            assert!(map > 0);
            assert_eq!(*(map as *const u8), 0);
            let refused = interposed()(
                MMAP,
                null,
                length,
                read_only,
                private_anonymous,
                -1isize,
                1usize,
            );
            assert_eq!((refused, errno()), (-1, 22));
        }
    }
}
