//! Filling an empty directory from a stream, or bringing one from a state to the next.

use std::{
    fs::{DirBuilder, File},
    io::{self, BufReader, Read},
    os::unix::{
        ffi::OsStrExt,
        fs::{DirBuilderExt, FileExt},
    },
    path::{Path, PathBuf},
};

use rustix::{
    fs::{FallocateFlags, FileType, makedev},
    io::Errno,
};

use super::{
    super::{
        space,
        tree::{MAX_PATH, Place, Symlinks, Tree, TreePath, shown},
        xattr,
    },
    DiffError, Mark,
    format::{Decoder, Entry, Item, Kind, MAX_ENTRIES, Run},
};

/// What is accepted beyond a file tree without special files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rules {
    /// Devices, which a container with CAP_MKNOD may have made. Whiteouts always pass.
    pub allow_devices: bool,
}

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct UnpackReport {
    /// The root, and all that is below it.
    pub entries: u64,
    /// Content of files, holes left out.
    pub bytes: u64,
    /// What a further stream would be against.
    pub mark: Mark,
}

/// [`unpack_with`] for a peer that is known: devices are allowed.
pub fn unpack(input: impl Read, upper: &Path) -> Result<UnpackReport, DiffError> {
    unpack_with(
        input,
        upper,
        Rules {
            allow_devices: true,
        },
    )
}

/// Fills `upper`, which is empty or not there, from a stream that ends where the diff ends.
/// Nothing is made outside of it, whatever the stream says. After an error `upper` is incomplete
/// and is the caller's to remove.
pub fn unpack_with(
    input: impl Read,
    upper: &Path,
    rules: Rules,
) -> Result<UnpackReport, DiffError> {
    let open = |source| DiffError::Open {
        path: upper.to_owned(),
        source,
    };
    match DirBuilder::new().mode(0o700).create(upper) {
        Err(source) if source.kind() != io::ErrorKind::AlreadyExists => return Err(open(source)),
        _ => {}
    }
    if std::fs::read_dir(upper).map_err(open)?.next().is_some() {
        return Err(DiffError::NotEmpty {
            path: upper.to_owned(),
        });
    }
    let unpacking = Unpacking::new(input, upper, rules, None)?;
    match unpacking.input.base {
        Mark::NOTHING => unpacking.run(),
        _ => Err(DiffError::Base),
    }
}

/// Brings `upper` from the state `base` to the next one. `aside`: a directory that is not there,
/// on the same file system and outside of `upper`; it is gone afterwards. After an error `upper`
/// is of no use and is the caller's to remove.
pub fn apply(
    input: impl Read,
    upper: &Path,
    aside: &Path,
    base: Mark,
) -> Result<UnpackReport, DiffError> {
    let rules = Rules {
        allow_devices: true,
    };
    let kept = Kept {
        dir: aside.to_owned(),
        tree: None,
        count: 0,
    };
    let unpacking = Unpacking::new(input, upper, rules, Some(kept))?;
    if unpacking.input.base != base || base == Mark::NOTHING {
        return Err(DiffError::Base);
    }
    unpacking.run()
}

/// What a stream is against, from its beginning.
pub fn base(input: impl Read) -> Result<Mark, DiffError> {
    Ok(Decoder::new(input)?.base)
}

/// Files that were put aside.
struct Kept {
    dir: PathBuf,
    /// None: nothing was yet.
    tree: Option<Tree>,
    count: u32,
}

impl Kept {
    fn place(&mut self, number: u32) -> io::Result<Place> {
        if self.tree.is_none() {
            DirBuilder::new().mode(0o700).create(&self.dir)?;
        }
        let tree = match &mut self.tree {
            Some(tree) => tree,
            none => none.insert(Tree::open(&self.dir, Symlinks::Refused)?),
        };
        let name = TreePath::parse(number.to_string().as_bytes(), 1).map_err(io::Error::other)?;
        tree.place(&name)
    }
}

struct Unpacking<R> {
    input: Decoder<R>,
    tree: Tree,
    upper: PathBuf,
    rules: Rules,
    /// None: into an empty directory.
    kept: Option<Kept>,
    buffer: Vec<u8>,
    report: UnpackReport,
}

impl<R: Read> Unpacking<BufReader<R>> {
    fn new(input: R, upper: &Path, rules: Rules, kept: Option<Kept>) -> Result<Self, DiffError> {
        let open = |source| DiffError::Open {
            path: upper.to_owned(),
            source,
        };
        Ok(Self {
            input: Decoder::new(BufReader::with_capacity(256 << 10, input))?,
            tree: Tree::open(upper, Symlinks::Refused).map_err(open)?,
            upper: upper.to_owned(),
            rules,
            kept,
            buffer: vec![0; 256 << 10],
            report: UnpackReport::default(),
        })
    }
}

