//! This process in a container's freezer for a while, so that what it starts meanwhile is born
//! there.

use std::{fs, path::PathBuf};

use godwit_types::CgroupMode;

use super::{Group, Result, v2_root, write};

/// Where this process has to go back to.
pub struct Visit {
    home: Option<PathBuf>,
}

impl Group {
    /// On a hybrid host libcontainer knows nothing of the freezer; elsewhere this does nothing.
    pub fn visit_freezer(&self) -> Result<Visit> {
        let mut home = None;
        if self.mode == CgroupMode::Hybrid && self.v2.is_some() {
            let text = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
            home = own(&text)
                .zip(v2_root(self.mode))
                .map(|(own, root)| root.join(own.trim_start_matches('/')));
            self.join_freezer(std::process::id() as i32)?;
        }
        Ok(Visit { home })
    }
}

impl Visit {
    /// Back to where it came from.
    pub fn leave(self) -> Result<()> {
        match self.home {
            Some(home) => write(&home.join("cgroup.procs"), &std::process::id().to_string()),
            None => Ok(()),
        }
    }
}

/// The path in the v2 tree, of `/proc/PID/cgroup`.
fn own(text: &str) -> Option<&str> {
    text.lines().find_map(|line| line.strip_prefix("0::"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_path_in_the_v2_tree_is_found_among_the_others() {
        assert_eq!(own("9:cpu:/a\n0::/b/c\n"), Some("/b/c"));
        assert_eq!(own("9:cpu:/a\n"), None);
    }
}
