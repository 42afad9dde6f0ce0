//! A writable layer becomes a layer of an image and is the same again. Needs root.

use std::{
    ffi::CString,
    fs,
    os::unix::{
        ffi::OsStrExt,
        fs::{PermissionsExt, chown, symlink},
    },
    path::Path,
};

use godwit_runtime::{
    image::{
        Store,
        author::{AuthorError, Document, Event, PackFault, pack},
    },
    rootfs::Rootfs,
};
use nix::sys::stat::{Mode, SFlag, mknod};
use proptest::prelude::*;
use rustix::fs::{Timespec, Timestamps, XattrFlags};

#[derive(Debug, Clone)]
enum Kind {
    Directory,
    /// With an overlay's opaque mark.
    Opaque,
    File(Vec<u8>),
    /// Mostly holes.
    Sparse(u64),
    Symlink(String),
    Fifo,
    /// Overlayfs' mark of what is deleted.
    Whiteout,
    /// Another name of an earlier one.
    Link(usize),
}

#[derive(Debug, Clone)]
struct Entry {
    path: String,
    kind: Kind,
    mode: u32,
    owner: (u32, u32),
    mtime: (i64, u32),
    xattr: Option<Vec<u8>>,
}

fn kind() -> impl Strategy<Value = Kind> {
    prop_oneof![
        3 => Just(Kind::Directory),
        1 => Just(Kind::Opaque),
        4 => prop::collection::vec(any::<u8>(), 0..2000).prop_map(Kind::File),
        1 => (1_u64..300_000).prop_map(Kind::Sparse),
        2 => "[a-z./]{1,120}".prop_map(Kind::Symlink),
        1 => Just(Kind::Fifo),
        2 => Just(Kind::Whiteout),
        2 => any::<usize>().prop_map(Kind::Link),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    let path = prop_oneof![
        5 => "[abc](/[abc]){0,3}",
        1 => "[a-z]{120}/[é \n]{1,9}",
    ];
    (
        path,
        kind(),
        0_u32..0o10000,
        (0_u32..3_000_000_000, 0_u32..70_000),
        (
            -5_i64..2_000_000_000,
            prop_oneof![Just(0_u32), 0_u32..1_000_000_000],
        ),
        prop::option::weighted(0.3, prop::collection::vec(any::<u8>(), 0..50)),
    )
        .prop_map(|(path, kind, mode, owner, mtime, xattr)| Entry {
            path,
            kind,
            mode,
            owner,
            mtime,
            xattr,
        })
}

/// Makes what can be made of them; what another entry is in the way of is left out.
fn make(root: &Path, entries: &[Entry]) {
    let mut made: Vec<&str> = Vec::new();
    for entry in entries {
        let path = root.join(&entry.path);
        if fs::symlink_metadata(&path).is_ok()
            || fs::create_dir_all(path.parent().unwrap()).is_err()
        {
            continue;
        }
        match &entry.kind {
            Kind::Directory | Kind::Opaque => fs::create_dir(&path).unwrap(),
            Kind::File(content) => fs::write(&path, content).unwrap(),
            Kind::Sparse(size) => fs::File::create(&path).unwrap().set_len(*size).unwrap(),
            Kind::Symlink(target) => symlink(target, &path).unwrap(),
            Kind::Fifo => mknod(&path, SFlag::S_IFIFO, Mode::empty(), 0).unwrap(),
            Kind::Whiteout => mknod(&path, SFlag::S_IFCHR, Mode::empty(), 0).unwrap(),
            Kind::Link(which) => {
                if made.is_empty() {
                    continue;
                }
                fs::hard_link(root.join(made[which % made.len()]), &path).unwrap();
                continue;
            }
        }
        if !matches!(entry.kind, Kind::Directory | Kind::Opaque | Kind::Whiteout) {
            made.push(&entry.path);
        }
        if matches!(entry.kind, Kind::Whiteout) {
            continue;
        }
        std::os::unix::fs::lchown(&path, Some(entry.owner.0), Some(entry.owner.1)).unwrap();
        if !matches!(entry.kind, Kind::Symlink(_)) {
            fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode)).unwrap();
        }
        if let Some(value) = &entry.xattr
            && matches!(entry.kind, Kind::File(_) | Kind::Directory)
        {
            rustix::fs::lsetxattr(&path, "user.test", value, XattrFlags::empty()).unwrap();
        }
        if matches!(entry.kind, Kind::Opaque) {
            let key = "trusted.overlay.opaque";
            rustix::fs::lsetxattr(&path, key, b"y", XattrFlags::empty()).unwrap();
        }
    }
    // Deepest first: what is made in a directory changes its time.
    let mut last: Vec<_> = entries.iter().collect();
    last.sort_by_key(|entry| std::cmp::Reverse(entry.path.matches('/').count()));
    for entry in last {
        let path = CString::new(root.join(&entry.path).as_os_str().as_bytes()).unwrap();
        let time = Timespec {
            tv_sec: entry.mtime.0,
            tv_nsec: entry.mtime.1.into(),
        };
        let times = Timestamps {
            last_access: time,
            last_modification: time,
        };
        let flags = rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
        let _ = rustix::fs::utimensat(rustix::fs::CWD, &path, &times, flags);
    }
}