impl<R: Read> Unpacking<R> {
    fn run(mut self) -> Result<UnpackReport, DiffError> {
        while let Some(item) = self.input.item()? {
            self.report.entries += 1;
            if self.report.entries > MAX_ENTRIES {
                return Err(DiffError::Limit {
                    what: "number of entries",
                    found: self.report.entries,
                    limit: MAX_ENTRIES,
                });
            }
            match (item, self.kept.is_some()) {
                (Item::Entry(entry), _) => self.entry(entry)?,
                (Item::Remove(path), true) => self.remove(&path)?,
                (Item::Keep(path), true) => self.keep(&path)?,
                (Item::Remove(_) | Item::Keep(_), false) => {
                    return Err(self.input.malformed("nothing is there yet"));
                }
            }
        }
        if self.report.entries == 0 && self.kept.is_none() {
            return Err(self.input.malformed("there is no root"));
        }
        let mark = self.input.end(self.report.entries, self.report.bytes)?;
        self.report.mark = mark;
        self.tree
            .finish()
            .map_err(|(path, source)| DiffError::Entry {
                step: "set the attributes of",
                path,
                source,
            })?;
        if let Some(Kept {
            dir, tree: Some(_), ..
        }) = self.kept
        {
            std::fs::remove_dir_all(&dir)
                .map_err(|source| DiffError::Open { path: dir, source })?;
        }
        Ok(self.report)
    }

    fn place(&mut self, path: &TreePath, bytes: &[u8]) -> Result<Place, DiffError> {
        self.tree
            .place(path)
            .map_err(|source| match source.raw_os_error() {
                Some(errno) if leads_astray(errno) => DiffError::Through { path: shown(bytes) },
                _ => failed("find the directory of", bytes, source),
            })
    }

    fn remove(&mut self, bytes: &[u8]) -> Result<(), DiffError> {
        let path = self.path(bytes)?;
        if path.is_root() {
            return Err(self.input.malformed("the root can't be removed"));
        }
        let place = self.place(&path, bytes)?;
        self.tree
            .keep_time(&path)
            .and_then(|()| place.clear())
            .map_err(|source| failed("remove", bytes, source))?;
        self.tree.forget_parent();
        Ok(())
    }

    fn keep(&mut self, bytes: &[u8]) -> Result<(), DiffError> {
        let path = self.path(bytes)?;
        let place = self.place(&path, bytes)?;
        if !matches!(place.kind(), Ok(Some(FileType::RegularFile))) {
            return Err(DiffError::NoFile { path: shown(bytes) });
        }
        if let Some(kept) = &mut self.kept {
            kept.count += 1;
            let number = kept.count;
            kept.place(number)
                .and_then(|aside| aside.make_link(&place))
                .map_err(|source| failed("put aside", bytes, source))?;
        }
        Ok(())
    }

    /// Takes away what an entry takes the place of. True: there is a directory already.
    fn make_way(
        &mut self,
        path: &TreePath,
        place: &Place,
        bytes: &[u8],
        kind: &Kind,
    ) -> Result<bool, DiffError> {
        let there = place
            .kind()
            .map_err(|source| failed("look at", bytes, source))?;
        match (there, kind) {
            (Some(FileType::Directory), Kind::Directory) => return Ok(true),
            (Some(FileType::RegularFile), Kind::Patch { from: 0, .. }) => return Ok(false),
            _ => {}
        }
        self.tree
            .keep_time(path)
            .and_then(|()| {
                if there.is_some() {
                    place.clear()
                } else {
                    Ok(())
                }
            })
            .map_err(|source| failed("remove", bytes, source))?;
        if there == Some(FileType::Directory) {
            self.tree.forget_parent();
        }
        Ok(false)
    }

