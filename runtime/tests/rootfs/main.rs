//! Roots and diffs of writable layers, over real overlay mounts. Needs root.

mod ahead;
mod stream;

use std::{
    fs::{self, File},
    io::{Cursor, Read, Seek, SeekFrom, Write},
    os::unix::{
        fs::{FileExt, FileTypeExt, MetadataExt, PermissionsExt, chown, symlink},
        net::UnixListener,
    },
    path::{Path, PathBuf},
};

use godwit_runtime::rootfs::{
    Rootfs, RootfsError,
    diff::{self, DiffError, Rules},
    size,
};
use proptest::prelude::*;
use rustix::fs::{FileType, Mode, Timespec, Timestamps, XattrFlags};
use stream::Stream;

/// Unmounts when a test ends early, too.
struct Host {
    dir: tempfile::TempDir,
}

impl Host {
    fn new() -> Self {
        Self {
            dir: tempfile::tempdir().unwrap(),
        }
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn rootfs(&self) -> Rootfs {
        Rootfs::new(&self.path("root"))
    }

    /// A layer with these files.
    fn layer(&self, name: &str, files: &[(&str, &str)]) -> PathBuf {
        let layer = self.path(name);
        fs::create_dir_all(&layer).unwrap();
        for (path, content) in files {
            let path = layer.join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, content).unwrap();
        }
        layer
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        let _ = self.rootfs().unmount();
    }
}

fn getxattr(path: &Path, name: &str) -> Option<Vec<u8>> {
    let mut value = vec![0; 1024];
    let len = rustix::fs::lgetxattr(path, name, &mut value[..]).ok()?;
    value.truncate(len);
    Some(value)
}

fn setxattr(path: &Path, name: &str, value: &[u8]) {
    rustix::fs::lsetxattr(path, name, value, XattrFlags::empty()).unwrap();
}

fn set_mtime(path: &Path, seconds: i64, nanoseconds: i64) {
    let time = Timespec {
        tv_sec: seconds,
        tv_nsec: nanoseconds,
    };
    let times = Timestamps {
        last_access: time,
        last_modification: time,
    };
    rustix::fs::utimensat(
        rustix::fs::CWD,
        path,
        &times,
        rustix::fs::AtFlags::SYMLINK_NOFOLLOW,
    )
    .unwrap();
}

fn mknod(path: &Path, kind: FileType, device: u64) {
    rustix::fs::mknodat(rustix::fs::CWD, path, kind, Mode::RUSR, device).unwrap();
}

fn packed(upper: &Path) -> Vec<u8> {
    let mut stream = Vec::new();
    diff::pack(upper, &mut stream).unwrap();
    stream
}

#[test]
fn layers_are_joined_and_the_root_goes_without_a_trace() {
    let host = Host::new();
    let lower = host.layer("lower", &[("a", "below"), ("b", "below")]);
    let upper = host.layer("upper-layer", &[("b", "above")]);
    fs::set_permissions(&upper, fs::Permissions::from_mode(0o1755)).unwrap();
    chown(&upper, Some(3), Some(4)).unwrap();
    let rootfs = host.rootfs();
    assert!(!rootfs.is_mounted());
    rootfs.mount(&[lower.clone(), upper.clone()]).unwrap();
    rootfs.mount(&[lower.clone(), upper.clone()]).unwrap();
    assert!(rootfs.is_mounted());
    let merged = rootfs.merged();
    assert_eq!(fs::read_to_string(merged.join("a")).unwrap(), "below");
    assert_eq!(fs::read_to_string(merged.join("b")).unwrap(), "above");
    let root = fs::metadata(&merged).unwrap();
    assert_eq!(
        (root.mode() & 0o7777, root.uid(), root.gid()),
        (0o1755, 3, 4)
    );
    fs::write(merged.join("c"), vec![1; 100_000]).unwrap();
    assert_eq!(fs::read(rootfs.upper().join("c")).unwrap().len(), 100_000);
    assert!(size(&rootfs.upper()).unwrap() >= 100_000);

    rootfs.unmount().unwrap();
    rootfs.unmount().unwrap();
    assert!(!rootfs.is_mounted());
    rootfs.mount(&[lower.clone(), upper]).unwrap();
    assert!(merged.join("c").exists());

    // Busy: somebody still has a file open.
    let busy = File::open(merged.join("c")).unwrap();
    rootfs.remove().unwrap();
    rootfs.remove().unwrap();
    drop(busy);
    assert!(!host.path("root").exists());
    assert_eq!(fs::read_to_string(lower.join("a")).unwrap(), "below");
    assert_eq!(size(&rootfs.upper()).unwrap(), 0);
}

