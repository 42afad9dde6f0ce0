//! The interposed functions, called as CRIU calls them.

use super::*;

#[cfg(target_arch = "x86_64")]
const MEMFD_CREATE: c_long = 319;
#[cfg(target_arch = "aarch64")]
const MEMFD_CREATE: c_long = 279;

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

/// The environment is the whole process's.
static ENVIRONMENT: std::sync::Mutex<()> = std::sync::Mutex::new(());

#[test]
fn mappings_that_lie_ready_are_opened_instead() {
    use std::{
        io::Read,
        os::fd::{AsRawFd, FromRawFd},
    };
    let _alone = ENVIRONMENT.lock().unwrap();
    let pid = std::process::id();
    let dir = std::env::temp_dir().join(format!("interpose-{pid}"));
    std::fs::create_dir_all(&dir).unwrap();
    let task = std::fs::File::open(format!("/proc/{pid}")).unwrap();
    let read = |name: &CStr| {
        // SAFETY: the path is terminated; the descriptor is owned by nobody else.
        let mut file = unsafe {
            let fd = openat(task.as_raw_fd(), name.as_ptr(), 0, 0);
            assert!(fd >= 0);
            std::fs::File::from_raw_fd(fd)
        };
        let mut text = String::new();
        file.read_to_string(&mut text).unwrap();
        text
    };
    // SAFETY: under the lock.
    unsafe { std::env::set_var("GODWIT_SMAPS", &dir) };
    assert!(read(c"smaps").contains("VmFlags:"));
    std::fs::write(dir.join(pid.to_string()), "ready").unwrap();
    assert_eq!(read(c"smaps"), "ready");
    assert!(read(c"maps").contains("[vdso]"));
    // SAFETY: under the lock.
    unsafe { std::env::remove_var("GODWIT_SMAPS") };
    std::fs::remove_dir_all(&dir).unwrap();
}

#[test]
fn only_the_question_for_connections_is_another() {
    let send = |family: u16, kind: u16| {
        let mut header = [0u8; 20];
        header[4..6].copy_from_slice(&kind.to_ne_bytes());
        let mut part = Part {
            base: header.as_mut_ptr(),
            length: header.len(),
        };
        let mut message = Message {
            name: &raw const family,
            name_length: 12,
            parts: &raw mut part,
            part_count: 1,
            control: core::ptr::null(),
            control_length: 0,
            flags: 0,
        };
        // SAFETY: a whole message, to no descriptor.
        unsafe {
            assert_eq!(sendmsg(-1, &raw mut message, 0), -1);
            assert_eq!(errno(), 9);
        }
        u16::from_ne_bytes([header[4], header[5]])
    };
    assert_eq!(send(AF_NETLINK, CONNTRACK_GET), CONNTRACK_GET_UNCONFIRMED);
    assert_eq!(send(AF_NETLINK, 0x12), 0x12);
    assert_eq!(send(1, CONNTRACK_GET), CONNTRACK_GET);
}

#[test]
fn hidden_pages_are_not_there_for_a_scan() {
    use std::{
        io::Write,
        os::fd::{AsRawFd, FromRawFd},
    };
    let _alone = ENVIRONMENT.lock().unwrap();
    // Four written pages of our own.
    let pages = vec![7u8; 6 * 4096];
    let start = (pages.as_ptr() as u64).next_multiple_of(4096);
    // SAFETY: plain arguments; the descriptor is owned by nobody else.
    let mut file = unsafe {
        let fd = interposed()(MEMFD_CREATE, c"table".as_ptr(), 0);
        assert!(fd > 0);
        std::fs::File::from_raw_fd(fd as c_int)
    };
    // SAFETY: under the lock.
    unsafe { std::env::set_var("GODWIT_HIDDEN_FD", file.as_raw_fd().to_string()) };
    let pagemap = std::fs::File::open(format!("/proc/{}/pagemap", std::process::id())).unwrap();
    let mut regions = [[0u64; 3]; 8];
    let mut ask = |from: u64| {
        let mut scan = Scan {
            size: size_of::<Scan>() as u64,
            flags: 0,
            start: from,
            end: start + 4 * 4096,
            walk_end: 0,
            vec: regions.as_mut_ptr() as u64,
            vec_len: regions.len() as u64,
            max_pages: 0,
            category_inverted: 0,
            category_mask: 0,
            category_anyof_mask: PAGE_IS_PRESENT,
            return_mask: PAGE_IS_PRESENT,
        };
        // SAFETY: a whole argument for this request.
        let found = unsafe { ioctl(pagemap.as_raw_fd(), PAGEMAP_SCAN, &raw mut scan as usize) };
        (found, scan.walk_end - start)
    };
    let present = || {
        let mut words = [0u64; 4];
        let (buffer, offset) = (words.as_mut_ptr().cast(), (start / 4096 * 8) as i64);
        // SAFETY: the buffer has room for four words.
        let read = unsafe { pread64(pagemap.as_raw_fd(), buffer, 32, offset) };
        assert_eq!(read, 32);
        words.map(|word| word >> 63 == 1)
    };
    assert_eq!(present(), [true; 4]);
    let (found, end) = ask(start);
    if found < 0 {
        // Kernels before 6.7 have no such request.
        assert_eq!(errno(), 25);
        return;
    }
    assert_eq!((found, end), (1, 4 * 4096));
    let table = [
        1,
        u64::from(std::process::id()),
        start + 4096,
        start + 2 * 4096,
    ];
    file.write_all(&[0; 8]).unwrap();
    for word in table {
        file.write_all(&word.to_ne_bytes()).unwrap();
    }
    // Without its magic the table hides nothing.
    assert_eq!(ask(start), (1, 4 * 4096));
    std::os::unix::fs::FileExt::write_all_at(&file, &MAGIC.to_ne_bytes(), 0).unwrap();
    assert_eq!(present(), [true, false, true, true]);
    assert_eq!(ask(start), (1, 4096));
    assert_eq!(ask(start + 4096), (0, 2 * 4096));
    assert_eq!(ask(start + 2 * 4096), (1, 4 * 4096));
    // SAFETY: under the lock.
    unsafe { std::env::remove_var("GODWIT_HIDDEN_FD") };
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