    fn entry(&mut self, entry: Entry) -> Result<(), DiffError> {
        let Entry {
            path: bytes,
            attributes,
            kind,
        } = entry;
        let path = self.path(&bytes)?;
        let is_first = self.report.entries == 1;
        if self.kept.is_none() {
            if path.is_root() != is_first {
                return Err(self
                    .input
                    .malformed("the first entry, and only it, is the root"));
            }
            if matches!(kind, Kind::Patch { .. }) {
                return Err(self.input.malformed("there is nothing to be changed yet"));
            }
        }
        if path.is_root() && kind != Kind::Directory {
            return Err(self.input.malformed("the root is no directory"));
        }
        if let Some((name, _)) = attributes.xattrs.iter().find(|(name, _)| !is_carried(name)) {
            return Err(DiffError::Xattr {
                path: shown(&bytes),
                name: name.escape_ascii().to_string(),
            });
        }
        let place = self.place(&path, &bytes)?;
        let mut is_there = path.is_root();
        if self.kept.is_some() && !is_there {
            if let Kind::Link { target } = &kind
                && self.is_same(&place, target)?
            {
                return Ok(());
            }
            is_there = self.make_way(&path, &place, &bytes, &kind)?;
        }

        let node = |kind, device| {
            let made = place.make_node(kind, device);
            made.map(|()| kind)
                .map_err(|source| failed("make", &bytes, source))
        };
        let file_type = match &kind {
            Kind::File { size } => {
                self.file(&place, &bytes, *size)?;
                FileType::RegularFile
            }
            Kind::Patch { size, from } => {
                self.patch(&place, &bytes, *size, *from)?;
                FileType::RegularFile
            }
            Kind::Directory if is_there => FileType::Directory,
            Kind::Directory => {
                place
                    .make_directory()
                    .map_err(|source| failed("make", &bytes, source))?;
                FileType::Directory
            }
            Kind::Symlink { target } => {
                place
                    .make_symlink(target)
                    .map_err(|source| failed("make", &bytes, source))?;
                FileType::Symlink
            }
            // The first name has got the attributes.
            Kind::Link { target } => return self.link(&place, &bytes, target),
            Kind::Fifo => node(FileType::Fifo, 0)?,
            Kind::Socket => node(FileType::Socket, 0)?,
            Kind::Character { major: 0, minor: 0 } => node(FileType::CharacterDevice, 0)?,
            Kind::Character { .. } | Kind::Block { .. } if !self.rules.allow_devices => {
                return Err(DiffError::Device {
                    path: shown(&bytes),
                });
            }
            Kind::Character { major, minor } => {
                node(FileType::CharacterDevice, makedev(*major, *minor))?
            }
            Kind::Block { major, minor } => node(FileType::BlockDevice, makedev(*major, *minor))?,
        };
        if self.kept.is_some() {
            // What it had before, or got from its directory's default access list.
            place
                .undress(&attributes.xattrs, is_carried)
                .map_err(|source| failed("clear the attributes of", &bytes, source))?;
        }
        if file_type == FileType::Directory {
            self.tree.dress_directory(&path, &place, attributes)
        } else {
            place.dress(file_type, &attributes)
        }
        .map_err(|source| failed("set the attributes of", &bytes, source))
    }

    fn path(&self, bytes: &[u8]) -> Result<TreePath, DiffError> {
        let path = TreePath::parse(bytes, MAX_PATH).map_err(|source| DiffError::Path {
            path: shown(bytes),
            source,
        })?;
        // One spelling per path: `a//b` and `./a/b` were not written by `pack`.
        if path.as_path().as_os_str().as_bytes() != bytes {
            return Err(self.input.malformed("path is not in its shortest form"));
        }
        Ok(path)
    }

    fn file(&mut self, place: &Place, bytes: &[u8], size: u64) -> Result<(), DiffError> {
        let file = place
            .make_file()
            .map_err(|source| failed("make", bytes, source))?;
        self.runs(&file, bytes, size, false)
    }

    fn patch(
        &mut self,
        place: &Place,
        bytes: &[u8],
        size: u64,
        from: u32,
    ) -> Result<(), DiffError> {
        let no_file = || DiffError::NoFile { path: shown(bytes) };
        if from > 0 {
            let kept = self.kept.as_mut().filter(|kept| from <= kept.count);
            let kept = kept.ok_or_else(no_file)?;
            kept.place(from)
                .and_then(|kept| place.make_link(&kept))
                .map_err(|source| failed("link", bytes, source))?;
        }
        if !matches!(place.kind(), Ok(Some(FileType::RegularFile))) {
            return Err(no_file());
        }
        let file = place
            .open_file()
            .map_err(|source| failed("open", bytes, source))?;
        self.runs(&file, bytes, size, true)
    }

