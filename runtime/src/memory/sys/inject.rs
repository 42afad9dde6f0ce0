//! A system call done by another task: it is stopped for a fraction of a millisecond, and goes on
//! as if nothing had been.

use std::{
    fs::File,
    io,
    os::unix::fs::FileExt,
    thread,
    time::{Duration, Instant},
};

use nix::libc;

use super::check;
use crate::memory::maps;

/// How long a task may take to stop. One that waits for a device stops when that answers.
const PATIENCE: Duration = Duration::from_millis(200);

/// The instruction that enters the kernel, and how far it lies from the next at least.
#[cfg(target_arch = "x86_64")]
const ENTER: &[u8] = &[0x0f, 0x05];
#[cfg(target_arch = "aarch64")]
const ENTER: &[u8] = &[0x01, 0x00, 0x00, 0xd4];

#[cfg(target_arch = "x86_64")]
const STEP: usize = 1;
#[cfg(target_arch = "aarch64")]
const STEP: usize = 4;

/// A process, every thread of it stopped.
pub struct Stopped {
    threads: Vec<i32>,
    /// The one that does system calls.
    tid: i32,
    /// Of an `ENTER` in its vdso: no code of the task is changed.
    enter: u64,
    saved: Registers,
}

type Registers = libc::user_regs_struct;

/// Stops a process, lets `work` have system calls done by it, and lets it go. Its mappings don't
/// change meanwhile. On a thread of its own: a tracer is a thread, and when that ends whatever it
/// still traces is let go of.
pub fn with_stopped<T: Send>(
    pid: i32,
    work: impl FnOnce(&mut Stopped) -> io::Result<T> + Send,
) -> io::Result<T> {
    thread::scope(|scope| {
        let tracer = scope.spawn(|| {
            let mut stopped = Stopped::seize(pid)?;
            let result = work(&mut stopped);
            stopped.release();
            result
        });
        tracer
            .join()
            .unwrap_or_else(|_| Err(io::Error::other("tracer panicked")))
    })
}

impl Stopped {
    fn seize(pid: i32) -> io::Result<Self> {
        let enter = find_enter(pid)?;
        let mut threads = Vec::new();
        let stopped = stop_all(pid, &mut threads).and_then(|able| {
            let tid = able.ok_or_else(|| io::Error::other("stopped by a signal"))?;
            let saved = get_registers(tid)?;
            Ok((tid, saved))
        });
        match stopped {
            Ok((tid, saved)) => Ok(Self {
                threads,
                tid,
                enter,
                saved,
            }),
            Err(error) => {
                detach(&threads);
                Err(error)
            }
        }
    }

    /// Has the task do a system call; its result, an error where the kernel gave one.
    pub fn syscall(&mut self, number: libc::c_long, arguments: [u64; 3]) -> io::Result<i64> {
        let mut mask: u64 = u64::MAX;
        let mut old: u64 = 0;
        trace(libc::PTRACE_GETSIGMASK, self.tid, 8, &raw mut old as usize)?;
        // A signal in between would be delivered into our call.
        trace(libc::PTRACE_SETSIGMASK, self.tid, 8, &raw mut mask as usize)?;
        let result = self.step(number, arguments);
        trace(libc::PTRACE_SETSIGMASK, self.tid, 8, &raw mut old as usize)?;
        result
    }

    fn step(&mut self, number: libc::c_long, arguments: [u64; 3]) -> io::Result<i64> {
        let mut registers = self.saved;
        prepare(&mut registers, self.enter, number, arguments);
        set_registers(self.tid, &registers)?;
        trace(libc::PTRACE_SINGLESTEP, self.tid, 0, 0)?;
        // However long it takes until it gets a processor: let go of now, it would go on with our
        // registers, and be killed by the trap at their end.
        let stopped = wait_stopped(self.tid, None);
        let result = stopped.and_then(|_| get_registers(self.tid));
        set_registers(self.tid, &self.saved)?;
        match value(&result?) {
            error @ -4095..0 => Err(io::Error::from_raw_os_error(-error as i32)),
            value => Ok(value),
        }
    }

    fn release(self) {
        detach(&self.threads);
    }
}

