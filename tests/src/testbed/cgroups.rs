//! A cluster's cgroup subtree, in every hierarchy.

use std::{
    fs,
    path::{Path, PathBuf},
};

/// Where cgroups are mounted.
pub fn roots() -> Vec<PathBuf> {
    let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
    let roots = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_, at, kind) = (fields.next()?, fields.next()?, fields.next()?);
        matches!(kind, "cgroup" | "cgroup2").then(|| PathBuf::from(at))
    });
    roots.collect()
}

/// Removes the empty groups below and including `name`, wherever cgroups are mounted.
pub fn remove(name: &str) {
    for root in roots() {
        remove_tree(&root.join(name));
    }
}

/// Deepest first, as rmdir wants it. A group whose last process is just ending is tried again.
fn remove_tree(dir: &Path) {
    for entry in fs::read_dir(dir).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path());
        }
    }
    for _ in 0..100 {
        match fs::remove_dir(dir) {
            Err(error) if error.kind() == std::io::ErrorKind::ResourceBusy => {
                std::thread::sleep(std::time::Duration::from_millis(20));
            }
            _ => return,
        }
    }
}
