//! An image archive that can't be taken is named, with what is wrong in it, and nothing of it
//! stays. `runtime/tests/image` has every kind of bad archive; these come by the command line.

use std::fs;

use godwit_tests::{
    archive,
    testbed::{Cluster, Options, list},
};
use tar::{EntryType, Header};

/// An entry whose name is taken as it is: no library would write these.
fn entry(kind: EntryType, name: &str, link: &str, content: &[u8]) -> Vec<u8> {
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
    header.set_entry_type(kind);
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_size(content.len() as u64);
    header.set_cksum();
    let mut bytes = header.as_bytes().to_vec();
    bytes.extend(content);
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes
}

fn layer(entries: &[Vec<u8>]) -> Vec<u8> {
    let mut bytes = entries.concat();
    bytes.extend([0; 1024]);
    bytes
}

#[test]
fn an_archive_that_is_not_taken_is_named_with_what_is_wrong() {
    let cluster = Cluster::start(Options {
        hosts: 1,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    let outside = cluster.dir().join("outside");
    fs::write(&outside, "untouched").unwrap();
    let target = outside.display().to_string();

    let good = layer(&[entry(EntryType::Regular, "file", "", b"content")]);
    let whole = archive::of_layer("bad", &good).unwrap();
    let mut swapped = whole.clone();
    let at = find(&swapped, b"content");
    swapped[at] = b'C';
    let hostile = |entries: &[Vec<u8>]| archive::of_layer("bad", &layer(entries)).unwrap();
    let link = entry(
        EntryType::Symlink,
        "way",
        cluster.dir().to_str().unwrap(),
        b"",
    );
    let cases: [(&str, Vec<u8>, &[&str]); 6] = [
        (
            "truncated",
            whole[..whole.len() / 2].to_vec(),
            &["truncated", "layer.tar"],
        ),
        ("digest", swapped, &["sha256:"]),
        (
            "parent",
            hostile(&[entry(EntryType::Regular, "../outside", "", b"bad")]),
            &["../outside"],
        ),
        (
            "absolute",
            hostile(&[entry(EntryType::Regular, &target, "", b"bad")]),
            &[&target],
        ),
        (
            "symlinked",
            hostile(&[link, entry(EntryType::Regular, "way/outside", "", b"bad")]),
            &["way/outside"],
        ),
        (
            "device",
            hostile(&[entry(EntryType::Block, "disk", "", b"")]),
            &["disk"],
        ),
    ];
    for (name, bytes, words) in cases {
        let path = cluster.dir().join(format!("{name}.tar"));
        fs::write(&path, bytes).unwrap();
        let path = path.display().to_string();
        let output = cluster.output(&["image", "load", "-i", &path]).unwrap();
        let text = String::from_utf8_lossy(&output.stderr).into_owned();
        println!("{name}: {} {text}", output.status);
        assert!(!output.status.success(), "{name} was taken");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched", "{name}");
        for word in words.iter().chain(&["h1", path.as_str()]) {
            assert!(text.contains(word), "{name}: no `{word}` in: {text}");
        }
        assert!(text.contains("hint: "), "{text}");
        let images = cluster.json(&["image", "ls"]).unwrap();
        assert!(list(&images).is_empty(), "{name}: {images}");
    }
}

fn find(bytes: &[u8], what: &[u8]) -> usize {
    bytes
        .windows(what.len())
        .position(|window| window == what)
        .unwrap()
}

/// A whole archive is taken: what is refused above is refused for its fault.
#[test]
fn the_same_archive_without_a_fault_is_taken() {
    let cluster = Cluster::start(Options {
        hosts: 1,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    let good = layer(&[entry(EntryType::Regular, "file", "", b"content")]);
    let bytes = archive::of_layer("good", &good).unwrap();
    let path = cluster.dir().join("good.tar");
    fs::write(&path, bytes).unwrap();
    cluster.load_image(&path).unwrap();
    assert_eq!(list(&cluster.json(&["image", "ls"]).unwrap()).len(), 1);
}