#[test]
fn a_root_of_127_layers_with_long_paths_mounts() {
    let host = Host::new();
    let long = "x".repeat(200);
    let layers: Vec<_> = (0..127)
        .map(|n| host.layer(&format!("{long}/{n}"), &[("top", &n.to_string())]))
        .collect();
    let rootfs = host.rootfs();
    rootfs.mount(&layers).unwrap();
    assert_eq!(
        fs::read_to_string(rootfs.merged().join("top")).unwrap(),
        "126"
    );
    rootfs.remove().unwrap();
}

#[test]
fn what_cannot_be_mounted_is_said() {
    let host = Host::new();
    let rootfs = host.rootfs();
    assert!(matches!(
        rootfs.mount(&[]),
        Err(RootfsError::NoLayers { .. })
    ));
    let missing = host.path("missing");
    assert!(matches!(
        rootfs.mount(std::slice::from_ref(&missing)),
        Err(RootfsError::Io { path, .. }) if path == missing
    ));
    // Not overlayfs' fault alone: upper inside its own lower layer.
    let layer = host.layer("layer", &[]);
    let inside = Rootfs::new(&layer.join("root"));
    match inside.mount(std::slice::from_ref(&layer)) {
        Ok(()) => inside.unmount().unwrap(),
        Err(error) => assert!(matches!(error, RootfsError::Mount { .. }), "{error:?}"),
    }

    fs::create_dir_all(rootfs.merged()).unwrap();
    let flags = rustix::mount::MountFlags::empty();
    rustix::mount::mount("none", rootfs.merged(), "tmpfs", flags, None).unwrap();
    assert!(matches!(
        rootfs.mount(&[layer]),
        Err(RootfsError::Taken { .. })
    ));
}

#[test]
fn a_tree_deeper_than_any_path_is_removed_and_a_mount_in_it_is_not_entered() {
    let host = Host::new();
    let rootfs = host.rootfs();
    fs::create_dir_all(rootfs.upper()).unwrap();
    let flags = rustix::fs::OFlags::DIRECTORY | rustix::fs::OFlags::RDONLY;
    let mut dir: std::os::fd::OwnedFd = File::open(rootfs.upper()).unwrap().into();
    let name = "d".repeat(100);
    for _ in 0..1500 {
        rustix::fs::mkdirat(&dir, &name, Mode::RWXU).unwrap();
        dir = rustix::fs::openat(&dir, &name, flags, Mode::empty()).unwrap();
    }
    rustix::fs::symlinkat("/", &dir, "link").unwrap();
    drop(dir);
    assert!(matches!(
        diff::pack(&rootfs.upper(), Vec::new()),
        Err(DiffError::TooMuch { .. })
    ));

    let precious = host.layer("precious", &[("file", "kept")]);
    let bind = host.path("root/bind");
    fs::create_dir(&bind).unwrap();
    rustix::mount::mount_bind(&precious, &bind).unwrap();
    let error = rootfs.remove().unwrap_err();
    rustix::mount::unmount(&bind, rustix::mount::UnmountFlags::DETACH).unwrap();
    assert!(
        matches!(&error, RootfsError::Remove { path, .. } if *path == bind),
        "{error:?}"
    );
    assert_eq!(fs::read_to_string(precious.join("file")).unwrap(), "kept");
    assert!(!rootfs.upper().exists());
    rootfs.remove().unwrap();
    assert!(!host.path("root").exists());
}

