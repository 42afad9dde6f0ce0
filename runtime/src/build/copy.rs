//! `COPY` and `ADD`: sources are found below one root, and go to a place below another, which is
//! a mounted overlay. Symlinks among the parents are taken inside their root on both sides.

use std::{
    collections::HashMap,
    ffi::{CStr, OsStr},
    fs::File,
    io::{self, Read},
    os::{
        fd::{AsRawFd, OwnedFd},
        unix::ffi::OsStrExt,
    },
    path::{Path, PathBuf},
    time::SystemTime,
};

use pathrs::Root;
use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat};
use sha2::{Digest as _, Sha256};

use super::{
    archive::{self, ArchiveFault, Unpacking},
    glob,
};
use crate::rootfs::{
    names,
    tree::{Attributes, Place, Symlinks, Tree, TreePath, from_pathrs},
    xattr::{self, Xattr},
};

const MAX_DEPTH: usize = 256;
/// What one pattern may find.
const MAX_FOUND: usize = 100_000;

#[derive(Debug, thiserror::Error)]
pub enum CopyFault {
    #[error("`{0}` is not in {1}")]
    Missing(String, String),
    #[error("nothing in {1} fits `{0}`")]
    NoMatch(String, String),
    #[error("several sources go to `{0}`, which is no directory: end it with `/`")]
    Several(String),
    #[error("`{0}` is a directory, a file can't take its place")]
    OverDirectory(String),
    #[error("`{0}` is no directory, a directory can't take its place")]
    OverFile(String),
    #[error("`{0}` is no path in the image")]
    Dest(String),
    #[error("`{0}` is deeper than {MAX_DEPTH} directories")]
    Deep(String),
    #[error("archive `{name}`")]
    Archive {
        name: String,
        #[source]
        source: ArchiveFault,
    },
    #[error("could not {step} `{path}`")]
    Io {
        step: &'static str,
        path: String,
        #[source]
        source: io::Error,
    },
    #[error("interrupted")]
    Interrupted,
}

/// A source, open as a path.
#[derive(Debug)]
pub struct Found {
    handle: OwnedFd,
    /// What it is called where it goes; empty: the root.
    name: Vec<u8>,
    stat: Stat,
}

/// Where sources go.
pub struct Target<'a> {
    /// The mounted root.
    pub root: &'a Path,
    /// Absolute; a directory where it ends with `/`.
    pub dest: &'a str,
    /// Who owns what is made. None: as at its source, and root for directories besides.
    pub owner: Option<(u32, u32)>,
    pub mode: Option<u32>,
    /// Archives are unpacked.
    pub unpack: bool,
    pub go_on: &'a dyn Fn() -> bool,
}

/// Finds what `pattern` names below `root`: a relative path whose parts may be patterns. `shown`
/// is what the root is called in messages.
pub fn find(root: &Path, pattern: &str, shown: &str) -> Result<Vec<Found>, CopyFault> {
    let io = |step, source| CopyFault::Io {
        step,
        path: pattern.to_owned(),
        source,
    };
    let opened = Root::open(root).map_err(|error| io("open", from_pathrs(error)))?;
    let mut paths = vec![PathBuf::new()];
    for part in pattern.split('/').filter(|part| !part.is_empty()) {
        if !glob::is_pattern(part.as_bytes()) {
            paths.iter_mut().for_each(|path| path.push(part));
            continue;
        }
        let tree = Tree::open(root, Symlinks::InRoot).map_err(|error| io("open", error))?;
        let mut next = Vec::new();
        for path in paths {
            let place = TreePath::parse(path.as_os_str().as_bytes(), MAX_DEPTH)
                .map_err(|_| CopyFault::Dest(pattern.to_owned()))?;
            // A file, or nothing: no part of it can fit.
            let Ok(dir) = tree.listing(&place) else {
                continue;
            };
            let mut all =
                names(std::os::fd::AsFd::as_fd(&dir)).map_err(|error| io("list", error))?;
            all.sort();
            all.retain(|name| glob::fits(part.as_bytes(), name.to_bytes()));
            next.extend(
                all.iter()
                    .map(|name| path.join(OsStr::from_bytes(name.to_bytes()))),
            );
            if next.len() > MAX_FOUND {
                return Err(CopyFault::NoMatch(pattern.to_owned(), shown.to_owned()));
            }
        }
        if next.is_empty() {
            return Err(CopyFault::NoMatch(pattern.to_owned(), shown.to_owned()));
        }
        paths = next;
    }
    paths
        .into_iter()
        .map(|path| {
            let at = if path.as_os_str().is_empty() {
                Path::new(".")
            } else {
                &path
            };
            let missing = |_| CopyFault::Missing(path.display().to_string(), shown.to_owned());
            let handle: OwnedFd = opened.resolve(at).map_err(missing)?.into();
            let stat = rustix::fs::fstat(&handle).map_err(|error| io("look at", error.into()))?;
            let name = path.file_name().unwrap_or_default().as_bytes().to_owned();
            Ok(Found { handle, name, stat })
        })
        .collect()
}

