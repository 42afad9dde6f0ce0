//! What is measured.

use std::fmt;

/// One container, its writer and the link it moves over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Scenario {
    /// Of each process.
    pub rss_mib: u64,
    pub processes: u64,
    pub writer_mb_s: u64,
    /// None: as fast as it goes.
    pub link_mbit: Option<u64>,
}

/// Every memory size, idle and written to, on both links.
pub fn all(quick: bool) -> Vec<Scenario> {
    let sizes: &[(u64, u64)] = if quick {
        &[(16, 1), (256, 1), (1024, 1)]
    } else {
        &[(16, 1), (256, 1), (1024, 1), (4096, 1), (8192, 1), (16, 16)]
    };
    let mut all = Vec::new();
    for link_mbit in [None, Some(1000)] {
        for writer_mb_s in [0, 50] {
            all.extend(sizes.iter().map(|&(rss_mib, processes)| Scenario {
                rss_mib,
                processes,
                writer_mb_s,
                link_mbit,
            }));
        }
    }
    all
}

impl fmt::Display for Scenario {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.processes > 1 {
            write!(f, "{} x ", self.processes)?;
        }
        write!(f, "{} MiB, ", self.rss_mib)?;
        match self.writer_mb_s {
            0 => write!(f, "idle, ")?,
            rate => write!(f, "{rate} MB/s written, ")?,
        }
        match self.link_mbit {
            None => write!(f, "unshaped"),
            Some(rate) => write!(f, "{rate} Mb/s"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_size_is_measured_in_every_way() {
        assert_eq!(all(false).len(), 6 * 2 * 2);
        assert_eq!(all(true).len(), 3 * 2 * 2);
        let names: Vec<String> = all(false).iter().map(ToString::to_string).collect();
        assert!(names.contains(&"16 x 16 MiB, 50 MB/s written, 1000 Mb/s".to_owned()));
        assert!(names.contains(&"8192 MiB, idle, unshaped".to_owned()));
    }
}
