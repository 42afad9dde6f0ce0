//! Sending a layer ahead, while its container writes: what the destination has of it by now, and
//! streams that bring that up to date.
//!
//! ```text
//! look ─ part ─ part ─ …      a round: what changed since the last one
//! look ─ part                 less of it
//! finish                      nobody writes any more: what is left
//! ```
//!
//! Each stream is against the one before it, so they must be applied in order and none be left
//! out; what was sent counts as had. A container may do anything between a look and the sending:
//! whatever is caught halfway is found changed by the next look, and only the last one must be of
//! a layer that stands still.
//!
//! A change is told by an entry's [`Stamp`]. There are two ways to write without changing that,
//! and both make an entry *unsure*, which is looked at again whatever its stamp says: within the
//! tick of the clock in which it was read, and through a shared mapping that was written to
//! before, until the kernel writes it back.

use std::{
    collections::{HashMap, HashSet, VecDeque},
    io::{BufWriter, Write},
    os::unix::ffi::OsStrExt,
    path::{Path, PathBuf},
};

use rustix::fs::{FileType, Mode, OFlags, Stat};

use super::{
    super::tree::{Attributes, MAX_PATH, Place, Symlinks, Tree, TreePath},
    DiffError, Mark, PackReport,
    content::{self, Against, Chunks, LARGE, Source},
    format::{Encoder, Entry, Kind, MAX_ENTRIES, MAX_TARGET},
    known::{Known, Moment, Stamp, is_linked},
    look::{self, Found, is_gone},
    pack::{check, xattrs},
};

/// `TMPFS_MAGIC`.
const TMPFS: u64 = 0x0102_1994;

/// Files that somebody may write to without changing their times.
#[derive(Debug, Clone, Default)]
pub struct Mapped {
    /// Inside the layer.
    pub paths: HashSet<PathBuf>,
    /// Some could not be named: any file with several names may be one of them.
    pub others: bool,
}

/// See the module.
pub struct Ahead {
    upper: PathBuf,
    known: HashMap<PathBuf, Known>,
    contents: HashMap<u64, Chunks>,
    /// The name of the next content.
    next: u64,
    mark: Mark,
    looks: u32,
    round: Round,
}

/// What a look found and no part has sent.
#[derive(Default)]
struct Round {
    began: Option<Moment>,
    mapped: HashSet<u64>,
    others: bool,
    removed: Vec<PathBuf>,
    directories: Vec<PathBuf>,
    /// Known by another path: this one, that one.
    moved: Vec<(PathBuf, PathBuf)>,
    rest: VecDeque<PathBuf>,
    /// Where the destination has files with several names.
    placed: HashMap<u64, PathBuf>,
}

impl Round {
    fn is_over(&self) -> bool {
        self.removed.is_empty()
            && self.directories.is_empty()
            && self.moved.is_empty()
            && self.rest.is_empty()
    }
}

impl Ahead {
    /// Nothing was sent yet.
    pub fn new(upper: &Path) -> Self {
        Self {
            upper: upper.to_owned(),
            known: HashMap::new(),
            contents: HashMap::new(),
            next: 0,
            mark: Mark::NOTHING,
            looks: 0,
            round: Round::default(),
        }
    }

    /// Whether it can be told what changed in this layer. Not on a tmpfs, where a file that is
    /// mapped has no times of its own.
    pub fn fits(upper: &Path) -> bool {
        rustix::fs::statfs(upper).is_ok_and(|stat| stat.f_type as u64 != TMPFS)
    }

    /// A round begins. `mapped` is asked afterwards: a mapping made later writes with times that
    /// are later than this round.
    pub fn look(&mut self, mapped: impl FnOnce() -> Mapped) -> Result<(), DiffError> {
        let began = Moment::now();
        let mapped = mapped();
        self.look_at(Some(began), &mapped)
    }