#[test]
fn a_container_finds_its_root_unchanged_on_another_host() {
    let files = [
        ("etc/conf", "old"),
        ("etc/gone", "old"),
        ("dir/old", "old"),
        ("moved/x", "x"),
    ];
    let source = Host::new();
    let root = source.rootfs();
    root.mount(&[source.layer("layer", &files)]).unwrap();
    let merged = root.merged();
    let at = |name: &str| merged.join(name);

    // What a container does.
    fs::write(at("etc/conf"), "new").unwrap();
    fs::remove_file(at("etc/gone")).unwrap();
    fs::remove_dir_all(at("dir")).unwrap();
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/new"), "new").unwrap();
    fs::hard_link(at("dir/new"), at("dir/again")).unwrap();
    let holes = File::create(at("holes")).unwrap();
    holes.set_len(64 << 20).unwrap();
    holes.write_all_at(b"start", 0).unwrap();
    holes.write_all_at(b"middle", 32 << 20).unwrap();
    File::create(at("all-hole"))
        .unwrap()
        .set_len(1 << 30)
        .unwrap();
    fs::write(at("su"), "program").unwrap();
    chown(at("su"), Some(0), Some(42)).unwrap();
    fs::set_permissions(at("su"), fs::Permissions::from_mode(0o6755)).unwrap();
    let capability = [
        1, 0, 0, 2, 0x0a, 0x20, 0, 0, 0, 0, 0, 0, 0x0a, 0, 0, 0, 0, 0, 0, 0,
    ];
    setxattr(&at("dir/new"), "security.capability", &capability);
    setxattr(&at("dir/new"), "user.note", b"a\0b\n");
    // user::rwx, user:7:r--, group::r-x, mask::r-x, other::r-x
    let acl: Vec<u8> = [2u32.to_le_bytes().to_vec()]
        .into_iter()
        .chain(
            [
                (1u16, 7u16, u32::MAX),
                (2, 4, 7),
                (4, 5, u32::MAX),
                (16, 5, u32::MAX),
                (32, 5, u32::MAX),
            ]
            .map(|(tag, perm, id)| {
                [
                    &tag.to_le_bytes()[..],
                    &perm.to_le_bytes(),
                    &id.to_le_bytes(),
                ]
                .concat()
            }),
        )
        .flatten()
        .collect();
    fs::create_dir(at("acl")).unwrap();
    fs::write(at("acl/before"), "").unwrap();
    setxattr(&at("acl"), "system.posix_acl_default", &acl);
    setxattr(&at("su"), "system.posix_acl_access", &acl);
    symlink("/etc/../nowhere", at("link")).unwrap();
    mknod(&at("fifo"), FileType::Fifo, 0);
    mknod(
        &at("null"),
        FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    );
    drop(UnixListener::bind(at("socket")).unwrap());
    set_mtime(&at("link"), 12, 345);
    set_mtime(&at("dir/new"), -5, 999_999_999);
    set_mtime(&at("dir"), 1_700_000_000, 123_456_789);

    root.unmount().unwrap();
    let mut stream = Vec::new();
    let report = diff::pack(&root.upper(), &mut stream).unwrap();
    assert!(report.bytes < 1 << 20, "{report:?}: holes are not carried");
    assert_eq!(
        stream,
        packed(&root.upper()),
        "the same layer gives the same stream"
    );

    let destination = Host::new();
    let other = destination.rootfs();
    fs::create_dir(destination.path("root")).unwrap();
    let unpacked = diff::unpack(stream.as_slice(), &other.upper()).unwrap();
    assert_eq!(
        (unpacked.entries, unpacked.bytes),
        (report.entries, report.bytes)
    );
    assert_eq!(packed(&other.upper()), stream, "nothing is lost on the way");
    other.mount(&[destination.layer("layer", &files)]).unwrap();
    let merged = other.merged();
    let at = |name: &str| merged.join(name);

    assert_eq!(fs::read_to_string(at("etc/conf")).unwrap(), "new");
    assert!(!at("etc/gone").exists());
    let names: Vec<_> = fs::read_dir(at("dir"))
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    assert_eq!(
        names.len(),
        2,
        "the directory hides the one below: {names:?}"
    );
    let new = fs::metadata(at("dir/new")).unwrap();
    assert_eq!(
        (new.nlink(), new.ino()),
        (2, fs::metadata(at("dir/again")).unwrap().ino())
    );
    assert_eq!((new.mtime(), new.mtime_nsec()), (-5, 999_999_999));
    assert_eq!(
        getxattr(&at("dir/new"), "security.capability").unwrap(),
        capability
    );
    assert_eq!(getxattr(&at("dir/new"), "user.note").unwrap(), b"a\0b\n");
    let dir = fs::metadata(at("dir")).unwrap();
    assert_eq!(
        (dir.mtime(), dir.mtime_nsec()),
        (1_700_000_000, 123_456_789)
    );
    let mut holes = File::open(at("holes")).unwrap();
    let meta = holes.metadata().unwrap();
    assert_eq!(meta.len(), 64 << 20);
    assert!(meta.blocks() * 512 < 1 << 20);
    let mut middle = [0; 7];
    holes.seek(SeekFrom::Start(32 << 20)).unwrap();
    holes.read_exact(&mut middle).unwrap();
    assert_eq!(&middle, b"middle\0");
    let hole = fs::metadata(at("all-hole")).unwrap();
    assert_eq!((hole.len(), hole.blocks()), (1 << 30, 0));
    let su = fs::metadata(at("su")).unwrap();
    assert_eq!((su.mode() & 0o7777, su.gid()), (0o6755, 42));
    assert_eq!(getxattr(&at("su"), "system.posix_acl_access").unwrap(), acl);
    assert_eq!(
        getxattr(&at("acl"), "system.posix_acl_default").unwrap(),
        acl
    );
    assert_eq!(getxattr(&at("acl/before"), "system.posix_acl_access"), None);
    assert_eq!(
        fs::read_link(at("link")).unwrap(),
        Path::new("/etc/../nowhere")
    );
    let link = fs::symlink_metadata(at("link")).unwrap();
    assert_eq!((link.mtime(), link.mtime_nsec()), (12, 345));
    assert!(fs::metadata(at("fifo")).unwrap().file_type().is_fifo());
    assert!(fs::metadata(at("socket")).unwrap().file_type().is_socket());
    assert_eq!(
        fs::metadata(at("null")).unwrap().rdev(),
        rustix::fs::makedev(1, 3)
    );
    // File handles of the source's layer mean nothing here.
    assert_eq!(
        getxattr(&other.upper().join("etc/conf"), "trusted.overlay.origin"),
        None
    );
}

