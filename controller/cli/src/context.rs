//! A directory as a build's context: a tar of all that `.dockerignore` leaves in.

use std::{
    fs::{self, File, Metadata},
    io::{self, Read, Write},
    os::unix::{
        ffi::OsStrExt,
        fs::{FileTypeExt, MetadataExt, PermissionsExt},
    },
    path::Path,
};

use godwit_types::IgnoreRules;
use tar::{Builder, EntryType, Header, HeaderMode};

const MAX_DEPTH: usize = 128;

/// Writes the tar, sorted, so that the same directory gives the same bytes. Owners are left out:
/// what is copied is root's.
pub fn write(dir: &Path, rules: &IgnoreRules, out: impl Write) -> io::Result<()> {
    let mut tar = Builder::new(out);
    tar.mode(HeaderMode::Complete);
    let mut walk = Walk { tar, dir, rules };
    walk.directory("", 0)?;
    walk.tar.finish()
}

/// Whether these first bytes are an archive's, and not a Dockerfile's.
pub fn is_archive(start: &[u8]) -> bool {
    let compressed: [&[u8]; 4] = [b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"BZh", b"\xfd7zXZ\0"];
    compressed.iter().any(|magic| start.starts_with(magic))
        || start.get(257..262).is_some_and(|magic| magic == b"ustar")
}

struct Walk<'a, W: Write> {
    tar: Builder<W>,
    dir: &'a Path,
    rules: &'a IgnoreRules,
}

impl<W: Write> Walk<'_, W> {
    /// `below` is relative; empty: the context itself.
    fn directory(&mut self, below: &str, depth: usize) -> io::Result<()> {
        if depth > MAX_DEPTH {
            let text = format!("`{below}` is deeper than {MAX_DEPTH} directories");
            return Err(io::Error::other(text));
        }
        let path = self.dir.join(below);
        let named = |error: io::Error, what: &Path| {
            io::Error::new(error.kind(), format!("`{}`: {error}", what.display()))
        };
        let mut names = Vec::new();
        for entry in fs::read_dir(&path).map_err(|error| named(error, &path))? {
            names.push(entry.map_err(|error| named(error, &path))?.file_name());
        }
        names.sort();
        for name in names {
            let whole = path.join(&name);
            let Some(name) = name.to_str() else {
                let text = format!("`{}`: its name is not UTF-8", whole.display());
                return Err(io::Error::other(text));
            };
            let relative = match below {
                "" => name.to_owned(),
                below => format!("{below}/{name}"),
            };
            let metadata = fs::symlink_metadata(&whole).map_err(|error| named(error, &whole))?;
            let ignored = self.rules.ignores(&relative);
            if metadata.is_dir() {
                if ignored && !self.rules.may_take_back_below(&relative) {
                    continue;
                }
                // Those above what was taken back come by themselves.
                if !ignored {
                    let header = header(&metadata, EntryType::Directory, 0);
                    self.append(header, &format!("{relative}/"), &[][..])
                        .map_err(|error| named(error, &whole))?;
                }
                self.directory(&relative, depth + 1)?;
                continue;
            }
            if !ignored {
                self.entry(&whole, &relative, &metadata)
                    .map_err(|error| named(error, &whole))?;
            }
        }
        Ok(())
    }

    fn entry(&mut self, path: &Path, relative: &str, metadata: &Metadata) -> io::Result<()> {
        let kind = metadata.file_type();
        if kind.is_symlink() {
            let target = fs::read_link(path)?;
            let mut header = header(metadata, EntryType::Symlink, 0);
            return self.tar.append_link(&mut header, relative, target);
        }
        if kind.is_fifo() {
            return self.append(header(metadata, EntryType::Fifo, 0), relative, &[][..]);
        }
        // Sockets and devices are nothing that can be copied.
        if !kind.is_file() {
            return Ok(());
        }
        let file = File::open(path)?;
        let size = file.metadata()?.len();
        let mut content = Exactly { file, left: size };
        self.append(
            header(metadata, EntryType::Regular, size),
            relative,
            &mut content,
        )
    }

    fn append(&mut self, mut header: Header, path: &str, content: impl Read) -> io::Result<()> {
        let path = Path::new(std::ffi::OsStr::from_bytes(path.as_bytes()));
        self.tar.append_data(&mut header, path, content)
    }
}

fn header(metadata: &Metadata, kind: EntryType, size: u64) -> Header {
    let mut header = Header::new_gnu();
    header.set_entry_type(kind);
    header.set_mode(metadata.permissions().mode() & 0o7777);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(u64::try_from(metadata.mtime()).unwrap_or(0));
    header.set_size(size);
    header
}

/// A file of the size that was said: one that grows is cut, one that shrinks is an error, since
/// what follows in the tar would be read as its content.
struct Exactly {
    file: File,
    left: u64,
}

impl Read for Exactly {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let want = buffer
            .len()
            .min(usize::try_from(self.left).unwrap_or(usize::MAX));
        if want == 0 {
            return Ok(0);
        }
        let n = self.file.read(&mut buffer[..want])?;
        if n == 0 {
            return Err(io::Error::other("it became shorter while it was read"));
        }
        self.left -= n as u64;
        Ok(n)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(bytes: &[u8]) -> Vec<String> {
        let mut archive = tar::Archive::new(bytes);
        archive
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect()
    }

    #[test]
    fn a_context_holds_what_is_not_ignored() {
        let dir = tempfile::tempdir().unwrap();
        for path in ["a/b", "keep/x", "target"] {
            fs::create_dir_all(dir.path().join(path)).unwrap();
        }
        let long = "n".repeat(150);
        for path in ["a/b/c.rs", "a/b/c.o", "keep/x/y", "target/t", "z", &long] {
            fs::write(dir.path().join(path), path).unwrap();
        }
        std::os::unix::fs::symlink("/etc/passwd", dir.path().join("link")).unwrap();
        let rules = IgnoreRules::parse("target\n**/*.o\nkeep\n!keep/x/y").unwrap();
        let mut bytes = Vec::new();
        write(dir.path(), &rules, &mut bytes).unwrap();
        assert_eq!(
            names(&bytes),
            [
                "a/",
                "a/b/",
                "a/b/c.rs",
                "keep/x/y",
                "link",
                long.as_str(),
                "z"
            ]
        );
        let mut again = Vec::new();
        write(dir.path(), &rules, &mut again).unwrap();
        assert_eq!(bytes, again);
        assert!(is_archive(&bytes) && !is_archive(b"FROM x\n"));
    }

    #[test]
    fn a_directory_that_is_not_there_is_named() {
        let error = write(
            Path::new("/not/there"),
            &IgnoreRules::default(),
            &mut Vec::new(),
        );
        assert!(error.unwrap_err().to_string().contains("/not/there"));
    }
}