/// A digest of all that counts in what was found: names, types, modes, contents, links, attributes
/// and, where they are kept, owners. No times.
pub fn digest(
    found: &[Found],
    owners: bool,
    go_on: &dyn Fn() -> bool,
) -> Result<[u8; 32], CopyFault> {
    let mut hashing = Hashing {
        hash: Sha256::new(),
        owners,
        go_on,
        buffer: vec![0; 256 << 10],
    };
    for source in found {
        let path = String::from_utf8_lossy(&source.name).into_owned();
        match kind(&source.stat) {
            FileType::Directory => {
                hashing.entry(&source.stat, b"", b"", &[]);
                hashing.directory(&listing(&source.handle, &path)?, &path, 0)?;
            }
            FileType::RegularFile => {
                hashing.entry(
                    &source.stat,
                    &source.name,
                    b"",
                    &attributes_of(&source.handle, &path)?,
                );
                hashing.content(reopened(&source.handle, &path)?, &path)?;
            }
            _ => hashing.entry(&source.stat, &source.name, b"", &[]),
        }
    }
    Ok(hashing.hash.finalize().into())
}

struct Hashing<'a> {
    hash: Sha256,
    owners: bool,
    go_on: &'a dyn Fn() -> bool,
    buffer: Vec<u8>,
}

impl Hashing<'_> {
    fn part(&mut self, bytes: &[u8]) {
        self.hash.update((bytes.len() as u64).to_be_bytes());
        self.hash.update(bytes);
    }

    fn entry(&mut self, stat: &Stat, name: &[u8], link: &[u8], xattrs: &[Xattr]) {
        self.part(name);
        self.part(&stat.st_mode.to_be_bytes());
        self.part(link);
        if self.owners {
            self.part(&stat.st_uid.to_be_bytes());
            self.part(&stat.st_gid.to_be_bytes());
        }
        if matches!(
            kind(stat),
            FileType::CharacterDevice | FileType::BlockDevice
        ) {
            #[allow(clippy::unnecessary_cast)]
            self.part(&(stat.st_rdev as u64).to_be_bytes());
        }
        for (key, value) in xattrs {
            self.part(key);
            self.part(value);
        }
    }

    fn content(&mut self, mut file: File, path: &str) -> Result<(), CopyFault> {
        let mut content = Sha256::new();
        loop {
            if !(self.go_on)() {
                return Err(CopyFault::Interrupted);
            }
            let n = file.read(&mut self.buffer).map_err(failed("read", path))?;
            if n == 0 {
                break;
            }
            content.update(&self.buffer[..n]);
        }
        self.hash.update(content.finalize());
        Ok(())
    }

    fn directory(&mut self, dir: &OwnedFd, path: &str, depth: usize) -> Result<(), CopyFault> {
        for (name, stat) in entries(dir, path, depth)? {
            let below = format!("{path}/{}", name.to_string_lossy());
            let base = OsStr::from_bytes(name.to_bytes());
            let xattrs = kept(dir, base, &below)?;
            match kind(&stat) {
                FileType::Directory => {
                    self.entry(&stat, name.to_bytes(), b"", &xattrs);
                    self.directory(
                        &open(dir, &name, OFlags::DIRECTORY, &below)?,
                        &below,
                        depth + 1,
                    )?;
                    // Its end, so that what follows is not taken to be in it.
                    self.part(b"/");
                }
                FileType::RegularFile => {
                    self.entry(&stat, name.to_bytes(), b"", &xattrs);
                    let file = open(dir, &name, OFlags::NONBLOCK, &below)?;
                    self.content(file.into(), &below)?;
                }
                FileType::Symlink => {
                    let link = rustix::fs::readlinkat(dir, &name, Vec::new())
                        .map_err(|error| failed("read", &below)(error.into()))?;
                    self.entry(&stat, name.to_bytes(), link.to_bytes(), &xattrs);
                }
                FileType::Socket => {}
                _ => self.entry(&stat, name.to_bytes(), b"", &xattrs),
            }
        }
        Ok(())
    }
}