fn refused(stream: &[u8]) -> DiffError {
    let host = Host::new();
    fs::write(host.path("outside"), "untouched").unwrap();
    let upper = host.path("upper");
    let error = diff::unpack_with(
        stream,
        &upper,
        Rules {
            allow_devices: false,
        },
    )
    .expect_err("the stream is bad");
    assert_eq!(
        fs::read_to_string(host.path("outside")).unwrap(),
        "untouched"
    );
    assert_eq!(fs::read_dir(host.dir.path()).unwrap().count(), 2);
    error
}

#[test]
fn the_layout_is_the_documented_one() {
    let mut stream = Stream::new();
    stream
        .file(b"f", b"content")
        .target(3, b"l", b"f")
        .device(7, b"w", 0, 0);
    let golden = stream.end();
    let host = Host::new();
    let upper = host.path("upper");
    let report = diff::unpack(golden.as_slice(), &upper).unwrap();
    assert_eq!((report.entries, report.bytes), (4, 7));
    assert_eq!(fs::read(upper.join("f")).unwrap(), b"content");
    // A symlink's mode is the kernel's own; all else comes back bit by bit.
    let again = packed(&upper);
    assert_eq!(again.len(), golden.len());
    let different = again.iter().zip(&golden).filter(|(a, b)| a != b).count();
    assert!(different <= 2 + 32, "{different}");
    let hash = blake3::hash(&golden).to_hex();
    assert_eq!(hash.as_str(), GOLDEN, "version 2 has changed");
}

