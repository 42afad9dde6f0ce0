//! A library preloaded into CRIU: it answers what a confined host refuses, and keeps out of the
//! freeze what need not be in it.
//!
//! 1. `syscall`: resource limits of another user's task, on hosts that lack `CAP_SYS_RESOURCE`.
//! 2. `ioctl`, `pread64`: pages that are carried another way are not there for CRIU (`hidden`).
//! 3. `openat`: the mappings of a large task are in a file that lies ready.
//! 4. `sendmsg`: connections tracked in a namespace that is not dumped are not asked for.
//!
//! While CRIU dumps a task it asks for each of its 16 resource limits by libc's
//! `syscall(__NR_prlimit64, pid, resource, NULL, &old)`. The kernel refuses that
//! with `EPERM` when the task runs as another user and the caller has no
//! `CAP_SYS_RESOURCE`, and CRIU then gives the dump up ("Can't get rlimit 0").
//! The same numbers can be read by everyone from `/proc/PID/limits`, so this
//! library takes the place of `syscall` and answers that one question from there.
//!
//! ```text
//!   criu ── syscall(nr, …) ──┬─ nr is not prlimit64 ──────────> kernel
//!                            └─ prlimit64 ──> kernel ──┬─ anything but EPERM ──> criu
//!                                                      ├─ EPERM, sets a limit ─> criu
//!                                                      └─ EPERM, only asks ────> /proc/PID/limits
//! ```
//!
//! It gives nobody a right they did not have: it changes no limit, and what it
//! reads is open to every user. Where the kernel answers, nothing is different.
//!
//! It is not a part of any Godwit program, and none links to it. The runtime
//! names `libgodwit_interpose.so` in `LD_PRELOAD` of the criu it starts. What
//! criu starts in its turn (`tar`, `nft`) inherits that and is not affected.
//!
//! It runs in a process that is not ours, between clone and exec and in tasks
//! that are half restored. So it allocates nothing, takes no lock, keeps no
//! state, and touches `errno` only where libc would.

mod hidden;
mod limits;
mod sys;