fn packed(root: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    pack(root, None, None, &mut bytes, &|| true).unwrap();
    bytes
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]

    #[test]
    fn a_tree_that_was_packed_and_unpacked_packs_to_the_same_bytes(
        entries in prop::collection::vec(entry(), 0..40)
    ) {
        let dir = tempfile::tempdir().unwrap();
        let upper = dir.path().join("upper");
        fs::create_dir(&upper).unwrap();
        make(&upper, &entries);
        // A root's own time is nothing that an unpacked layer has.
        fs::File::open(&upper).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
        let store = Store::open(&dir.path().join("images")).unwrap();
        let layer = store.author(&[], &upper, None, &|| true).unwrap();
        let unpacked = store.unpacked(std::slice::from_ref(&layer.diff_id)).unwrap();
        prop_assert_eq!(packed(&unpacked[0]), packed(&upper));
        let blob = dir.path().join("images/blobs/sha256").join(layer.diff_id.hex());
        prop_assert_eq!(fs::read(blob).unwrap(), packed(&upper));
        let again = store.author(&[], &unpacked[0], None, &|| true).unwrap();
        prop_assert_eq!(again, layer);
    }
}

#[test]
fn what_an_overlay_changed_is_what_the_next_one_shows() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let base = dir.path().join("base");
    for path in ["kept", "gone", "emptied/inside"] {
        fs::create_dir_all(base.join(path)).unwrap();
        fs::write(base.join(path).join("file"), path).unwrap();
    }
    let bottom = store.author(&[], &base, None, &|| true).unwrap();
    let layers = store
        .unpacked(std::slice::from_ref(&bottom.diff_id))
        .unwrap();
    let rootfs = Rootfs::new(&dir.path().join("one"));
    rootfs.mount(&layers).unwrap();
    let merged = rootfs.merged();
    fs::remove_dir_all(merged.join("gone")).unwrap();
    fs::remove_dir_all(merged.join("emptied")).unwrap();
    fs::create_dir(merged.join("emptied")).unwrap();
    fs::write(merged.join("kept/new"), "new").unwrap();
    fs::write(merged.join("setuid"), "x").unwrap();
    chown(merged.join("setuid"), Some(7), Some(8)).unwrap();
    fs::set_permissions(merged.join("setuid"), fs::Permissions::from_mode(0o6755)).unwrap();
    rootfs.unmount().unwrap();
    let below = vec![bottom.diff_id.clone()];
    let top = store
        .author(&below, &rootfs.upper(), None, &|| true)
        .unwrap();
    rootfs.remove().unwrap();

    let both = vec![bottom.diff_id, top.diff_id.clone()];
    let rootfs = Rootfs::new(&dir.path().join("two"));
    rootfs.mount(&store.unpacked(&both).unwrap()).unwrap();
    let merged = rootfs.merged();
    let seen = |path: &str| fs::symlink_metadata(merged.join(path)).is_ok();
    let result = std::panic::catch_unwind(|| {
        assert!(!seen("gone") && seen("emptied") && !seen("emptied/inside"));
        assert!(seen("kept/file") && seen("kept/new"));
        let mode = fs::metadata(merged.join("setuid"))
            .unwrap()
            .permissions()
            .mode();
        assert_eq!(mode & 0o7777, 0o6755);
    });
    rootfs.remove().unwrap();
    result.unwrap();

    // An image of both, by a name, which moves to the next.
    let mut document = Document::empty();
    let event = Event::default();
    for layer in &both {
        document.push_layer(layer, &event).unwrap();
    }
    let name = "made:1".parse().unwrap();
    let image = store
        .register(&document, std::slice::from_ref(&name))
        .unwrap();
    assert_eq!(store.find(&name).unwrap().unwrap().layers.len(), 2);
    document.set("Cmd", serde_json::json!(["x"]));
    let next = store
        .register(&document, std::slice::from_ref(&name))
        .unwrap();
    assert_ne!(image.id, next.id);
    assert_eq!(store.find(&name).unwrap().unwrap().config.cmd, ["x"]);
    // One without a name is forgotten, one with a name is not.
    store.forget(&[image.id.clone(), next.id.clone()]).unwrap();
    assert!(store.get(&image.id).unwrap().is_none() && store.get(&next.id).unwrap().is_some());
}

#[test]
fn what_can_not_be_a_layer_is_refused_and_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let store = Store::open(&dir.path().join("images")).unwrap();
    let upper = dir.path().join("upper");
    fs::create_dir_all(&upper).unwrap();
    fs::write(upper.join(".wh.file"), "").unwrap();
    let refused = store.author(&[], &upper, None, &|| true).unwrap_err();
    assert!(
        matches!(refused, AuthorError::Pack(PackFault::Name { .. })),
        "{refused:?}"
    );
    fs::remove_file(upper.join(".wh.file")).unwrap();
    fs::write(upper.join("file"), "x").unwrap();
    let stopped = store.author(&[], &upper, None, &|| false).unwrap_err();
    assert!(
        matches!(stopped, AuthorError::Pack(PackFault::Interrupted)),
        "{stopped:?}"
    );
    let missing = store
        .author_root(&b"no tar at all, and longer than nothing"[..])
        .unwrap_err();
    assert!(matches!(missing, AuthorError::Layer { .. }), "{missing:?}");
    let mut document = Document::empty();
    let nowhere = godwit_types::Digest::from_sha256([9; 32]);
    document.push_layer(&nowhere, &Event::default()).unwrap();
    assert!(store.register(&document, &[]).is_err());
    for part in ["tmp", "layers", "blobs/sha256"] {
        let path = dir.path().join("images").join(part);
        assert_eq!(fs::read_dir(path).unwrap().count(), 0, "{part}");
    }
    assert!(store.list().unwrap().is_empty());
}
