//! The proof that an arriving container has never run here: a file that its shim writes when it
//! begins to wait for the container, and removes before it lets anything of it run.
//!
//! It is not flushed to the disk, which would lie in the freeze. So it is worth something only
//! within one boot of the machine, whose id it holds: after a power cut the file may be back.

use std::{fs, io, path::Path};

const BOOT: &str = "/proc/sys/kernel/random/boot_id";

/// From now on.
pub fn begin(path: &Path) -> io::Result<()> {
    fs::write(path, fs::read(BOOT)?)
}

/// Not any more. An error: it may not run, since it could be said later that it never did.
pub fn end(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

/// Whether it is certain that nothing ran. What can't be read proves nothing.
pub fn is_proof(path: &Path) -> bool {
    matches!((fs::read(path), fs::read(BOOT)), (Ok(held), Ok(boot)) if held == boot && !boot.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_proof_in_this_boot_alone_and_until_it_ends() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("held");
        assert!(!is_proof(&path));
        begin(&path).unwrap();
        assert!(is_proof(&path));
        fs::write(&path, "another boot\n").unwrap();
        assert!(!is_proof(&path));
        begin(&path).unwrap();
        end(&path).unwrap();
        assert!(!is_proof(&path));
        end(&path).unwrap();
    }
}
