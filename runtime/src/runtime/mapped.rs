//! The files that a container's processes have mapped to share them: what is written there changes
//! no time until the kernel writes it back.

use std::{ffi::OsString, fs, io, os::unix::ffi::OsStringExt, path::PathBuf};

use super::{Result, RuntimeError};
use crate::{cgroup::Group, rootfs::diff::Mapped};

/// Of all processes in a cgroup. A mapping that is only read may be one that was written to.
pub(super) fn mapped(cgroup: &str) -> Result<Mapped> {
    let mut mapped = Mapped::default();
    for pid in Group::new(cgroup)?.processes()? {
        let path = PathBuf::from(format!("/proc/{pid}/maps"));
        match fs::read(&path) {
            Ok(maps) => maps.split(|byte| *byte == b'\n').for_each(|line| {
                add(line, &mut mapped);
            }),
            // It has ended.
            Err(error) if is_gone(&error) => {}
            Err(source) => return Err(RuntimeError::Io { path, source }),
        }
    }
    Ok(mapped)
}

fn is_gone(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::NotFound
        || error.raw_os_error() == Some(rustix::io::Errno::SRCH.raw_os_error())
}

/// `START-END MODE OFFSET DEVICE INODE     /PATH`, the path as the container has it.
fn add(line: &[u8], mapped: &mut Mapped) {
    let mut fields = line.splitn(6, |byte| *byte == b' ');
    let is_shared = fields.nth(1).is_some_and(|mode| mode.get(3) == Some(&b's'));
    let Some(path) = fields.nth(3).filter(|_| is_shared) else {
        return;
    };
    let Some(path) = path.trim_ascii_start().strip_prefix(b"/") else {
        return;
    };
    let is_other = |name: &[u8]| path.starts_with(name);
    if is_other(b"memfd:") || is_other(b"SYSV") || is_other(b"dev/zero") {
        return;
    }
    // Gone by this name, and maybe there by another one.
    if path.ends_with(b" (deleted)") {
        mapped.others = true;
        return;
    }
    mapped
        .paths
        .insert(PathBuf::from(OsString::from_vec(unescaped(path))));
}

/// The kernel writes a line feed as `\012`, and leaves all else.
fn unescaped(path: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(path.len());
    let mut rest = path;
    while let Some((first, after)) = rest.split_first() {
        if let Some(after) = rest.strip_prefix(b"\\012") {
            plain.push(b'\n');
            rest = after;
        } else {
            plain.push(*first);
            rest = after;
        }
    }
    plain
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shared_mappings_of_files_are_found() {
        let mut mapped = Mapped::default();
        for line in [
            "7f0000000000-7f0000002000 rw-s 00000000 00:30 77                         /data/a b",
            "7f0000000000-7f0000002000 r--s 00000000 00:30 78                         /data/x\\012y",
            "7f0000000000-7f0000002000 rw-p 00000000 00:30 79                         /data/private",
            "7f0000000000-7f0000002000 rw-s 00000000 00:01 5                          /memfd:x (deleted)",
            "7f0000000000-7f0000002000 rw-s 00000000 00:0e 6                          anon_inode:[io_uring]",
            "7f0000000000-7f0000002000 rw-p 00000000 00:00 0 ",
            "",
        ] {
            add(line.as_bytes(), &mut mapped);
        }
        let expected = ["data/a b", "data/x\ny"].map(PathBuf::from);
        assert_eq!(mapped.paths, expected.into());
        assert!(!mapped.others);
        add(
            b"7f00-7f01 rw-s 00000000 00:30 77     /data/gone (deleted)",
            &mut mapped,
        );
        assert!(mapped.others);
    }
}
