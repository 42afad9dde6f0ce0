//! The one place of the workloads with `unsafe`.

use std::sync::atomic::AtomicU64;

use memmap2::MmapRaw;

/// The first eight bytes of a shared mapping.
pub fn atomic(map: &MmapRaw) -> &AtomicU64 {
    assert!(map.len() >= 8);
    // SAFETY: a mapping is page-aligned and at least eight bytes long, it lives as long as the
    // reference, and every process reaches these bytes only as an atomic.
    unsafe { AtomicU64::from_ptr(map.as_mut_ptr().cast()) }
}