    /// A stream of some of what the look found, to be applied before the next one. It ends with the
    /// entry that brings it over `budget` bytes. None: there is nothing left. After an error the
    /// whole layer must be sent anew.
    pub fn part(&mut self, out: impl Write, budget: u64) -> Result<Option<PackReport>, DiffError> {
        if self.round.is_over() {
            return Ok(None);
        }
        self.write(out, budget).map(Some)
    }

    /// The last stream: all that is left. Nobody may change the layer any more.
    pub fn finish(mut self, out: impl Write) -> Result<PackReport, DiffError> {
        self.look_at(None, &Mapped::default())?;
        self.write(out, u64::MAX)
    }

    fn look_at(&mut self, began: Option<Moment>, mapped: &Mapped) -> Result<(), DiffError> {
        let mut tree = self.tree()?;
        let mut inodes = HashSet::new();
        for path in &mapped.paths {
            let Ok(path) = TreePath::parse(path.as_os_str().as_bytes(), MAX_PATH) else {
                continue;
            };
            if let Ok(Some(stat)) = tree.place(&path).and_then(|place| place.stat()) {
                inodes.insert(stat.st_ino);
            }
        }
        self.looks += 1;
        let found = look::look(&tree, &mut self.known, self.looks, began.is_none())?;
        let Found {
            directories,
            others,
            removed,
            placed,
            moved,
        } = found;
        self.round = Round {
            began,
            mapped: inodes,
            others: mapped.others,
            removed,
            directories,
            moved,
            rest: others.into(),
            placed,
        };
        Ok(())
    }

    fn tree(&self) -> Result<Tree, DiffError> {
        Tree::open(&self.upper, Symlinks::Refused).map_err(|source| DiffError::Open {
            path: self.upper.clone(),
            source,
        })
    }

    fn write(&mut self, out: impl Write, budget: u64) -> Result<PackReport, DiffError> {
        let out = BufWriter::with_capacity(256 << 10, out);
        let mut round = std::mem::take(&mut self.round);
        let mut writing = Writing {
            out: Encoder::new(out, self.mark)?,
            tree: self.tree()?,
            is_still: round.began.is_none(),
            report: PackReport::default(),
            kept: HashMap::new(),
            ahead: self,
            round: &mut round,
        };
        writing.order(budget)?;
        let Writing { out, report, .. } = writing;
        self.mark = out.end(report.entries, report.bytes)?;
        if round.is_over() {
            let used: HashSet<u64> = self.known.values().filter_map(|k| k.content).collect();
            self.contents.retain(|content, _| used.contains(content));
        }
        self.round = round;
        Ok(report)
    }
}

/// One stream.
struct Writing<'a, W> {
    out: Encoder<W>,
    tree: Tree,
    is_still: bool,
    report: PackReport,
    /// What the destination has put aside: the number and the content, by inode.
    kept: HashMap<u64, (u32, u64)>,
    ahead: &'a mut Ahead,
    round: &'a mut Round,
}

/// An entry that is about to be sent.
struct Subject {
    path: PathBuf,
    stat: Stat,
    stamp: Stamp,
    attributes: Attributes,
    file: Option<std::os::fd::OwnedFd>,
    target: Vec<u8>,
}