/// Copies what was found to its target.
pub fn copy(found: &[Found], target: &Target<'_>) -> Result<(), CopyFault> {
    let dest = TreePath::parse(target.dest.trim_start_matches('/').as_bytes(), MAX_DEPTH)
        .map_err(|_| CopyFault::Dest(target.dest.to_owned()))?;
    let tree = Tree::open(target.root, Symlinks::InRoot).map_err(failed("open", target.dest))?;
    let mut copying = Copying {
        tree,
        target,
        links: HashMap::new(),
    };
    let is_there = copying.tree.directory(&dest).is_ok();
    let into = target.dest.ends_with('/') || is_there;
    if found.len() > 1 && !into {
        return Err(CopyFault::Several(target.dest.to_owned()));
    }
    for source in found {
        let name = String::from_utf8_lossy(&source.name).into_owned();
        if kind(&source.stat) == FileType::Directory {
            copying.tree_of(source, &dest, &name)?;
            continue;
        }
        let file = PathBuf::from(format!("/proc/self/fd/{}", source.handle.as_raw_fd()));
        let as_archive = |source| CopyFault::Archive {
            name: name.clone(),
            source,
        };
        if target.unpack
            && kind(&source.stat) == FileType::RegularFile
            && archive::is_archive(&file).map_err(as_archive)?
        {
            copying.ready(&dest)?;
            let how = Unpacking {
                owner: target.owner,
                follow: true,
                dest: target.dest,
                go_on: target.go_on,
            };
            let input = reopened(&source.handle, &name)?;
            archive::unpack(input, target.root, &how).map_err(as_archive)?;
            continue;
        }
        let path = if into {
            copying.ready(&dest)?;
            joined(&dest, &source.name)?
        } else {
            copying.ready(&dest.parent())?;
            dest.clone()
        };
        copying.file(source, &path, &name)?;
    }
    copying
        .tree
        .finish()
        .map_err(|(path, source)| failed("set the time of", &path.display().to_string())(source))
}

struct Copying<'a> {
    tree: Tree,
    target: &'a Target<'a>,
    /// Where a file with several names went.
    links: HashMap<(u64, u64), TreePath>,
}