/// BLAKE3 of the stream above.
const GOLDEN: &str = "c90755c71674385142cbcd2c0df0da441c3f110bbf80ef3f680a10219eeb5661";

#[test]
fn hostile_entries_are_refused() {
    for path in ["../outside", "a/../../outside", "/etc/x", ".."] {
        let error = refused(&Stream::new().file(path.as_bytes(), b"bad").end());
        assert!(matches!(error, DiffError::Path { .. }), "{path}: {error:?}");
    }
    for path in ["a//b", "./a", "a/"] {
        let error = refused(&Stream::new().file(path.as_bytes(), b"bad").end());
        assert!(
            matches!(error, DiffError::Malformed { .. }),
            "{path}: {error:?}"
        );
    }
    for target in ["..", "/", "../..", "inside"] {
        let mut stream = Stream::new();
        stream
            .entry(2, b"inside", &[])
            .target(3, b"s", target.as_bytes());
        let error = refused(&stream.file(b"s/outside", b"bad").end());
        assert!(
            matches!(error, DiffError::Through { .. }),
            "{target}: {error:?}"
        );
    }
    let error = refused(&Stream::new().file(b"f", b"").file(b"f/x", b"").end());
    assert!(
        matches!(
            error,
            DiffError::Through { .. } | DiffError::Malformed { .. }
        ),
        "{error:?}"
    );
    for target in [
        "../outside",
        "/etc/passwd",
        "missing",
        "",
        "dir",
        "l",
        "s/outside",
    ] {
        let mut stream = Stream::new();
        stream.entry(2, b"dir", &[]).target(3, b"s", b"..");
        let error = refused(&stream.target(4, b"l", target.as_bytes()).end());
        assert!(
            matches!(error, DiffError::LinkTarget { .. } | DiffError::Path { .. }),
            "{target}: {error:?}"
        );
    }
    for kind in [7, 8] {
        let stream = Stream::new().device(kind, b"dev", 1, 3).end();
        assert!(matches!(refused(&stream), DiffError::Device { .. }));
        diff::unpack(stream.as_slice(), &Host::new().path("upper")).unwrap();
    }
    // A whiteout is no device.
    let stream = Stream::new().device(7, b"gone", 0, 0).end();
    let rules = Rules {
        allow_devices: false,
    };
    diff::unpack_with(stream.as_slice(), &Host::new().path("upper"), rules).unwrap();

    let mut stream = Stream::new();
    stream.entry(5, b"x", &[]).entry(5, b"x", &[]);
    assert!(matches!(refused(&stream.end()), DiffError::Twice { .. }));
    for name in [
        "security.selinux",
        "trusted.overlay.origin",
        "system.other",
        "",
    ] {
        let stream = Stream::new()
            .entry(5, b"x", &[(name.as_bytes(), b"y")])
            .end();
        assert!(
            matches!(refused(&stream), DiffError::Xattr { .. }),
            "{name}"
        );
    }
    let long = vec![b'x'; 5000];
    let error = refused(&Stream::new().entry(5, &long, &[]).end());
    assert!(
        matches!(
            error,
            DiffError::Limit {
                found: 5000,
                limit: 4096,
                ..
            }
        ),
        "{error:?}"
    );
    let huge = 1 << 50;
    let mut stream = Stream::new();
    stream.entry(1, b"huge", &[]).u64s(&[huge, 0, huge]);
    assert!(matches!(refused(&stream.end()), DiffError::NoSpace { need, .. } if need == huge));
}

