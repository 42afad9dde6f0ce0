//! Tells the neighbourhood where a container is now: gratuitous ARP from its own address.

use std::{net::Ipv4Addr, path::Path, thread, time::Duration};

use godwit_types::{MacAddr, NetworkAttachment};

use super::{error::Result, namespace};
use crate::sys;

/// How long the link may take to have its carrier after it was raised.
const CARRIER: Duration = Duration::from_millis(100);

/// Sends it out of the container's link, once as a question and once as an answer: neighbours
/// differ in which of them they believe.
pub fn announce(netns: &Path, attachment: &NetworkAttachment) -> Result<()> {
    let (mac, address) = (attachment.mac(), attachment.address);
    namespace::inside(netns, move || {
        let step = Duration::from_millis(1);
        let mut waited = Duration::ZERO;
        // sysfs shows the namespace it was mounted in: the socket says it instead.
        loop {
            match sys::send_arp("eth0", &frame(mac, address, 1)) {
                Err(error)
                    if error.raw_os_error() == Some(nix::libc::ENETDOWN) && waited < CARRIER =>
                {
                    thread::sleep(step);
                    waited += step;
                }
                other => break other,
            }
        }?;
        sys::send_arp("eth0", &frame(mac, address, 2)).map(drop)
    })
}

/// An Ethernet frame with an ARP packet: who has `address`, or `address` is at `mac`.
fn frame(mac: MacAddr, address: Ipv4Addr, operation: u8) -> [u8; 42] {
    let mut frame = [0u8; 42];
    frame[..6].fill(0xff);
    frame[6..12].copy_from_slice(&mac.0);
    // Ethertype ARP; hardware Ethernet, protocol IPv4, address lengths 6 and 4.
    frame[12..20].copy_from_slice(&[8, 6, 0, 1, 8, 0, 6, 4]);
    frame[21] = operation;
    frame[22..28].copy_from_slice(&mac.0);
    frame[28..32].copy_from_slice(&address.octets());
    frame[32..38].fill(if operation == 1 { 0 } else { 0xff });
    frame[38..42].copy_from_slice(&address.octets());
    frame
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_frame_is_a_gratuitous_arp() {
        let address = Ipv4Addr::new(10, 88, 0, 2);
        let frame = frame(MacAddr::of(address), address, 1);
        assert_eq!(frame[12..14], [0x08, 0x06]);
        assert_eq!(frame[20..22], [0, 1]);
        assert_eq!(frame[28..32], frame[38..42]);
    }
}
