//! Layers that are sent ahead in rounds: what arrives is what is there, whatever happened between
//! two rounds and in them.

use std::{
    collections::HashSet,
    fs::{self, File, OpenOptions},
    os::unix::fs::{FileExt, PermissionsExt, chown, symlink},
    path::{Path, PathBuf},
    sync::atomic::{AtomicBool, Ordering},
    thread,
    time::Duration,
};

use godwit_runtime::rootfs::diff::{self, Ahead, DiffError, Mapped, Mark};
use proptest::{prelude::*, strategy::ValueTree};
use rustix::fs::{FallocateFlags, FileType};

use super::{Host, mknod, packed, set_mtime, setxattr, stream::Stream};

/// Longer than the times of a file can't tell two changes apart.
const LATER: Duration = Duration::from_millis(120);
const MIB: usize = 1 << 20;

/// A layer and what a destination has of it.
struct Pair {
    host: Host,
    ahead: Option<Ahead>,
    mark: Mark,
}

impl Pair {
    fn new() -> Self {
        let host = Host::new();
        fs::create_dir(host.path("source")).unwrap();
        let ahead = Some(Ahead::new(&host.path("source")));
        Self {
            host,
            ahead,
            mark: Mark::NOTHING,
        }
    }

    fn source(&self) -> PathBuf {
        self.host.path("source")
    }

    fn upper(&self) -> PathBuf {
        self.host.path("upper")
    }

    fn apply(&mut self, stream: &[u8]) {
        let (upper, aside) = (self.upper(), self.host.path("aside"));
        let report = if self.mark == Mark::NOTHING {
            diff::unpack(stream, &upper).unwrap()
        } else {
            diff::apply(stream, &upper, &aside, self.mark).unwrap()
        };
        assert!(!aside.exists());
        self.mark = report.mark;
    }

    /// A round. Answers the bytes of its streams.
    fn round(&mut self, budget: u64, mapped: Mapped) -> usize {
        let mut ahead = self.ahead.take().unwrap();
        ahead.look(|| mapped).unwrap();
        let mut sent = 0;
        loop {
            let mut stream = Vec::new();
            if ahead.part(&mut stream, budget).unwrap().is_none() {
                break;
            }
            sent += stream.len();
            self.apply(&stream);
        }
        self.ahead = Some(ahead);
        sent
    }

    /// The last stream, after which both must be the same. Answers its bytes.
    fn finish(&mut self) -> usize {
        let mut stream = Vec::new();
        self.ahead.take().unwrap().finish(&mut stream).unwrap();
        self.apply(&stream);
        self.are_equal();
        stream.len()
    }

    /// By all that a whole pack carries: content and holes, links, attributes, whiteouts.
    fn are_equal(&self) {
        if packed(&self.source()) == packed(&self.upper()) {
            return;
        }
        let list = |dir: &Path| {
            let mut command = std::process::Command::new("find");
            command.current_dir(dir).args([".", "-printf"]);
            command.arg("%p %y %m %U %G %s %n %T@ %b %l\n");
            let listed = command.output().unwrap().stdout;
            let text = String::from_utf8_lossy(&listed).into_owned();
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        let (source, upper) = (list(&self.source()), list(&self.upper()));
        let of = |a: &[String], b: &[String]| {
            a.iter()
                .filter(|l| !b.contains(l))
                .cloned()
                .collect::<Vec<_>>()
        };
        panic!(
            "source: {:#?}\ndestination: {:#?}",
            of(&source, &upper),
            of(&upper, &source)
        );
    }
}

fn bytes(seed: u64, len: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state
    };
    let mut bytes: Vec<u8> = (0..len.div_ceil(8))
        .flat_map(|_| next().to_le_bytes())
        .collect();
    bytes.truncate(len);
    bytes
}

/// Something that a container does. Names are few, so that they meet.
#[derive(Debug, Clone)]
enum Deed {
    Small(usize, u64),
    Large(usize, u64),
    Rewrite(usize, u64),
    Append(usize, u64),
    Punch(usize, u64),
    Truncate(usize, u64),
    Rename(usize, usize),
    Exchange(usize, usize),
    Link(usize, usize),
    Remove(usize),
    Directory(usize),
    Symlink(usize),
    Node(usize, u8),
    Dress(usize, u64),
    Time(usize, i64),
}

