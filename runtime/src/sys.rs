//! The calls that have no safe wrapper in the crates we use. All `unsafe` of this crate is here.

use std::{
    ffi::CString,
    io,
    os::fd::{AsRawFd, BorrowedFd, FromRawFd, OwnedFd},
};

use nix::libc;

/// Brings a link of this network namespace up or down, in a few microseconds: no netlink socket,
/// no runtime.
pub fn set_link_up(name: &str, up: bool) -> io::Result<()> {
    let name = CString::new(name)?;
    let bytes = name.as_bytes_with_nul();
    if bytes.len() > libc::IFNAMSIZ {
        return Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "link name is too long",
        ));
    }
    let socket = rustix::net::socket(
        rustix::net::AddressFamily::INET,
        rustix::net::SocketType::DGRAM,
        None,
    )?;
    // SAFETY: an all-zero `ifreq` is a valid value of that plain C struct.
    let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
    for (to, from) in request.ifr_name.iter_mut().zip(bytes) {
        *to = *from as libc::c_char;
    }
    // SAFETY: the descriptor is open and `request` is a whole `ifreq` with a terminated name.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCGIFFLAGS as _, &mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: SIOCGIFFLAGS filled `ifru_flags`, and any bit pattern of it is valid.
    let flags = unsafe { request.ifr_ifru.ifru_flags };
    let bit = libc::IFF_UP as libc::c_short;
    request.ifr_ifru.ifru_flags = if up { flags | bit } else { flags & !bit };
    // SAFETY: as above.
    if unsafe { libc::ioctl(socket.as_raw_fd(), libc::SIOCSIFFLAGS as _, &mut request) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Lets the next `exec` keep this descriptor, or not.
pub fn set_cloexec(fd: BorrowedFd<'_>, cloexec: bool) -> io::Result<()> {
    let flags = if cloexec {
        rustix::io::FdFlags::CLOEXEC
    } else {
        rustix::io::FdFlags::empty()
    };
    Ok(rustix::io::fcntl_setfd(fd, flags)?)
}

/// Of a terminal, by either of its ends.
pub fn set_terminal_size(fd: BorrowedFd<'_>, rows: u16, columns: u16) -> io::Result<()> {
    let size = libc::winsize {
        ws_row: rows,
        ws_col: columns,
        ws_xpixel: 0,
        ws_ypixel: 0,
    };
    // SAFETY: the descriptor is open, and `size` is a whole `winsize` that is only read.
    if unsafe { libc::ioctl(fd.as_raw_fd(), libc::TIOCSWINSZ as _, &size) } < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

/// Leaves the caller's parent behind: the child goes on (`true`), the parent returns (`false`)
/// with the child's pid to say.
///
/// Only for a process with one thread: the child of a process with several holds locks that
/// nobody will ever release.
pub fn fork() -> io::Result<Option<i32>> {
    // SAFETY: the shim has a single thread here, so the child's memory is consistent.
    match unsafe { nix::unistd::fork() }? {
        nix::unistd::ForkResult::Child => Ok(None),
        nix::unistd::ForkResult::Parent { child } => Ok(Some(child.as_raw())),
    }
}

/// How the process of a pidfd ended, as its parent was told, once it was: whoever asks need not be
/// the parent. None: it was not yet, or this kernel does not say (before Linux 6.15).
pub fn exit_status(pidfd: BorrowedFd<'_>) -> Option<i32> {
    const PIDFD_INFO_EXIT: u64 = 1 << 3;
    /// `struct pidfd_info` in its first size.
    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        exit_code: i32,
    }
    nix::ioctl_readwrite!(get_info, 0xff, 11, Info);
    let mut info = Info {
        mask: PIDFD_INFO_EXIT,
        ..Info::default()
    };
    // SAFETY: the descriptor is open, and `info` is a whole structure of the size in the request.
    unsafe { get_info(pidfd.as_raw_fd(), &mut info) }.ok()?;
    (info.mask & PIDFD_INFO_EXIT != 0).then_some(info.exit_code)
}

/// Sends a whole Ethernet frame out of a link of this network namespace.
pub fn send_arp(link: &str, frame: &[u8]) -> io::Result<usize> {
    FrameSender::new(link, libc::ETH_P_ARP as u16)?.send(frame)
}

/// A socket that copies every packet on every link of this network namespace which the filter
/// takes, and holds so many bytes of them. Never waits.
pub fn packet_socket(filter: &[libc::sock_filter], room: usize) -> io::Result<OwnedFd> {
    // Of no protocol first, so that nothing comes in before the filter is there.
    // SAFETY: plain arguments; the result is checked before it becomes an owned descriptor.
    let raw = unsafe {
        let kind = libc::SOCK_RAW | libc::SOCK_CLOEXEC | libc::SOCK_NONBLOCK;
        libc::socket(libc::AF_PACKET, kind, 0)
    };
    if raw < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: just made, and owned by nobody else.
    let socket = unsafe { OwnedFd::from_raw_fd(raw) };
    filter_packets(&socket, filter)?;
    let room = room as libc::c_int;
    // Without the right to more than others have, what they have must do.
    set_option(&socket, libc::SO_RCVBUFFORCE, &room)
        .or_else(|_| set_option(&socket, libc::SO_RCVBUF, &room))?;
    // SAFETY: an all-zero `sockaddr_ll` is a valid value of that plain C struct.
    let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
    address.sll_family = libc::AF_PACKET as u16;
    address.sll_protocol = (libc::ETH_P_ALL as u16).to_be();
    // SAFETY: the address is valid for the length given with it.
    let bound = unsafe {
        libc::bind(
            socket.as_raw_fd(),
            (&raw const address).cast(),
            size_of::<libc::sockaddr_ll>() as u32,
        )
    };
    if bound < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(socket)
}

/// Which packets a socket takes from now on.
pub fn filter_packets(socket: &OwnedFd, filter: &[libc::sock_filter]) -> io::Result<()> {
    let program = libc::sock_fprog {
        len: filter.len() as u16,
        filter: filter.as_ptr().cast_mut(),
    };
    set_option(socket, libc::SO_ATTACH_FILTER, &program)
}

fn set_option<T>(socket: &OwnedFd, option: libc::c_int, value: &T) -> io::Result<()> {
    // SAFETY: `value` is valid for its own length, and of the type of every option above.
    let set = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::SOL_SOCKET,
            option,
            core::ptr::from_ref(value).cast(),
            size_of::<T>() as u32,
        )
    };
    if set < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}