    fn runs(
        &mut self,
        file: &File,
        bytes: &[u8],
        size: u64,
        may_have_holes: bool,
    ) -> Result<(), DiffError> {
        let mut from = 0;
        while let Some(run) = self.input.run(from, size)? {
            let Run {
                offset,
                length,
                is_hole,
            } = run;
            from = offset + length;
            if is_hole {
                if !may_have_holes {
                    return Err(self.input.malformed("hole in a file that has nothing yet"));
                }
                // To the very end: the last block may reach beyond the size that the file will have.
                let end = if from == size { u64::MAX } else { from };
                punch(file, offset, end).map_err(|source| failed("punch", bytes, source))?;
                continue;
            }
            let free = space::free(&self.upper)
                .map_err(|source| failed("ask for the free space for", bytes, source))?;
            if length > free {
                return Err(DiffError::NoSpace {
                    path: shown(bytes),
                    need: length,
                    free,
                });
            }
            self.content(file, bytes, offset, length)?;
            self.report.bytes += length;
        }
        file.set_len(size)
            .map_err(|source| failed("set the length of", bytes, source))
    }

    fn content(
        &mut self,
        file: &File,
        bytes: &[u8],
        at: u64,
        length: u64,
    ) -> Result<(), DiffError> {
        let mut done = 0;
        while done < length {
            let want = self.buffer.len().min((length - done) as usize);
            let buffer = &mut self.buffer[..want];
            self.input.data(buffer)?;
            file.write_all_at(buffer, at + done)
                .map_err(|source| match source.kind() {
                    io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
                        DiffError::NoSpace {
                            path: shown(bytes),
                            need: length - done,
                            free: space::free(&self.upper).unwrap_or(0),
                        }
                    }
                    _ => failed("write", bytes, source),
                })?;
            done += want as u64;
        }
        Ok(())
    }

    /// Whether `place` is a name of `target`'s already.
    fn is_same(&mut self, place: &Place, target: &[u8]) -> Result<bool, DiffError> {
        let target = self.path(target)?;
        let target = self.tree.place(&target).and_then(|target| target.stat());
        let same = match (place.stat(), target) {
            (Ok(Some(one)), Ok(Some(other))) => {
                (one.st_dev, one.st_ino) == (other.st_dev, other.st_ino)
                    && FileType::from_raw_mode(one.st_mode) != FileType::Directory
            }
            _ => false,
        };
        Ok(same)
    }

    fn link(&mut self, place: &Place, bytes: &[u8], target: &[u8]) -> Result<(), DiffError> {
        let missing = || DiffError::LinkTarget {
            path: shown(bytes),
            target: shown(target),
        };
        let target = self.path(target)?;
        let target = self.tree.place(&target).map_err(|_| missing())?;
        match target.kind() {
            Ok(Some(FileType::Directory) | None) | Err(_) => return Err(missing()),
            Ok(Some(_)) => {}
        }
        place
            .make_link(&target)
            .map_err(|source| failed("link", bytes, source))
    }
}

/// Makes a hole up to `end`; zeros where the file system knows none.
fn punch(file: &File, offset: u64, end: u64) -> io::Result<()> {
    // Beyond the end there is nothing, and no length that was announced is believed.
    let end = end.min(file.metadata()?.len());
    if end <= offset {
        return Ok(());
    }
    let length = end - offset;
    let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
    match rustix::fs::fallocate(file, flags, offset, length) {
        Err(Errno::OPNOTSUPP) => {
            let zeros = vec![0; (256 << 10).min(length as usize)];
            let mut at = offset;
            while at < end {
                let want = zeros.len().min((end - at) as usize);
                file.write_all_at(&zeros[..want], at)?;
                at += want as u64;
            }
            Ok(())
        }
        other => Ok(other?),
    }
}

/// The errno of a parent that is a symlink or no directory.
fn leads_astray(errno: i32) -> bool {
    [Errno::LOOP, Errno::NOTDIR, Errno::XDEV]
        .iter()
        .any(|e| e.raw_os_error() == errno)
}

fn failed(step: &'static str, bytes: &[u8], source: io::Error) -> DiffError {
    let path = shown(bytes);
    match source.kind() {
        io::ErrorKind::AlreadyExists => DiffError::Twice { path },
        _ => DiffError::Entry { step, path, source },
    }
}

/// Extended attributes that mean the same on another host. `trusted.overlay.origin` does not: it
/// is a file handle of this host's lower layer. Nor do the labels of a security module.
pub(super) fn is_carried(name: &[u8]) -> bool {
    match name {
        b"trusted.overlay.origin" => false,
        xattr::CAPABILITY | xattr::ACCESS_ACL | xattr::DEFAULT_ACL => true,
        _ => name.starts_with(b"user.") || name.starts_with(b"trusted."),
    }
}