const NAMES: [&str; 10] = ["a", "b", "c", "d", "d/a", "d/b", "d/e", "d/e/a", "f", "f/a"];

fn any_deed() -> impl Strategy<Value = Deed> {
    let name = || 0..NAMES.len();
    let seed = || 0u64..1000;
    prop_oneof![
        2 => (name(), seed()).prop_map(|(n, s)| Deed::Small(n, s)),
        3 => (name(), seed()).prop_map(|(n, s)| Deed::Large(n, s)),
        3 => (name(), seed()).prop_map(|(n, s)| Deed::Rewrite(n, s)),
        2 => (name(), seed()).prop_map(|(n, s)| Deed::Append(n, s)),
        2 => (name(), seed()).prop_map(|(n, s)| Deed::Punch(n, s)),
        1 => (name(), seed()).prop_map(|(n, s)| Deed::Truncate(n, s)),
        3 => (name(), name()).prop_map(|(n, m)| Deed::Rename(n, m)),
        2 => (name(), name()).prop_map(|(n, m)| Deed::Exchange(n, m)),
        3 => (name(), name()).prop_map(|(n, m)| Deed::Link(n, m)),
        2 => name().prop_map(Deed::Remove),
        3 => name().prop_map(Deed::Directory),
        1 => name().prop_map(Deed::Symlink),
        2 => (name(), 0u8..4).prop_map(|(n, k)| Deed::Node(n, k)),
        2 => (name(), seed()).prop_map(|(n, s)| Deed::Dress(n, s)),
        1 => (name(), 0i64..2_000_000_000).prop_map(|(n, t)| Deed::Time(n, t)),
    ]
}

/// Most deeds fail now and then: there is no such directory, or there is one in the way.
fn do_it(root: &Path, deed: &Deed) {
    let at = |n: &usize| root.join(NAMES[*n]);
    let is_file = |path: &Path| path.symlink_metadata().is_ok_and(|m| m.is_file());
    let open = |path: &Path| {
        let file = is_file(path).then(|| OpenOptions::new().write(true).open(path).ok());
        file.flatten().map(|file| {
            let len = file.metadata().unwrap().len();
            (file, len)
        })
    };
    let free = |path: &Path| path.symlink_metadata().is_err();
    match deed {
        Deed::Small(n, seed) if free(&at(n)) || is_file(&at(n)) => {
            let _ = fs::write(at(n), bytes(*seed, *seed as usize));
        }
        Deed::Large(n, seed) if free(&at(n)) => {
            if let Ok(file) = File::create(at(n)) {
                file.set_len(4 << 20).unwrap();
                file.write_all_at(&bytes(*seed, MIB), (seed % 5) * 300_000)
                    .unwrap();
            }
        }
        Deed::Rewrite(n, seed) => {
            if let Some((file, len)) = open(&at(n)) {
                let place = if len > 0 { (seed * 7919) % len } else { 0 };
                file.write_all_at(&bytes(*seed, 5000), place).unwrap();
            }
        }
        Deed::Append(n, seed) => {
            if let Some((file, len)) = open(&at(n)) {
                file.write_all_at(&bytes(*seed, 100_000), len).unwrap();
            }
        }
        Deed::Punch(n, seed) => {
            if let Some((file, _)) = open(&at(n)) {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                rustix::fs::fallocate(&file, flags, (seed % 16) * 65_536, 400_000).unwrap();
            }
        }
        Deed::Truncate(n, seed) => {
            if let Some((file, _)) = open(&at(n)) {
                file.set_len(seed * 3000).unwrap();
            }
        }
        Deed::Rename(n, m) => {
            let _ = fs::rename(at(n), at(m));
        }
        Deed::Exchange(n, m) => {
            let flags = rustix::fs::RenameFlags::EXCHANGE;
            let cwd = rustix::fs::CWD;
            let _ = rustix::fs::renameat_with(cwd, at(n), cwd, at(m), flags);
        }
        Deed::Link(n, m) => {
            let _ = fs::hard_link(at(n), at(m));
        }
        Deed::Remove(n) => {
            let _ = fs::remove_file(at(n)).or_else(|_| fs::remove_dir_all(at(n)));
        }
        Deed::Directory(n) => {
            let _ = fs::create_dir(at(n));
        }
        Deed::Symlink(n) => {
            let _ = symlink("../d", at(n));
        }
        Deed::Node(n, kind) if free(&at(n)) && at(n).parent().is_some_and(Path::is_dir) => {
            let null = rustix::fs::makedev(1, 3);
            match kind {
                0 => mknod(&at(n), FileType::Fifo, 0),
                1 => mknod(&at(n), FileType::CharacterDevice, null),
                _ => mknod(&at(n), FileType::CharacterDevice, 0),
            }
        }
        Deed::Dress(n, seed) if is_file(&at(n)) || at(n).is_dir() => {
            if at(n).is_symlink() {
                return;
            }
            chown(at(n), Some(*seed as u32), Some(7)).unwrap();
            let mode = 0o600 + (*seed as u32) % 64;
            fs::set_permissions(at(n), fs::Permissions::from_mode(mode)).unwrap();
            setxattr(&at(n), "user.note", &seed.to_le_bytes());
            if seed % 2 == 0 {
                setxattr(&at(n), &format!("user.note{}", seed % 8), b"x");
                let _ = rustix::fs::lremovexattr(at(n), format!("user.note{}", seed % 6));
            }
            if at(n).is_dir() && seed % 3 == 0 {
                setxattr(&at(n), "trusted.overlay.opaque", b"y");
                setxattr(&at(n), "system.posix_acl_default", &acl());
            } else if at(n).is_dir() {
                let _ = rustix::fs::lremovexattr(at(n), "system.posix_acl_default");
            } else if seed % 3 == 0 {
                setxattr(&at(n), "system.posix_acl_access", &acl());
            }
        }
        Deed::Time(n, time) if !free(&at(n)) => set_mtime(&at(n), *time, 5),
        _ => {}
    }
}