impl<W: Write> Writing<'_, W> {
    fn order(&mut self, budget: u64) -> Result<(), DiffError> {
        let moved = std::mem::take(&mut self.round.moved);
        for (_, from) in &moved {
            self.keep(from)?;
        }
        for path in std::mem::take(&mut self.round.removed) {
            self.count(&path)?;
            self.out.remove(path.as_os_str().as_bytes())?;
            self.ahead.known.remove(&path);
        }
        for path in std::mem::take(&mut self.round.directories) {
            self.entry(path)?;
        }
        // In the stream that has what they were put aside.
        let mut sent = HashSet::new();
        for (path, _) in moved {
            self.entry(path.clone())?;
            sent.insert(path);
        }
        if !sent.is_empty() {
            self.round.rest.retain(|path| !sent.contains(path));
        }
        while self.report.bytes < budget {
            let Some(path) = self.round.rest.pop_front() else {
                break;
            };
            self.entry(path)?;
        }
        Ok(())
    }

    fn keep(&mut self, path: &Path) -> Result<(), DiffError> {
        let Some(known) = self.ahead.known.get(path) else {
            return Ok(());
        };
        let (ino, Some(content)) = (known.stamp.ino, known.content) else {
            return Ok(());
        };
        if self.kept.contains_key(&ino) {
            return Ok(());
        }
        self.count(path)?;
        self.out.keep(path.as_os_str().as_bytes())?;
        let number = self.kept.len() as u32 + 1;
        self.kept.insert(ino, (number, content));
        Ok(())
    }

    fn count(&mut self, path: &Path) -> Result<(), DiffError> {
        self.report.entries += 1;
        let entries = self.report.entries as usize;
        check(path, "an entry number of", entries, MAX_ENTRIES as usize)
    }

    fn entry(&mut self, path: PathBuf) -> Result<(), DiffError> {
        match self.subject(&path) {
            Ok(Some(subject)) => self.send(subject),
            // The next look finds what has become of it.
            Ok(None) => Ok(()),
            Err(DiffError::ReadEntry { source, .. }) if !self.is_still && is_gone(&source) => {
                Ok(())
            }
            Err(error) => Err(error),
        }
    }

    /// None: it is not what was found any more.
    fn subject(&mut self, path: &Path) -> Result<Option<Subject>, DiffError> {
        let failed = |source| DiffError::ReadEntry {
            path: path.to_owned(),
            source,
        };
        let gone = || match self.is_still {
            true => Err(DiffError::Changed {
                path: path.to_owned(),
            }),
            false => Ok(None),
        };
        let bytes = path.as_os_str().as_bytes();
        let tree_path = TreePath::parse(bytes, MAX_PATH)
            .map_err(|source| failed(std::io::Error::other(source)))?;
        let place = self.tree.place(&tree_path).map_err(failed)?;
        let Some(mut stat) = place.stat().map_err(failed)? else {
            return gone();
        };
        let mut file = None;
        if FileType::from_raw_mode(stat.st_mode) == FileType::RegularFile {
            let opened = open(&place).map_err(failed)?;
            stat = rustix::fs::fstat(&opened).map_err(|errno| failed(errno.into()))?;
            file = Some(opened);
        }
        let kind = FileType::from_raw_mode(stat.st_mode);
        if file.is_some() && kind != FileType::RegularFile {
            return gone();
        }
        let is_directory = kind == FileType::Directory;
        let known = &self.ahead.known;
        let has_parent = match look::parent(path) {
            None => true,
            Some(parent) => known.get(parent).is_some_and(|k| k.stamp.is_directory()),
        };
        // What the destination has in it must go first.
        let was_directory = known
            .get(path)
            .is_some_and(|known| known.stamp.is_directory());
        if !has_parent || (was_directory && !is_directory) {
            return gone();
        }
        let mut target = Vec::new();
        if kind == FileType::Symlink {
            let read = rustix::fs::readlinkat(place.dir(), place.name(), Vec::new());
            target = read.map_err(|errno| failed(errno.into()))?.into_bytes();
            check(path, "a symlink target length of", target.len(), MAX_TARGET)?;
        }
        let xattrs = xattrs(place.dir(), place.name(), path)?;
        Ok(Some(Subject {
            path: path.to_owned(),
            stat,
            stamp: Stamp::of(&stat),
            attributes: Attributes {
                mode: stat.st_mode & 0o7777,
                uid: stat.st_uid,
                gid: stat.st_gid,
                mtime: (stat.st_mtime, stat.st_mtime_nsec as u32),
                xattrs,
            },
            file,
            target,
        }))
    }

    fn send(&mut self, subject: Subject) -> Result<(), DiffError> {
        let Subject {
            path,
            stat,
            stamp,
            attributes,
            file,
            target,
        } = subject;
        self.count(&path)?;
        let ino = stat.st_ino;
        let size = stat.st_size as u64;
        let (major, minor) = (
            rustix::fs::major(stat.st_rdev),
            rustix::fs::minor(stat.st_rdev),
        );
        let first = is_linked(&stat)
            .then(|| self.round.placed.get(&ino).cloned())
            .flatten()
            .filter(|first| *first != path);
        let mut known = Known {
            stamp,
            unsure: self.is_unsure(&stat, &stamp),
            content: None,
            seen: self.ahead.looks,
        };
        let mut entry = Entry {
            path: path.as_os_str().as_bytes().to_owned(),
            attributes,
            kind: Kind::Directory,
        };
        if let Some((first, there)) =
            first.and_then(|first| Some((self.ahead.known.get(&first)?, first)))
        {
            known.content = first.content;
            entry.attributes.xattrs.clear();
            entry.kind = Kind::Link {
                target: there.into_os_string().into_encoded_bytes(),
            };
            self.out.entry(&entry)?;
            self.ahead.known.insert(path, known);
            return Ok(());
        }
        if is_linked(&stat) {
            self.round.placed.insert(ino, path.clone());
        }
        entry.kind = match FileType::from_raw_mode(stat.st_mode) {
            FileType::RegularFile => Kind::File { size },
            FileType::Directory => Kind::Directory,
            FileType::Symlink => Kind::Symlink { target },
            FileType::Fifo => Kind::Fifo,
            FileType::Socket => Kind::Socket,
            FileType::CharacterDevice => Kind::Character { major, minor },
            FileType::BlockDevice => Kind::Block { major, minor },
            FileType::Unknown => {
                let source = rustix::io::Errno::NOTSUP.into();
                return Err(DiffError::ReadEntry { path, source });
            }
        };
        let Some(file) = file else {
            self.out.entry(&entry)?;
            self.ahead.known.insert(path, known);
            return Ok(());
        };
        let base = if size >= LARGE {
            self.base(&path, ino)
        } else {
            None
        };
        if let Some((from, content)) = base {
            entry.kind = Kind::Patch { size, from };
            known.content = Some(content);
        } else if size >= LARGE {
            known.content = Some(self.ahead.next);
            self.ahead.next += 1;
        }
        self.out.entry(&entry)?;
        let source = Source {
            file: &file,
            path: &path,
            size,
            is_still: self.is_still,
        };
        let against = match (base, known.content) {
            (Some((_, content)), _) => Against::Chunks(&self.ahead.contents[&content]),
            (None, Some(_)) if !self.is_still => Against::New,
            (None, _) => Against::Nothing,
        };
        let (bytes, chunks) = content::send(&mut self.out, &source, against)?;
        self.report.bytes += bytes;
        if let Some(content) = known.content {
            self.ahead.contents.insert(content, chunks);
        }
        self.ahead.known.insert(path, known);
        Ok(())
    }

    /// What of the destination's a large file can be made from: 0 is what is there, else what was
    /// put aside; and its content.
    fn base(&self, path: &Path, ino: u64) -> Option<(u32, u64)> {
        let there = self.ahead.known.get(path);
        let there = there.filter(|known| known.stamp.ino == ino);
        if let Some(content) = there.and_then(|known| known.content) {
            return Some((0, content));
        }
        self.kept.get(&ino).copied()
    }

    fn is_unsure(&self, stat: &Stat, stamp: &Stamp) -> bool {
        let is_near = |began: Moment| began.is_near(stamp);
        self.round.began.is_some_and(is_near)
            || self.round.mapped.contains(&stat.st_ino)
            || (self.round.others && is_linked(stat))
    }
}

fn open(place: &Place) -> std::io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    Ok(rustix::fs::openat(
        place.dir(),
        place.name(),
        flags,
        Mode::empty(),
    )?)
}