impl Copying<'_> {
    /// Makes a directory and its parents, where they are not there.
    fn ready(&mut self, path: &TreePath) -> Result<(), CopyFault> {
        let owner = self.target.owner.unwrap_or((0, 0));
        let shown = path.as_path().display().to_string();
        make_directories(&mut self.tree, path, owner).map_err(|error| match error.kind() {
            io::ErrorKind::NotADirectory => CopyFault::OverFile(format!("/{shown}")),
            _ => failed("make directory", &shown)(error),
        })
    }

    /// What is in a directory goes into the destination.
    fn tree_of(&mut self, source: &Found, dest: &TreePath, name: &str) -> Result<(), CopyFault> {
        let is_there = self.tree.directory(dest).is_ok();
        self.ready(dest)?;
        if !is_there {
            let xattrs = attributes_of(&source.handle, name)?;
            self.dress_directory(dest, &source.stat, xattrs, name)?;
        }
        self.directory(&listing(&source.handle, name)?, dest, name, 0)
    }

    fn directory(
        &mut self,
        from: &OwnedFd,
        to: &TreePath,
        shown: &str,
        depth: usize,
    ) -> Result<(), CopyFault> {
        for (name, stat) in entries(from, shown, depth)? {
            if !(self.target.go_on)() {
                return Err(CopyFault::Interrupted);
            }
            let below = format!("{shown}/{}", name.to_string_lossy());
            let path = joined(to, name.to_bytes())?;
            let base = OsStr::from_bytes(name.to_bytes());
            let xattrs = kept(from, base, &below)?;
            if kind(&stat) == FileType::Directory {
                let there = self.place(&path, &below)?;
                match there.kind().map_err(failed("look at", &below))? {
                    None => {
                        there.make_directory().map_err(failed("make", &below))?;
                        self.tree.forget_parent();
                    }
                    Some(FileType::Directory) => {}
                    // A symlink may lead to one.
                    Some(_) if self.tree.directory(&path).is_ok() => {}
                    Some(_) => return Err(CopyFault::OverFile(shown_path(&path))),
                }
                self.dress_directory(&path, &stat, xattrs, &below)?;
                let dir = open(from, &name, OFlags::DIRECTORY, &below)?;
                self.directory(&dir, &path, &below, depth + 1)?;
                continue;
            }
            let content = match kind(&stat) {
                FileType::RegularFile => {
                    Some(File::from(open(from, &name, OFlags::NONBLOCK, &below)?))
                }
                _ => None,
            };
            let link = match kind(&stat) {
                FileType::Symlink => rustix::fs::readlinkat(from, &name, Vec::new())
                    .map_err(|error| failed("read", &below)(error.into()))?
                    .into_bytes(),
                _ => Vec::new(),
            };
            self.make(&path, &stat, content, &link, xattrs, &below)?;
        }
        Ok(())
    }

    fn file(&mut self, source: &Found, path: &TreePath, name: &str) -> Result<(), CopyFault> {
        let regular = kind(&source.stat) == FileType::RegularFile;
        let content = regular
            .then(|| reopened(&source.handle, name))
            .transpose()?;
        let xattrs = attributes_of(&source.handle, name)?;
        self.make(path, &source.stat, content, b"", xattrs, name)
    }

    fn place(&mut self, path: &TreePath, shown: &str) -> Result<Place, CopyFault> {
        self.tree
            .place(path)
            .map_err(failed("find the directory of", shown))
    }

    /// Anything but a directory.
    fn make(
        &mut self,
        path: &TreePath,
        stat: &Stat,
        content: Option<File>,
        link: &[u8],
        xattrs: Vec<Xattr>,
        shown: &str,
    ) -> Result<(), CopyFault> {
        let kind = kind(stat);
        if kind == FileType::Socket {
            return Ok(());
        }
        let place = self.place(path, shown)?;
        match place.kind().map_err(failed("look at", shown))? {
            Some(FileType::Directory) => return Err(CopyFault::OverDirectory(shown_path(path))),
            Some(_) => place.clear().map_err(failed("replace", shown))?,
            None => {}
        }
        #[allow(clippy::unnecessary_cast)]
        let inode = (stat.st_dev as u64, stat.st_ino as u64);
        if stat.st_nlink > 1
            && let Some(first) = self.links.get(&inode).cloned()
        {
            let first = self.place(&first, shown)?;
            return place.make_link(&first).map_err(failed("link", shown));
        }
        match (kind, content) {
            (FileType::RegularFile, Some(mut content)) => {
                let mut file = place.make_file().map_err(failed("make", shown))?;
                io::copy(&mut content, &mut file).map_err(failed("copy", shown))?;
            }
            (FileType::Symlink, _) => place.make_symlink(link).map_err(failed("make", shown))?,
            (kind, _) => {
                #[allow(clippy::unnecessary_cast)]
                let device = stat.st_rdev as u64;
                place
                    .make_node(kind, device)
                    .map_err(failed("make", shown))?;
            }
        }
        if stat.st_nlink > 1 {
            self.links.insert(inode, path.clone());
        }
        place
            .dress(kind, &self.attributes(stat, xattrs))
            .map_err(failed("set the attributes of", shown))
    }

    fn dress_directory(
        &mut self,
        path: &TreePath,
        stat: &Stat,
        xattrs: Vec<Xattr>,
        shown: &str,
    ) -> Result<(), CopyFault> {
        let attributes = self.attributes(stat, xattrs);
        let place = self.place(path, shown)?;
        // Where a symlink leads to one, that one stays what it is.
        if place.kind().map_err(failed("look at", shown))? != Some(FileType::Directory) {
            return Ok(());
        }
        self.tree
            .dress_directory(path, &place, attributes)
            .map_err(failed("set the attributes of", shown))
    }

    fn attributes(&self, stat: &Stat, xattrs: Vec<Xattr>) -> Attributes {
        let (uid, gid) = self.target.owner.unwrap_or((stat.st_uid, stat.st_gid));
        #[allow(clippy::unnecessary_cast)]
        let mtime = (stat.st_mtime as i64, stat.st_mtime_nsec as u32);
        Attributes {
            mode: self.target.mode.unwrap_or(stat.st_mode & 0o7777),
            uid,
            gid,
            mtime,
            xattrs,
        }
    }
}