/// user::rwx, user:7:r--, group::r-x, mask::r-x, other::r-x
fn acl() -> Vec<u8> {
    let entries = [
        (1u16, 7u16, u32::MAX),
        (2, 4, 7),
        (4, 5, u32::MAX),
        (16, 5, u32::MAX),
        (32, 5, u32::MAX),
    ];
    let mut acl = 2u32.to_le_bytes().to_vec();
    for (tag, permissions, id) in entries {
        acl.extend(tag.to_le_bytes());
        acl.extend(permissions.to_le_bytes());
        acl.extend(id.to_le_bytes());
    }
    acl
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn any_changes_between_rounds_arrive(
        rounds in prop::collection::vec(
            (prop::collection::vec(any_deed(), 0..14), any::<bool>(), prop::bool::ANY),
            1..5,
        ),
        last in prop::collection::vec(any_deed(), 0..6),
    ) {
        let mut pair = Pair::new();
        for (deeds, later, small_parts) in &rounds {
            for deed in deeds {
                do_it(&pair.source(), deed);
            }
            if *later {
                thread::sleep(LATER);
            }
            pair.round(if *small_parts { 1 } else { u64::MAX }, Mapped::default());
            pair.are_equal();
        }
        for deed in &last {
            do_it(&pair.source(), deed);
        }
        pair.finish();
    }
}

#[test]
fn a_layer_that_changes_during_the_rounds_is_whole_at_the_end() {
    let mut pair = Pair::new();
    let stop = AtomicBool::new(false);
    let source = pair.source();
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut runner = proptest::test_runner::TestRunner::deterministic();
            while !stop.load(Ordering::Relaxed) {
                let deed = any_deed().new_tree(&mut runner).unwrap().current();
                do_it(&source, &deed);
            }
        });
        for _ in 0..40 {
            pair.round(1 << 20, Mapped::default());
        }
        stop.store(true, Ordering::Relaxed);
    });
    pair.finish();
}