/// Sends whole Ethernet frames of one protocol out of a link of this network namespace. Closing it
/// waits for the kernel, some milliseconds: one for many frames, and not in the freeze.
pub struct FrameSender {
    socket: OwnedFd,
    address: libc::sockaddr_ll,
}

impl FrameSender {
    pub fn new(link: &str, protocol: u16) -> io::Result<Self> {
        let index = nix::net::if_::if_nametoindex(link)?;
        // Of no protocol: it shall only send, and take nothing in.
        // SAFETY: plain arguments; the result is checked before it becomes an owned descriptor.
        let raw = unsafe { libc::socket(libc::AF_PACKET, libc::SOCK_RAW | libc::SOCK_CLOEXEC, 0) };
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just made, and owned by nobody else.
        let socket = unsafe { OwnedFd::from_raw_fd(raw) };
        // SAFETY: an all-zero `sockaddr_ll` is a valid value of that plain C struct.
        let mut address: libc::sockaddr_ll = unsafe { std::mem::zeroed() };
        address.sll_family = libc::AF_PACKET as u16;
        address.sll_protocol = protocol.to_be();
        address.sll_ifindex = index as i32;
        Ok(Self { socket, address })
    }

    pub fn send(&self, frame: &[u8]) -> io::Result<usize> {
        // SAFETY: buffer and address are valid for the lengths given with them.
        let sent = unsafe {
            libc::sendto(
                self.socket.as_raw_fd(),
                frame.as_ptr().cast(),
                frame.len(),
                0,
                (&raw const self.address).cast(),
                size_of::<libc::sockaddr_ll>() as u32,
            )
        };
        if sent < 0 {
            Err(io::Error::last_os_error())
        } else {
            Ok(sent as usize)
        }
    }
}