/// Makes a directory and its parents below a tree's root, where they are not there: mode 755, of
/// this owner, of now.
pub(super) fn make_directories(
    tree: &mut Tree,
    path: &TreePath,
    owner: (u32, u32),
) -> io::Result<()> {
    let mut missing = Vec::new();
    let mut at = path.clone();
    while !at.is_root() {
        match tree.directory(&at) {
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound => missing.push(at.clone()),
            Err(error) => return Err(error),
        }
        at = at.parent();
    }
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let now = now.map_or((0, 0), |now| (now.as_secs() as i64, now.subsec_nanos()));
    for path in missing.into_iter().rev() {
        let place = tree.place(&path)?;
        place.make_directory()?;
        tree.forget_parent();
        let attributes = Attributes {
            mode: 0o755,
            uid: owner.0,
            gid: owner.1,
            mtime: now,
            xattrs: Vec::new(),
        };
        tree.dress_directory(&path, &place, attributes)?;
    }
    Ok(())
}

/// Makes a directory of the image, as `WORKDIR` does. True: there was none.
pub fn directory(root: &Path, path: &str) -> Result<bool, CopyFault> {
    let parsed = TreePath::parse(path.trim_start_matches('/').as_bytes(), MAX_DEPTH)
        .map_err(|_| CopyFault::Dest(path.to_owned()))?;
    let mut tree = Tree::open(root, Symlinks::InRoot).map_err(failed("open", path))?;
    match tree.directory(&parsed) {
        Ok(_) => return Ok(false),
        Err(error) if error.kind() == io::ErrorKind::NotADirectory => {
            return Err(CopyFault::OverFile(path.to_owned()));
        }
        Err(_) => {}
    }
    make_directories(&mut tree, &parsed, (0, 0)).map_err(failed("make directory", path))?;
    tree.finish()
        .map_err(|(_, source)| failed("set the time of", path)(source))?;
    Ok(true)
}

fn joined(dir: &TreePath, name: &[u8]) -> Result<TreePath, CopyFault> {
    let path = dir.as_path().join(OsStr::from_bytes(name));
    TreePath::parse(path.as_os_str().as_bytes(), MAX_DEPTH)
        .map_err(|_| CopyFault::Dest(path.display().to_string()))
}