#[test]
fn only_what_changed_in_a_large_file_goes() {
    let mut pair = Pair::new();
    let at = |name: &str| pair.host.path("source").join(name);
    fs::write(at("large"), bytes(1, 16 * MIB)).unwrap();
    fs::write(at("moves"), bytes(2, 16 * MIB)).unwrap();
    fs::create_dir(at("many")).unwrap();
    for n in 0..1000 {
        fs::write(at(&format!("many/{n}")), bytes(n, 1000)).unwrap();
    }
    let large = OpenOptions::new().write(true).open(at("large")).unwrap();
    let moves = (at("moves"), at("many/moved"));
    thread::sleep(LATER);
    assert!(pair.round(u64::MAX, Mapped::default()) > 33 * MIB);
    assert!(pair.round(u64::MAX, Mapped::default()) < 1000);

    large.write_all_at(b"there", 5 << 20).unwrap();
    large.write_all_at(&bytes(3, 1000), 16 << 20).unwrap();
    fs::rename(&moves.0, &moves.1).unwrap();
    let sent = pair.round(u64::MAX, Mapped::default());
    assert!(sent < 300_000 + 2 * (256 << 10), "{sent}");
    pair.are_equal();

    // Swapped, and one of them hard linked.
    thread::sleep(LATER);
    pair.round(u64::MAX, Mapped::default());
    let cwd = rustix::fs::CWD;
    let flags = rustix::fs::RenameFlags::EXCHANGE;
    let source = pair.source();
    rustix::fs::renameat_with(cwd, source.join("large"), cwd, &moves.1, flags).unwrap();
    fs::hard_link(source.join("large"), source.join("again")).unwrap();
    let sent = pair.finish();
    assert!(sent < 10_000, "{sent}");
}

#[test]
fn what_is_too_young_to_tell_is_sent_again_until_it_can_be_told() {
    let mut pair = Pair::new();
    let path = pair.source().join("young");
    fs::write(&path, bytes(1, 100_000)).unwrap();
    let mut round = || pair.round(u64::MAX, Mapped::default());
    assert!(round() > 100_000);
    assert!(round() > 100_000, "it may have changed in the same tick");
    thread::sleep(LATER);
    assert!(
        round() > 100_000,
        "the round before was too early to be sure"
    );
    assert!(round() < 1000, "nothing changed");
}

#[test]
fn a_file_that_is_written_to_through_a_mapping_is_looked_at_again() {
    let mut pair = Pair::new();
    let path = pair.source().join("mapped");
    fs::write(&path, bytes(1, 2 * MIB)).unwrap();
    thread::sleep(LATER);
    let mapped = Mapped {
        paths: HashSet::from([PathBuf::from("mapped")]),
        others: false,
    };
    pair.round(u64::MAX, mapped);
    // As a mapping does that was written to before: the times stay.
    let before = fs::metadata(&path).unwrap();
    fs::write(&path, bytes(2, 2 * MIB)).unwrap();
    let times = rustix::fs::Timestamps {
        last_access: rustix::fs::Timespec {
            tv_sec: 0,
            tv_nsec: 0,
        },
        last_modification: rustix::fs::Timespec {
            tv_sec: std::os::unix::fs::MetadataExt::mtime(&before),
            tv_nsec: std::os::unix::fs::MetadataExt::mtime_nsec(&before),
        },
    };
    let no_follow = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    rustix::fs::utimensat(rustix::fs::CWD, &path, &times, no_follow).unwrap();
    pair.finish();
}

/// A destination that has a directory, a file and a link in it; what a stream against that does.
fn applied(fill: impl FnOnce(&mut Stream)) -> Result<(), DiffError> {
    let host = Host::new();
    fs::write(host.path("outside"), "untouched").unwrap();
    let upper = host.path("upper");
    let mut first = Stream::new();
    first
        .file(b"f", b"content")
        .entry(2, b"d", &[])
        .file(b"d/g", b"more");
    first.target(3, b"out", b"..");
    let first = first.end();
    let mark = diff::unpack(first.as_slice(), &upper).unwrap().mark;
    let mut base = [0; 32];
    base.copy_from_slice(&first[first.len() - 32..]);
    let mut stream = Stream::against(base);
    fill(&mut stream);
    let stream = stream.end();
    let result = diff::apply(stream.as_slice(), &upper, &host.path("aside"), mark);
    let outside = fs::read_to_string(host.path("outside")).unwrap();
    assert_eq!(outside, "untouched");
    result.map(drop)
}