#[test]
fn broken_streams_are_refused() {
    let mut stream = Stream::new();
    let good = stream.file(b"f", b"content").end();
    for cut in 0..good.len() {
        let error = refused_stream(&good[..cut]);
        assert!(
            matches!(error, DiffError::Truncated { .. }),
            "{cut}: {error:?}"
        );
    }
    assert!(matches!(
        refused_stream(b"not a diff at all"),
        DiffError::Magic
    ));
    let mut other = good.clone();
    other[8] = 3;
    assert!(matches!(
        refused_stream(&other),
        DiffError::Version { found: 3, known: 2 }
    ));
    let mut other = good.clone();
    *other.last_mut().unwrap() ^= 1;
    assert!(matches!(refused_stream(&other), DiffError::Checksum));
    let at = good.windows(7).position(|w| w == b"content").unwrap();
    let mut other = good.clone();
    other[at] = b'C';
    assert!(matches!(refused_stream(&other), DiffError::Checksum));
    let other = [&good[..], b"x"].concat();
    assert!(matches!(
        refused_stream(&other),
        DiffError::Malformed { .. }
    ));

    // Runs that overlap, exceed the file, or end elsewhere.
    for runs in [
        &[8u64, 4, 5][..],
        &[8, 0, 9],
        &[8, 7, 0],
        &[8, u64::MAX, 2],
        &[u64::MAX, 0, 1],
    ] {
        let mut stream = Stream::new();
        stream.entry(1, b"f", &[]).u64s(runs);
        let error = refused_stream(&stream.end());
        assert!(
            matches!(error, DiffError::Malformed { .. }),
            "{runs:?}: {error:?}"
        );
    }
    // No root, two roots, a root that is a file.
    let mut stream = Stream::against([0; 32]);
    assert!(matches!(
        refused_stream(&stream.end()),
        DiffError::Malformed { .. }
    ));
    stream.file(b"", b"");
    assert!(matches!(
        refused_stream(&stream.end()),
        DiffError::Malformed { .. }
    ));
    let error = refused_stream(&Stream::new().entry(2, b"", &[]).end());
    assert!(matches!(error, DiffError::Malformed { .. }));
    assert!(matches!(
        refused_stream(&Stream::new().entry(10, b"x", &[]).end()),
        DiffError::Malformed { .. }
    ));
}

fn refused_stream(stream: &[u8]) -> DiffError {
    let host = Host::new();
    diff::unpack(stream, &host.path("upper")).expect_err("the stream is bad")
}

#[test]
fn a_diff_goes_into_an_empty_directory_only() {
    let host = Host::new();
    let upper = host.layer("upper", &[("there", "before")]);
    let stream = Stream::new().end();
    assert!(matches!(
        diff::unpack(stream.as_slice(), &upper),
        Err(DiffError::NotEmpty { .. })
    ));
    assert!(matches!(
        diff::pack(&host.path("missing"), Vec::new()),
        Err(DiffError::Open { .. })
    ));
}

#[test]
fn a_writer_that_fails_is_said() {
    let host = Host::new();
    let upper = host.layer("upper", &[("f", &"x".repeat(1 << 20))]);
    struct Full;
    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> std::io::Result<usize> {
            Err(std::io::ErrorKind::BrokenPipe.into())
        }
        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }
    assert!(matches!(
        diff::pack(&upper, Full),
        Err(DiffError::Write { .. })
    ));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn any_bytes_are_unpacked_or_refused(tail in prop::collection::vec(any::<u8>(), 0..400)) {
        let host = Host::new();
        let _ = diff::unpack(tail.as_slice(), &host.path("a"));
        let stream = [&Stream::against([0; 32]).0[..], &tail].concat();
        let _ = diff::unpack(Cursor::new(stream), &host.path("b"));
    }

    #[test]
    fn a_damaged_diff_is_refused(at in 0usize..10_000, bit in 0u8..8) {
        let mut stream = Stream::new();
        stream.file(b"f", &[5; 300]).entry(2, b"d", &[(b"user.a", b"b")]).file(b"d/g", b"x");
        let mut stream = stream.target(4, b"d/h", b"f").end();
        let len = stream.len();
        stream[at % len] ^= 1 << bit;
        let host = Host::new();
        prop_assert!(diff::unpack(stream.as_slice(), &host.path("upper")).is_err());
    }
}
