//! Into a container, from a tar that is not trusted.

use std::{
    ffi::OsStr,
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsFd, BorrowedFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Component, Path},
};

use rustix::{
    fs::{
        AtFlags, Gid, Mode, OFlags, Timespec, Timestamps, Uid, fchmod, fchown, futimens, mkdirat,
        openat, symlinkat, unlinkat,
    },
    io::Errno,
};
use tar::{Archive, Entry, EntryType};

use super::{DEPTH, open_below, open_dir, resolve};

const ENTRIES: u64 = 1_000_000;

/// Unpacks into the directory that `path` leads to. `owner`: who has what is made; None: as the
/// archive says.
pub fn unpack(
    root: &Path,
    path: &str,
    from: impl Read,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let target = open_dir(resolve(root, path)?)?;
    let mut archive = Archive::new(from);
    let mut count = 0;
    for entry in archive.entries()? {
        count += 1;
        if count > ENTRIES {
            return Err(invalid(format!("more than {ENTRIES} entries")));
        }
        let mut entry = entry?;
        let name = entry.path_bytes().into_owned();
        make(target.as_fd(), &name, &mut entry, owner).map_err(|error| {
            let shown = String::from_utf8_lossy(&name).escape_debug().to_string();
            io::Error::new(error.kind(), format!("`{shown}`: {error}"))
        })?;
    }
    Ok(())
}

fn invalid(text: String) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, text)
}

fn make(
    target: BorrowedFd<'_>,
    name: &[u8],
    entry: &mut Entry<'_, impl Read>,
    owner: Option<(u32, u32)>,
) -> io::Result<()> {
    let parts = parts(name)?;
    let Some((last, parents)) = parts.split_last() else {
        // The directory itself: it is there, and is left as it is.
        return Ok(());
    };
    let mut dir = target.try_clone_to_owned()?;
    for parent in parents {
        dir = enter(dir.as_fd(), parent)?;
    }
    let attributes = Attributes::of(entry, owner)?;
    match entry.header().entry_type() {
        EntryType::Directory => attributes.set(&enter(dir.as_fd(), last)?),
        EntryType::Regular | EntryType::Continuous | EntryType::GNUSparse => {
            remove(dir.as_fd(), last)?;
            let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW;
            let mode = Mode::RUSR | Mode::WUSR;
            let mut file: File = openat(&dir, *last, flags | OFlags::CLOEXEC, mode)?.into();
            io::copy(entry, &mut file)?;
            attributes.set(&file.into())
        }
        EntryType::Symlink => {
            let link = entry
                .link_name_bytes()
                .ok_or_else(|| invalid("a link to nowhere".to_owned()))?;
            remove(dir.as_fd(), last)?;
            symlinkat(&*link, &dir, *last)?;
            let made = open_below(dir.as_fd(), last, OFlags::PATH)?;
            Ok(rustix::fs::chownat(
                &made,
                "",
                Some(attributes.uid),
                Some(attributes.gid),
                AtFlags::EMPTY_PATH | AtFlags::SYMLINK_NOFOLLOW,
            )?)
        }
        EntryType::Link => {
            let link = entry
                .link_name_bytes()
                .ok_or_else(|| invalid("a link to nowhere".to_owned()))?
                .into_owned();
            let to = self::parts(&link)?;
            let Some((to_name, parents)) = to.split_last() else {
                return Err(invalid("a link to a directory".to_owned()));
            };
            let mut from = target.try_clone_to_owned()?;
            for parent in parents {
                from = open_below(from.as_fd(), parent, OFlags::RDONLY | OFlags::DIRECTORY)?;
            }
            remove(dir.as_fd(), last)?;
            // A link in its place becomes another name of the link: it is not followed.
            Ok(rustix::fs::linkat(
                &from,
                *to_name,
                &dir,
                *last,
                AtFlags::empty(),
            )?)
        }
        EntryType::XGlobalHeader => Ok(()),
        other => Err(invalid(format!(
            "an entry of kind {other:?} can't be copied into a container"
        ))),
    }
}

/// The parts of a path that stays where it is.
fn parts(name: &[u8]) -> io::Result<Vec<&OsStr>> {
    let mut parts = Vec::new();
    for part in Path::new(OsStr::from_bytes(name)).components() {
        match part {
            Component::Normal(part) => parts.push(part),
            Component::CurDir | Component::RootDir => {}
            _ => return Err(invalid("it leads out of its directory".to_owned())),
        }
    }
    if parts.len() > DEPTH {
        return Err(invalid(format!("deeper than {DEPTH} directories")));
    }
    Ok(parts)
}

