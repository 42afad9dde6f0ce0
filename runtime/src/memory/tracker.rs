//! Which carried pages of one process were written since they were last asked for.

mod faults;
mod soft_dirty;

use std::{fmt, io, str::FromStr};

use faults::Faults;
use soft_dirty::SoftDirty;
pub use soft_dirty::works as soft_dirty_works;

use super::{
    maps::Span,
    pagemap::Pagemap,
    sys::{Kind, Region, Scan},
};

/// How the kernel is asked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Method {
    #[default]
    Userfaultfd,
    SoftDirty,
}

impl Method {
    /// The best first.
    pub const ALL: [Self; 2] = [Self::Userfaultfd, Self::SoftDirty];

    pub fn as_str(self) -> &'static str {
        match self {
            Self::Userfaultfd => "userfaultfd",
            Self::SoftDirty => "soft-dirty",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Method {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        { Self::ALL.into_iter() }
            .find(|method| method.as_str() == text)
            .ok_or_else(|| format!("`{text}` is no way to track writes"))
    }
}

/// Dropped, the process's writes are not tracked any more.
pub enum Tracker {
    Userfaultfd(Faults),
    SoftDirty(SoftDirty),
}

impl Tracker {
    pub fn attach(pid: i32, method: Method) -> io::Result<Self> {
        Ok(match method {
            Method::Userfaultfd => Self::Userfaultfd(Faults::attach(pid)?),
            Method::SoftDirty => Self::SoftDirty(SoftDirty::default()),
        })
    }

    /// The populated pages of a process's carried mappings, and which of them were written since
    /// this was called last. What is written from now on is told the next time. After an error all
    /// of them count as written, and this tracker is of no use any more.
    pub fn take(&mut self, pid: i32, spans: &[Span]) -> io::Result<Vec<Region>> {
        match self {
            Self::Userfaultfd(faults) => faults.take(pid, spans),
            Self::SoftDirty(bits) => bits.take(pid),
        }
    }

    /// The same of a process that is stopped and stays so; it can be called again.
    pub fn look(&self, pid: i32, spans: &[Span]) -> io::Result<Vec<Region>> {
        match self {
            Self::Userfaultfd(_) => populated(pid, spans),
            Self::SoftDirty(bits) => bits.look(pid, spans),
        }
    }
}

/// The populated pages of a process that nothing tracks: all of them count as written.
pub fn untracked(pid: i32, spans: &[Span]) -> io::Result<Vec<Region>> {
    let mut regions = populated(pid, spans)?;
    regions.iter_mut().for_each(|region| region.written = true);
    Ok(regions)
}

/// Written is what no userfaultfd of ours protects.
fn populated(pid: i32, spans: &[Span]) -> io::Result<Vec<Region>> {
    let mut scan = Scan::open(pid)?;
    let mut found = Vec::new();
    for span in spans {
        match scan.populated(*span, Kind::Look, &mut found) {
            // Before Linux 6.7.
            Err(error) if error.raw_os_error() == Some(nix::libc::ENOTTY) => {
                return Pagemap::open(pid)?.populated(spans);
            }
            other => other?,
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_method_is_named_as_it_is_shown() {
        for method in Method::ALL {
            assert_eq!(method.to_string().parse(), Ok(method));
        }
        "none".parse::<Method>().unwrap_err();
    }

    #[test]
    fn both_ways_to_look_find_the_same_written_page() {
        let memory = vec![7u8; 64 * 4096];
        let start = (memory.as_ptr() as u64).next_multiple_of(4096);
        let span = Span {
            start,
            end: start + 63 * 4096,
        };
        let me = std::process::id() as i32;
        let pages = |regions: Vec<Region>| -> u64 { regions.iter().map(|r| r.span.pages()).sum() };
        assert_eq!(pages(populated(me, &[span]).unwrap()), 63);
        let read = Pagemap::open(me).unwrap().populated(&[span]).unwrap();
        assert_eq!(pages(read), 63);
        let all = untracked(me, &[span]).unwrap();
        assert!(all.iter().all(|region| region.written));
    }
}