fn entries(
    dir: &OwnedFd,
    path: &str,
    depth: usize,
) -> Result<Vec<(std::ffi::CString, Stat)>, CopyFault> {
    if depth >= MAX_DEPTH {
        return Err(CopyFault::Deep(path.to_owned()));
    }
    let mut all = names(std::os::fd::AsFd::as_fd(dir)).map_err(failed("list", path))?;
    all.sort();
    all.into_iter()
        .map(|name| {
            let stat = rustix::fs::statat(dir, &name, AtFlags::SYMLINK_NOFOLLOW)
                .map_err(|error| failed("look at", path)(error.into()))?;
            Ok((name, stat))
        })
        .collect()
}

fn open(dir: &OwnedFd, name: &CStr, flags: OFlags, path: &str) -> Result<OwnedFd, CopyFault> {
    let flags = flags | OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    rustix::fs::openat(dir, name, flags, Mode::empty())
        .map_err(|error| failed("open", path)(error.into()))
}

/// A directory that is open as a path, to be listed.
fn listing(handle: &OwnedFd, path: &str) -> Result<OwnedFd, CopyFault> {
    open(handle, c".", OFlags::DIRECTORY, path)
}

/// A file that is open as a path, to be read.
fn reopened(handle: &OwnedFd, path: &str) -> Result<File, CopyFault> {
    File::open(format!("/proc/self/fd/{}", handle.as_raw_fd())).map_err(failed("open", path))
}

/// The attributes of what is open as a path.
fn attributes_of(handle: &OwnedFd, path: &str) -> Result<Vec<Xattr>, CopyFault> {
    let at = PathBuf::from(format!("/proc/self/fd/{}", handle.as_raw_fd()));
    let keys = |buffer: &mut [u8]| rustix::fs::listxattr(&at, buffer);
    let mut buffer = vec![0; 64 << 10];
    let Ok(length) = keys(&mut buffer) else {
        return Ok(Vec::new());
    };
    let mut found = Vec::new();
    for key in buffer[..length]
        .split(|b| *b == 0)
        .filter(|key| is_kept(key))
    {
        let mut value = vec![0; 64 << 10];
        let length = rustix::fs::getxattr(&at, key, &mut value)
            .map_err(|error| failed("read the attributes of", path)(error.into()))?;
        value.truncate(length);
        found.push((key.to_owned(), value));
    }
    found.sort();
    Ok(found)
}

fn kept(dir: &OwnedFd, name: &OsStr, path: &str) -> Result<Vec<Xattr>, CopyFault> {
    let dir = std::os::fd::AsFd::as_fd(dir);
    let mut xattrs = xattr::list(dir, name).map_err(failed("read the attributes of", path))?;
    xattrs.retain(|(key, _)| is_kept(key));
    Ok(xattrs)
}

fn is_kept(key: &[u8]) -> bool {
    key.starts_with(b"user.") || key == xattr::CAPABILITY
}

fn kind(stat: &Stat) -> FileType {
    FileType::from_raw_mode(stat.st_mode)
}

fn shown_path(path: &TreePath) -> String {
    format!("/{}", path.as_path().display())
}

fn failed<'a>(step: &'static str, path: &'a str) -> impl FnOnce(io::Error) -> CopyFault + 'a {
    move |source| CopyFault::Io {
        step,
        path: path.to_owned(),
        source,
    }
}

impl Found {
    /// The whole of a small text file.
    pub fn read_text(&self, limit: u64) -> io::Result<String> {
        if kind(&self.stat) != FileType::RegularFile {
            return Err(io::Error::other("it is no file"));
        }
        let file = File::open(format!("/proc/self/fd/{}", self.handle.as_raw_fd()))?;
        let mut text = String::new();
        file.take(limit).read_to_string(&mut text)?;
        Ok(text)
    }
}