/// A directory, made if it is missing. What is there and is none is an error, a link to one too.
fn enter(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<OwnedFd> {
    match mkdirat(dir, name, Mode::from_raw_mode(0o755)) {
        Ok(()) | Err(Errno::EXIST) => {}
        Err(errno) => return Err(errno.into()),
    }
    open_below(dir, name, OFlags::RDONLY | OFlags::DIRECTORY)
}

/// Makes room for a file. A directory is never replaced by one.
fn remove(dir: BorrowedFd<'_>, name: &OsStr) -> io::Result<()> {
    match unlinkat(dir, name, AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(Errno::ISDIR) => Err(invalid(
            "a directory is in the place of what is no directory".to_owned(),
        )),
        Err(errno) => Err(errno.into()),
    }
}

struct Attributes {
    uid: Uid,
    gid: Gid,
    mode: Mode,
    mtime: i64,
}

impl Attributes {
    fn of(entry: &Entry<'_, impl Read>, owner: Option<(u32, u32)>) -> io::Result<Self> {
        let header = entry.header();
        let number = |number: u64| {
            u32::try_from(number)
                .ok()
                .filter(|number| *number != u32::MAX)
                .ok_or_else(|| invalid(format!("no user has the number {number}")))
        };
        let (uid, gid) = match owner {
            Some(owner) => owner,
            None => (number(header.uid()?)?, number(header.gid()?)?),
        };
        Ok(Self {
            uid: Uid::from_raw(uid),
            gid: Gid::from_raw(gid),
            mode: Mode::from_raw_mode(header.mode()? & 0o7777),
            mtime: i64::try_from(header.mtime()?).unwrap_or(0),
        })
    }

    /// Through its descriptor: a name may be another's by now. First the owner, which takes setuid
    /// away.
    fn set(&self, file: &OwnedFd) -> io::Result<()> {
        fchown(file, Some(self.uid), Some(self.gid))?;
        fchmod(file, self.mode)?;
        let time = Timespec {
            tv_sec: self.mtime,
            tv_nsec: 0,
        };
        Ok(futimens(
            file,
            &Timestamps {
                last_access: time,
                last_modification: time,
            },
        )?)
    }
}

#[cfg(test)]
mod tests {
    use std::{fs, os::unix::fs::symlink};

    use tar::{Builder, Header};

    use super::{super::pack, *};

    fn archive(entries: &[(&str, EntryType, &str)]) -> Vec<u8> {
        let mut archive = Builder::new(Vec::new());
        for (name, kind, content) in entries {
            let mut header = Header::new_gnu();
            header.set_entry_type(*kind);
            header.set_mode(0o640);
            header.set_size(0);
            let own = rustix::process::getuid().as_raw();
            header.set_uid(own.into());
            header.set_gid(rustix::process::getgid().as_raw().into());
            if kind.is_file() {
                header.set_size(content.len() as u64);
            } else {
                header.set_link_name(content).unwrap();
            }
            // The name as it is: the crate would refuse some of these.
            header.as_mut_bytes()[..name.len()].copy_from_slice(name.as_bytes());
            header.set_cksum();
            let content = if kind.is_file() { content.as_bytes() } else { b"" };
            archive.append(&header, content).unwrap();
        }
        archive.into_inner().unwrap()
    }

    #[test]
    fn what_goes_in_comes_out_again() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path();
        fs::create_dir_all(root.join("data/there")).unwrap();
        let tar = archive(&[
            ("a/file", EntryType::Regular, "content"),
            ("a/link", EntryType::Symlink, "/etc/shadow"),
            ("a/same", EntryType::Link, "a/file"),
        ]);
        unpack(root, "/data/there/../there", &*tar, None).unwrap();
        let file = root.join("data/there/a/file");
        assert_eq!(fs::read_to_string(&file).unwrap(), "content");
        assert_eq!(
            fs::read_link(root.join("data/there/a/link")).unwrap(),
            Path::new("/etc/shadow")
        );
        let mut out = Vec::new();
        pack(root, "data/there/a", "b", &mut out).unwrap();
        let mut seen: Vec<String> = Archive::new(&*out)
            .entries()
            .unwrap()
            .map(|entry| entry.unwrap().path().unwrap().display().to_string())
            .collect();
        seen.sort();
        assert_eq!(seen, ["b/", "b/file", "b/link", "b/same"]);
    }

    #[test]
    fn no_entry_and_no_link_leads_out_of_the_root() {
        let dir = tempfile::tempdir().unwrap();
        let root = dir.path().join("root");
        fs::create_dir_all(root.join("data")).unwrap();
        fs::create_dir_all(dir.path().join("outside")).unwrap();
        // Absolute links of the container mean its own root.
        fs::create_dir(root.join("real")).unwrap();
        symlink("/real", root.join("alias")).unwrap();
        let tar = archive(&[("x", EntryType::Regular, "1")]);
        unpack(&root, "/alias", &*tar, None).unwrap();
        assert!(root.join("real/x").exists());
        symlink("../../outside", root.join("out")).unwrap();
        assert!(unpack(&root, "/out", &*tar, None).is_err());

        for (name, kind, content) in [
            ("../outside/x", EntryType::Regular, "1"),
            ("data/../../outside/x", EntryType::Regular, "1"),
            ("hard", EntryType::Link, "../outside"),
        ] {
            let tar = archive(&[(name, kind, content)]);
            assert!(unpack(&root, "/", &*tar, None).is_err(), "{name}");
        }
        // A link that the archive brings is not followed by what comes after it.
        let tar = archive(&[
            ("trap", EntryType::Symlink, "../outside"),
            ("trap/x", EntryType::Regular, "1"),
        ]);
        assert!(unpack(&root, "/data", &*tar, None).is_err());
        assert_eq!(fs::read_dir(dir.path().join("outside")).unwrap().count(), 0);
    }
}
