//! Can this host's kernel carry memory at all?

use std::{fs, io, str::FromStr};

use super::{
    maps::Span,
    sys::{self, Kind, Scan},
    tracker::{Method, soft_dirty_works},
};

/// How the writes of containers may be tracked.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Wanted {
    /// As well as the kernel can.
    #[default]
    Best,
    Only(Method),
    /// Not at all: memory is moved in the freeze.
    None,
}

impl FromStr for Wanted {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text {
            "auto" => Ok(Self::Best),
            "none" => Ok(Self::None),
            method => method.parse().map(Self::Only),
        }
    }
}

impl Wanted {
    /// The way to track writes on this host, or why there is none, in words for an operator.
    /// Tries it: asked once, at the agent's start.
    pub fn choose(self) -> Result<Method, String> {
        self.choose_by(works)
    }

    fn choose_by(self, works: impl Fn(Method) -> Result<(), String>) -> Result<Method, String> {
        let methods = match self {
            Self::Best => &Method::ALL[..],
            Self::Only(Method::Userfaultfd) => &[Method::Userfaultfd],
            Self::Only(Method::SoftDirty) => &[Method::SoftDirty],
            Self::None => return Err("this agent is told not to track writes to memory".to_owned()),
        };
        let mut reasons = Vec::new();
        for method in methods {
            match works(*method) {
                Ok(()) => return Ok(*method),
                Err(reason) => reasons.push(format!("by {method}: {reason}")),
            }
        }
        let reasons = reasons.join("; ");
        Err(format!("writes to memory can't be tracked {reasons}"))
    }
}

fn works(method: Method) -> Result<(), String> {
    match method {
        Method::Userfaultfd => userfaultfd_works(),
        Method::SoftDirty => soft_dirty_works()
            .map_err(|reason| format!("{reason} (CONFIG_MEM_SOFT_DIRTY is needed)")),
    }
}

fn userfaultfd_works() -> Result<(), String> {
    let tracking = sys::userfaultfd().and_then(|fault| fault.track_writes());
    tracking.map_err(|error| format!("{error} (Linux 6.7 or newer is needed)"))?;
    let nothing = Span { start: 0, end: 0 };
    Scan::open(std::process::id() as i32)
        .and_then(|mut scan| scan.populated(nothing, Kind::Look, &mut Vec::new()))
        .map_err(|error| format!("written pages can't be listed: {error}"))
}

/// Bytes of memory that are kept for others than containers that arrive. None: a tenth of what is
/// available then.
#[derive(Debug, Clone, Copy, Default)]
pub struct Reserve(pub Option<u64>);

impl Reserve {
    /// What it leaves of the memory available now. A host that does not say what it has, has
    /// enough.
    pub fn leaves(self) -> u64 {
        available().map_or(u64::MAX, |bytes| self.leaves_of(bytes))
    }

    fn leaves_of(self, available: u64) -> u64 {
        available.saturating_sub(self.0.unwrap_or(available / 10))
    }
}

/// Bytes of memory that can be taken without hurting anybody.
fn available() -> io::Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    text.lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))
        .and_then(|rest| rest.split_ascii_whitespace().next()?.parse::<u64>().ok())
        .map(|kib| kib * 1024)
        .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no MemAvailable"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn choose(wanted: Wanted, userfaultfd: bool, soft_dirty: bool) -> Result<Method, String> {
        wanted.choose_by(|method| {
            let works = match method {
                Method::Userfaultfd => userfaultfd,
                Method::SoftDirty => soft_dirty,
            };
            works.then_some(()).ok_or_else(|| "no".to_owned())
        })
    }

    #[test]
    fn soft_dirty_is_what_is_left_where_userfaultfd_can_not() {
        let (fault, bits) = (Method::Userfaultfd, Method::SoftDirty);
        for (wanted, userfaultfd, soft_dirty, chosen) in [
            (Wanted::Best, true, true, Some(fault)),
            (Wanted::Best, true, false, Some(fault)),
            (Wanted::Best, false, true, Some(bits)),
            (Wanted::Best, false, false, None),
            (Wanted::Only(bits), true, true, Some(bits)),
            (Wanted::Only(bits), true, false, None),
            (Wanted::Only(fault), false, true, None),
            (Wanted::None, true, true, None),
        ] {
            let answer = choose(wanted, userfaultfd, soft_dirty);
            assert_eq!(answer.ok(), chosen, "{wanted:?} {userfaultfd} {soft_dirty}");
        }
        let reason = choose(Wanted::Best, false, false).unwrap_err();
        let both = "can't be tracked by userfaultfd: no; by soft-dirty: no";
        assert!(reason.ends_with(both), "{reason}");
    }

    #[test]
    fn what_is_wanted_is_one_word() {
        for (text, wanted) in [
            ("auto", Wanted::Best),
            ("none", Wanted::None),
            ("soft-dirty", Wanted::Only(Method::SoftDirty)),
            ("userfaultfd", Wanted::Only(Method::Userfaultfd)),
        ] {
            assert_eq!(text.parse(), Ok(wanted));
        }
        "ptrace".parse::<Wanted>().unwrap_err();
    }

    #[test]
    fn what_is_kept_for_others_is_not_for_arrivals() {
        assert_eq!(Reserve(None).leaves_of(1000), 900);
        assert_eq!(Reserve(Some(300)).leaves_of(1000), 700);
        assert_eq!(Reserve(Some(3000)).leaves_of(1000), 0);
        assert!(Reserve::default().leaves() > 0);
    }
}
