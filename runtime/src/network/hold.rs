//! Packets that arrive for a container while it is frozen: held, and delivered where it goes on.
//!
//! The gate is shut, so they would be lost, and TCP sends what is lost again only after 200 ms at
//! the earliest, far longer than the freeze. So what comes for the container is copied from the
//! moment before the gate is shut, into the receive queue of a packet socket: nothing runs
//! meanwhile. Afterwards it is sent to where the container is then: to its new host by VXLAN, or,
//! when the migration was undone, to its own link.
//!
//! Only TCP: it takes a packet twice without harm, and another may well have come already. Other
//! protocols lose what arrives in the freeze, as on any network.

use std::{io, os::fd::OwnedFd};

use godwit_types::MacAddr;
use rustix::net::{RecvFlags, recv};

use crate::sys;

/// Bytes that are held at the most.
const ROOM: usize = 4 << 20;
const ETHERNET: usize = 14;
const TCP: u8 = 6;

/// Dropped, what it holds is lost.
pub struct Hold {
    socket: OwnedFd,
}

impl Hold {
    /// Begins to hold what is sent to this address, on every link of this network namespace.
    pub fn new(mac: MacAddr) -> io::Result<Self> {
        Ok(Self {
            socket: sys::packet_socket(&filter(mac), ROOM)?,
        })
    }

    /// Sends all of it out of a link. Answers how many packets. Waits for the kernel at its end.
    pub fn deliver(self, link: &str) -> io::Result<usize> {
        // What comes now finds its way by itself; with a client that never stops, this would not
        // end either.
        sys::filter_packets(&self.socket, &[REFUSE])?;
        let out = sys::FrameSender::new(link, nix::libc::ETH_P_IP as u16)?;
        let mut buffer = vec![0; 1 << 16];
        let mut sent = 0;
        loop {
            let length = match recv(&self.socket, &mut buffer[..], RecvFlags::DONTWAIT) {
                Ok((length, _)) => length,
                Err(rustix::io::Errno::AGAIN) => return Ok(sent),
                Err(errno) => return Err(errno.into()),
            };
            let frame = &mut buffer[..length];
            // Too large for the link, since the kernel joined several: TCP sends those again.
            if seal(frame) && out.send(frame).is_ok() {
                sent += 1;
            }
        }
    }
}

type Instruction = nix::libc::sock_filter;

const REFUSE: Instruction = Instruction {
    code: RETURN,
    jt: 0,
    jf: 0,
    k: 0,
};
const RETURN: u16 = 0x06;

/// IPv4 and TCP, to this address, and not on its way out.
fn filter(mac: MacAddr) -> [Instruction; 12] {
    const LOAD_WORD: u16 = 0x20;
    const LOAD_HALF: u16 = 0x28;
    const LOAD_BYTE: u16 = 0x30;
    const EQUAL: u16 = 0x15;
    /// `SKF_AD_OFF + SKF_AD_PKTTYPE`
    const PACKET_TYPE: u32 = 0xffff_f004;
    const OUTGOING: u32 = 4;
    let [a, b, c, d, e, f] = mac.0;
    let load = |code, k| Instruction {
        code,
        jt: 0,
        jf: 0,
        k,
    };
    // Where the jumps go: `at` is the instruction's own place, 11 refuses.
    let need = |at: u8, k| Instruction {
        code: EQUAL,
        jt: 0,
        jf: 11 - at - 1,
        k,
    };
    [
        load(LOAD_WORD, PACKET_TYPE),
        Instruction {
            code: EQUAL,
            jt: 9,
            jf: 0,
            k: OUTGOING,
        },
        load(LOAD_HALF, 12),
        need(3, u32::from(nix::libc::ETH_P_IP as u16)),
        load(LOAD_BYTE, 23),
        need(5, u32::from(TCP)),
        load(LOAD_WORD, 0),
        need(7, u32::from_be_bytes([a, b, c, d])),
        load(LOAD_HALF, 4),
        need(9, u32::from(u16::from_be_bytes([e, f]))),
        load(RETURN, u32::MAX),
        REFUSE,
    ]
}

/// Computes the TCP checksum: a packet that never left this machine has none yet. False: it is
/// not a whole packet.
fn seal(frame: &mut [u8]) -> bool {
    let Some(packet) = frame.get_mut(ETHERNET..) else {
        return false;
    };
    if packet.len() < 20 || packet[0] >> 4 != 4 || packet[9] != TCP {
        return false;
    }
    let header = usize::from(packet[0] & 15) * 4;
    let total = usize::from(u16::from_be_bytes([packet[2], packet[3]]));
    let fragment = u16::from_be_bytes([packet[6], packet[7]]) & 0x3fff != 0;
    if header < 20 || total > packet.len() || total < header + 20 || fragment {
        return false;
    }
    let length = (total - header) as u16;
    packet[header + 16] = 0;
    packet[header + 17] = 0;
    let mut sum = sum(&packet[12..20]) + sum(&packet[header..total]);
    sum += u64::from(TCP) + u64::from(length);
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    let checksum = !(sum as u16);
    packet[header + 16..header + 18].copy_from_slice(&checksum.to_be_bytes());
    true
}

fn sum(bytes: &[u8]) -> u64 {
    bytes
        .chunks(2)
        .map(|pair| u64::from(pair[0]) << 8 | u64::from(pair.get(1).copied().unwrap_or(0)))
        .sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A SYN from 10.0.0.1:1 to 10.0.0.2:2, its checksum worked out by hand with RFC 1071.
    fn frame() -> Vec<u8> {
        let mut frame = vec![0; ETHERNET];
        frame[12..14].copy_from_slice(&[8, 0]);
        frame.extend([0x45, 0, 0, 40, 0, 0, 0x40, 0, 64, TCP, 0, 0]);
        frame.extend([10, 0, 0, 1, 10, 0, 0, 2]);
        frame.extend([
            0, 1, 0, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0x50, 2, 0xff, 0xff, 0xaa, 0xaa, 0, 0,
        ]);
        frame
    }

    #[test]
    fn a_checksum_is_computed() {
        let mut sealed = frame();
        assert!(seal(&mut sealed));
        assert_eq!(sealed[ETHERNET + 36..ETHERNET + 38], [0x9b, 0xdd]);
        // What was right stays.
        let before = sealed.clone();
        assert!(seal(&mut sealed));
        assert_eq!(sealed, before);
    }

    #[test]
    fn what_is_no_whole_packet_is_left_out() {
        for cut in [0, 13, 20, 40, 53] {
            assert!(!seal(&mut frame()[..cut].to_vec()), "{cut}");
        }
        for (at, byte) in [
            (14, 0x65),
            (14, 0x41),
            (17, 30),
            (17, 41),
            (23, 17),
            (20, 0x20),
        ] {
            let mut other = frame();
            other[at] = byte;
            assert!(!seal(&mut other), "{at}");
        }
    }

    #[test]
    fn jumps_lead_to_the_refusal() {
        let filter = filter(MacAddr([2, 0x67, 10, 0, 0, 1]));
        for (at, instruction) in filter.iter().enumerate().filter(|(_, i)| i.code == 0x15) {
            let refuse = if at == 1 {
                instruction.jt
            } else {
                instruction.jf
            };
            assert_eq!(at + 1 + usize::from(refuse), 11);
        }
    }
}