#[test]
fn hostile_changes_are_refused() {
    applied(|s| {
        s.path(17, b"f").path(16, b"f").patch(b"new", 3, 1);
        s.u64s(&[3, 0]);
    })
    .unwrap();
    let refused = |fill: &dyn Fn(&mut Stream)| applied(fill).expect_err("it is hostile");
    for kind in [16, 17] {
        for path in [&b"../outside"[..], b"/etc/x", b"d/../../outside"] {
            let error = refused(&|s| {
                s.path(kind, path);
            });
            assert!(matches!(error, DiffError::Path { .. }), "{error:?}");
        }
        let error = refused(&|s| {
            s.path(kind, b"out/outside");
        });
        assert!(matches!(error, DiffError::Through { .. }), "{error:?}");
    }
    let error = refused(&|s| {
        s.path(16, b"");
    });
    assert!(matches!(error, DiffError::Malformed { .. }), "{error:?}");
    // A directory with something in it, and what is not there at all.
    let error = refused(&|s| {
        s.path(16, b"d");
    });
    assert!(matches!(error, DiffError::Entry { .. }), "{error:?}");
    for path in [&b"d"[..], b"out", b"missing"] {
        let error = refused(&|s| {
            s.path(17, path);
        });
        assert!(matches!(error, DiffError::NoFile { .. }), "{error:?}");
    }
    for (path, from) in [
        (&b"missing"[..], 0),
        (b"f", 1),
        (b"f", u32::MAX),
        (b"out", 0),
    ] {
        let error = refused(&|s| {
            s.patch(path, 0, from).u64s(&[0, 0]);
        });
        assert!(matches!(error, DiffError::NoFile { .. }), "{error:?}");
    }
    let hole = 1u64 << 63;
    for runs in [
        &[0u64, hole | 9, 8, 0][..],
        &[4, hole | 1, 3, hole | 1, 8, 0],
        &[8, hole],
        &[0, u64::MAX, 8, 0],
    ] {
        let error = refused(&|s| {
            s.patch(b"f", 8, 0).u64s(runs);
        });
        assert!(matches!(error, DiffError::Malformed { .. }), "{error:?}");
    }
    // A hole in a file of its own, and a root that is none.
    let error = refused(&|s| {
        s.entry(1, b"x", &[]).u64s(&[8, 0, hole | 8, 8, 0]);
    });
    assert!(matches!(error, DiffError::Malformed { .. }), "{error:?}");
    let error = refused(&|s| {
        s.entry(5, b"", &[]);
    });
    assert!(matches!(error, DiffError::Malformed { .. }), "{error:?}");
    let error = refused(&|s| {
        s.target(4, b"x", b"../outside");
    });
    assert!(matches!(error, DiffError::Path { .. }), "{error:?}");
}

#[test]
fn a_stream_against_another_state_is_refused() {
    let host = Host::new();
    let upper = host.path("upper");
    let first = Stream::new().end();
    let mark = diff::unpack(first.as_slice(), &upper).unwrap().mark;
    for base in [[0; 32], [9; 32]] {
        let stream = Stream::against(base).end();
        let error = diff::apply(stream.as_slice(), &upper, &host.path("aside"), mark).unwrap_err();
        assert!(matches!(error, DiffError::Base), "{error:?}");
    }
    let stream = Stream::against([9; 32]).end();
    let error = diff::unpack(stream.as_slice(), &host.path("other")).unwrap_err();
    assert!(matches!(error, DiffError::Base), "{error:?}");
    // Against nothing, nothing can be changed.
    for kind in [16, 17] {
        let mut stream = Stream::new();
        stream.path(kind, b"f");
        let error = diff::unpack(stream.end().as_slice(), &host.path("third")).unwrap_err();
        fs::remove_dir_all(host.path("third")).unwrap();
        assert!(matches!(error, DiffError::Malformed { .. }), "{error:?}");
    }
}
