//! What CRIU wants to know of a large task's mappings, without a walk over all of its pages.
//!
//! CRIU reads `/proc/PID/smaps` for the flags of each mapping, and the kernel counts every page of
//! every mapping on the way: 13 ms a GiB, in the freeze. The flags hardly ever change. So they are
//! read a moment before the freeze, while the task runs; once it is stopped, the mappings are
//! listed anew, which costs nothing, and each that is the same as before keeps its flags. If one
//! is not, or memory was locked meanwhile, CRIU reads the kernel's own file.
//!
//! What can be missed is a hint (`madvise`) that was given to a mapping in that moment: it is not
//! on the destination then. Contents are never concerned.

use std::{
    collections::{BTreeMap, HashMap},
    fs, io,
    path::{Path, PathBuf},
};

use super::hidden::ended;

/// Names the directory in CRIU's environment, for its interposer.
pub const VARIABLE: &str = "GODWIT_SMAPS";
/// A task with less memory is read as quickly by the kernel.
const WORTHWHILE: u64 = 64 << 20;

/// Flags of mappings, as they were before the freeze.
pub struct Smaps {
    dir: PathBuf,
    tasks: BTreeMap<i32, Task>,
}

struct Task {
    /// `VmLck` in its status: a mapping that was locked meanwhile has another flag.
    locked: String,
    /// By the line that lists the mapping.
    flags: HashMap<String, String>,
}

impl Smaps {
    /// Reads what is worth it of these tasks. `dir` is made, and belongs to this value.
    pub fn note(dir: &Path, pids: &[i32]) -> io::Result<Self> {
        remove(dir)?;
        fs::create_dir_all(dir)?;
        let mut tasks = BTreeMap::new();
        for pid in pids {
            match note(*pid) {
                Ok(Some(task)) => {
                    tasks.insert(*pid, task);
                }
                Ok(None) => {}
                Err(error) if ended(&error) => {}
                Err(error) => return Err(error),
            }
        }
        let dir = dir.to_owned();
        Ok(Self { dir, tasks })
    }

    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// Writes down the mappings of the stopped tasks whose flags are known.
    pub fn write(&self) -> io::Result<()> {
        for (pid, task) in &self.tasks {
            let maps = match fs::read_to_string(format!("/proc/{pid}/maps")) {
                Ok(maps) => maps,
                Err(error) if ended(&error) => continue,
                Err(error) => return Err(error),
            };
            if locked(*pid)? == task.locked
                && let Some(text) = compose(&maps, &task.flags)
            {
                fs::write(self.dir.join(pid.to_string()), text)?;
            }
        }
        Ok(())
    }

    /// To be called once CRIU has read them.
    pub fn remove(self) -> io::Result<()> {
        remove(&self.dir)
    }
}

fn remove(dir: &Path) -> io::Result<()> {
    match fs::remove_dir_all(dir) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn note(pid: i32) -> io::Result<Option<Task>> {
    let statm = fs::read_to_string(format!("/proc/{pid}/statm"))?;
    let pages: u64 = statm
        .split(' ')
        .nth(1)
        .and_then(|pages| pages.parse().ok())
        .unwrap_or(0);
    if pages * super::PAGE < WORTHWHILE {
        return Ok(None);
    }
    let locked = locked(pid)?;
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
    let flags = flags(&smaps);
    Ok(Some(Task { locked, flags }))
}

fn locked(pid: i32) -> io::Result<String> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find(|line| line.starts_with("VmLck:"));
    Ok(line.unwrap_or_default().to_owned())
}

/// The line of flags of each mapping.
fn flags(smaps: &str) -> HashMap<String, String> {
    let mut found = HashMap::new();
    let mut mapping = "";
    for line in smaps.lines() {
        if line.starts_with("VmFlags:") {
            found.insert(mapping.to_owned(), line.to_owned());
        } else if is_mapping(line) {
            mapping = line;
        }
    }
    found
}

/// Begins with a range of addresses; other lines begin with a name and a colon.
fn is_mapping(line: &str) -> bool {
    line.split_once('-').is_some_and(|(start, _)| {
        !start.is_empty() && start.bytes().all(|byte| byte.is_ascii_hexdigit())
    })
}

/// The mappings with their flags; None where one of them is new.
fn compose(maps: &str, flags: &HashMap<String, String>) -> Option<String> {
    let mut text = String::with_capacity(maps.len() * 2);
    for line in maps.lines() {
        text.push_str(line);
        text.push('\n');
        text.push_str(flags.get(line)?);
        text.push('\n');
    }
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    const SMAPS: &str = "1000-3000 rw-p 00000000 00:00 0 \nSize:  8 kB\nFilePmdMapped: 0 kB\n\
                         VmFlags: rd wr mr \na000-b000 r--p 00000000 00:00 0                  [heap]\n\
                         Size: 4 kB\nVmFlags: rd mr lo \n";

    #[test]
    fn mappings_that_are_the_same_keep_their_flags() {
        let flags = flags(SMAPS);
        let maps = "1000-3000 rw-p 00000000 00:00 0 \n\
                    a000-b000 r--p 00000000 00:00 0                  [heap]\n";
        let text = compose(maps, &flags).unwrap();
        assert_eq!(
            text,
            "1000-3000 rw-p 00000000 00:00 0 \nVmFlags: rd wr mr \n\
             a000-b000 r--p 00000000 00:00 0                  [heap]\nVmFlags: rd mr lo \n"
        );
        assert_eq!(compose("1000-4000 rw-p 00000000 00:00 0 \n", &flags), None);
    }

    #[test]
    fn the_kernel_lists_mappings_the_same_way_in_both_files() {
        let me = std::process::id() as i32;
        let dir = tempfile::tempdir().unwrap();
        let smaps = fs::read_to_string(format!("/proc/{me}/smaps")).unwrap();
        let known = flags(&smaps);
        let maps = fs::read_to_string(format!("/proc/{me}/maps")).unwrap();
        let same = maps.lines().filter(|line| known.contains_key(*line));
        assert!(same.count() * 2 > maps.lines().count());
        let noted = Smaps::note(&dir.path().join("s"), &[me, i32::MAX]).unwrap();
        noted.write().unwrap();
        noted.remove().unwrap();
        assert!(!dir.path().join("s").exists());
    }
}