/// Stops threads until there is none left that runs. Answers one that can do system calls: a
/// thread that a signal had stopped already can't.
fn stop_all(pid: i32, threads: &mut Vec<i32>) -> io::Result<Option<i32>> {
    let mut able = None;
    loop {
        let mut new = Vec::new();
        for entry in std::fs::read_dir(format!("/proc/{pid}/task"))? {
            let name = entry?.file_name();
            let tid = name.to_str().and_then(|name| name.parse().ok());
            new.extend(tid.filter(|tid| !threads.contains(tid)));
        }
        if new.is_empty() {
            return Ok(able);
        }
        for tid in new {
            // A filter of the container's must not decide about calls of ours.
            let options = libc::PTRACE_O_SUSPEND_SECCOMP as usize;
            let seized = trace(libc::PTRACE_SEIZE, tid, 0, options)
                .or_else(|_| trace(libc::PTRACE_SEIZE, tid, 0, 0));
            match seized {
                Ok(()) => threads.push(tid),
                // It ended meanwhile, or has ended and waits for the others.
                Err(_) if is_over(pid, tid) => {
                    threads.push(tid);
                    continue;
                }
                Err(error) => return Err(error),
            }
            match interrupt(tid) {
                Ok(Stop::Able) => able = able.or(Some(tid)),
                Ok(Stop::BySignal) => {}
                Err(error) if error.raw_os_error() == Some(libc::ESRCH) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

fn is_over(pid: i32, tid: i32) -> bool {
    let Ok(stat) = std::fs::read_to_string(format!("/proc/{pid}/task/{tid}/stat")) else {
        return true;
    };
    stat.rsplit_once(") ")
        .is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

fn detach(threads: &[i32]) {
    for tid in threads {
        // An error: it has ended.
        let _ = trace(libc::PTRACE_DETACH, *tid, 0, 0);
    }
}

enum Stop {
    Able,
    BySignal,
}

#[cfg(target_arch = "x86_64")]
fn prepare(registers: &mut Registers, enter: u64, number: libc::c_long, [a, b, c]: [u64; 3]) {
    registers.rip = enter;
    registers.rax = number as u64;
    // Not in a call that would be begun again.
    registers.orig_rax = u64::MAX;
    (registers.rdi, registers.rsi, registers.rdx) = (a, b, c);
}

#[cfg(target_arch = "x86_64")]
fn value(registers: &Registers) -> i64 {
    registers.rax as i64
}

#[cfg(target_arch = "aarch64")]
fn prepare(registers: &mut Registers, enter: u64, number: libc::c_long, [a, b, c]: [u64; 3]) {
    registers.pc = enter;
    registers.regs[8] = number as u64;
    (registers.regs[0], registers.regs[1], registers.regs[2]) = (a, b, c);
}

#[cfg(target_arch = "aarch64")]
fn value(registers: &Registers) -> i64 {
    registers.regs[0] as i64
}

fn find_enter(pid: i32) -> io::Result<u64> {
    let vdso = maps::vdso(pid)?;
    let mut code = vec![0; (vdso.end - vdso.start) as usize];
    File::open(format!("/proc/{pid}/mem"))?.read_exact_at(&mut code, vdso.start)?;
    (0..code.len().saturating_sub(ENTER.len()))
        .step_by(STEP)
        .find(|at| code[*at..].starts_with(ENTER))
        .map(|at| vdso.start + at as u64)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no system call in the vdso"))
}

fn interrupt(tid: i32) -> io::Result<Stop> {
    trace(libc::PTRACE_INTERRUPT, tid, 0, 0)?;
    loop {
        let status = wait_stopped(tid, Some(PATIENCE))?;
        let signal = libc::WSTOPSIG(status);
        if status >> 16 == libc::PTRACE_EVENT_STOP {
            return Ok(match signal {
                libc::SIGTRAP => Stop::Able,
                _ => Stop::BySignal,
            });
        }
        // A signal came first: it is delivered, and the stop follows.
        trace(libc::PTRACE_CONT, tid, 0, signal as usize)?;
    }
}

fn wait_stopped(tid: i32, patience: Option<Duration>) -> io::Result<i32> {
    let began = Instant::now();
    loop {
        let mut status = 0;
        let flags = match patience {
            Some(_) => libc::__WALL | libc::WNOHANG,
            None => libc::__WALL,
        };
        // SAFETY: `status` is valid for the write.
        let waited = unsafe { libc::waitpid(tid, &raw mut status, flags) };
        match check(libc::c_long::from(waited)) {
            Ok(0) => {}
            Ok(_) if libc::WIFSTOPPED(status) => return Ok(status),
            Ok(_) => return Err(io::Error::from_raw_os_error(libc::ESRCH)),
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
        if patience.is_some_and(|patience| began.elapsed() > patience) {
            return Err(io::Error::new(
                io::ErrorKind::TimedOut,
                "task does not stop",
            ));
        }
        thread::yield_now();
    }
}

fn get_registers(tid: i32) -> io::Result<Registers> {
    // SAFETY: an all-zero register set is a valid value of that plain C struct.
    let mut registers: Registers = unsafe { std::mem::zeroed() };
    let mut part = libc::iovec {
        iov_base: (&raw mut registers).cast(),
        iov_len: size_of::<Registers>(),
    };
    trace(
        libc::PTRACE_GETREGSET,
        tid,
        libc::NT_PRSTATUS as usize,
        &raw mut part as usize,
    )?;
    Ok(registers)
}

fn set_registers(tid: i32, registers: &Registers) -> io::Result<()> {
    let mut part = libc::iovec {
        iov_base: core::ptr::from_ref(registers).cast_mut().cast(),
        iov_len: size_of::<Registers>(),
    };
    trace(
        libc::PTRACE_SETREGSET,
        tid,
        libc::NT_PRSTATUS as usize,
        &raw mut part as usize,
    )
}

fn trace(request: libc::c_uint, tid: i32, address: usize, data: usize) -> io::Result<()> {
    // SAFETY: requests that write get, as `data`, the address of a value of ours with room for
    // what they write; the others take numbers.
    check(unsafe { libc::ptrace(request, tid, address, data) }).map(drop)
}
