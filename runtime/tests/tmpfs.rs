//! `godwit-tar` against GNU tar, with the arguments that CRIU gives: what either writes, the
//! other reads, and nothing is different afterwards.

use std::{
    fs::{self, File},
    io::Write,
    path::Path,
    process::{Command, Stdio},
};

use flate2::{Compression, write::GzEncoder};

const OURS: &str = env!("CARGO_BIN_EXE_godwit-tar");
const GNU: &str = "tar";

fn is_root() -> bool {
    let root = nix::unistd::geteuid().is_root();
    if !root {
        println!("skipped: needs root to make devices");
    }
    root
}

fn sh(dir: &Path, script: &str) -> String {
    let output = Command::new("sh")
        .args(["-ec", script])
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{script}: {output:?}");
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// As `tmpfs_dump` of CRIU does it: the mount is standard input.
fn create(tar: &str, dir: &Path, archive: &Path) {
    let status = Command::new(tar)
        .args(["--create", "--gzip", "--no-unquote", "--no-wildcards"])
        .args(["--one-file-system", "--check-links"])
        .args(["--preserve-permissions", "--sparse", "--numeric-owner"])
        .args(["--directory", "/proc/self/fd/0", "."])
        .stdin(File::open(dir).unwrap())
        .stdout(File::create(archive).unwrap())
        .status()
        .unwrap();
    assert!(status.success(), "{tar}");
}

/// As `tmpfs_restore` does it: the archive is standard input.
fn extract(tar: &str, archive: &Path, dir: &Path) -> (bool, String) {
    let output = Command::new(tar)
        .args(["--extract", "--gzip", "--no-unquote", "--no-wildcards"])
        .arg("--directory")
        .arg(dir)
        .stdin(File::open(archive).unwrap())
        .stdout(Stdio::null())
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    (output.status.success(), text)
}

/// All that a tar keeps, a line each.
fn listing(dir: &Path) -> String {
    sh(
        dir,
        "find . ! -type s ! -type d -printf '%P %y %m %U:%G %n %s %T@ %l ' \
             -exec stat -c %t:%T {} \\; | sed 's/\\.0000000000 / /' | sort; \
         find . -type d -printf '%P %y %m %U:%G %Ts\\n' | sort; \
         find . -type f -exec sha256sum {} + | sort; find . -type f -printf '%P %b\\n' | sort",
    )
}

fn fill(dir: &Path) {
    let long = "n".repeat(200);
    sh(
        dir,
        &format!(
            "mknod null c 1 3; chmod 666 null; mknod disk b 259 1048575; mkfifo fifo; \
             ln -s /proc/self/fd fd; ln -s ../../outside up; ln -s {long}/{long} far; \
             mkdir -p shm deep/{long}/{long}; chmod 1777 shm; echo x >deep/{long}/{long}/{long}; \
             echo text >file; chown 12:34 file; chmod 4751 file; ln file second; \
             chown 3000000000:3000000001 null; \
             printf 'a' >'odd \n\\n* name'; printf b >\"$(printf 'not\\377utf8')\"; \
             truncate -s 3M holes; printf data | dd of=holes bs=1 seek=1M conv=notrunc; \
             for i in $(seq 40); do printf $i | dd of=many bs=4k seek=$((i*3)) conv=notrunc; done; \
             truncate -s 1M empty; : >nothing; head -c 300000 /dev/urandom >random; \
             python3 -c 'import socket; socket.socket(socket.AF_UNIX).bind(\"sock\")' || :; \
             find . -exec touch -h -d @1234567890 {{}} +; chmod 700 .; chown 5:6 .; \
             touch -d @1111111111 .",
        ),
    );
}

#[test]
fn gnu_tar_and_ours_read_each_other() {
    if !is_root() {
        return;
    }
    let base = tempfile::tempdir_in("/dev/shm").unwrap();
    let from = base.path().join("from");
    fs::create_dir(&from).unwrap();
    fill(&from);
    let expected = listing(&from);
    assert!(expected.contains("null c 666") && expected.lines().count() > 30);
    for (writer, reader) in [(OURS, OURS), (OURS, GNU), (GNU, OURS), (GNU, GNU)] {
        let archive = base.path().join("archive");
        create(writer, &from, &archive);
        let to = base.path().join("to");
        fs::create_dir(&to).unwrap();
        let (done, text) = extract(reader, &archive, &to);
        assert!(done, "{writer} -> {reader}: {text}");
        let found = listing(&to);
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected, "{writer} -> {reader}");
        }
        assert_eq!(found.len(), expected.len(), "{writer} -> {reader}");
        fs::remove_dir_all(&to).unwrap();
    }
}

#[test]
fn another_file_system_is_only_a_directory() {
    if !is_root() {
        return;
    }
    let base = tempfile::tempdir_in("/dev/shm").unwrap();
    let from = base.path().join("from");
    let to = base.path().join("to");
    for dir in [&from.join("mounted"), &to] {
        fs::create_dir_all(dir).unwrap();
    }
    // In a mount namespace of its own, which ends with it.
    let archive = base.path().join("archive");
    sh(
        &from,
        &format!(
            "unshare -m sh -ec 'mount -t tmpfs none mounted; : >mounted/file; \
             {OURS} --create --gzip --no-unquote --no-wildcards --one-file-system --check-links \
             --preserve-permissions --sparse --numeric-owner --directory . . >{}'",
            archive.display()
        ),
    );
    let (done, text) = extract(OURS, &archive, &to);
    assert!(done, "{text}");
    assert_eq!(sh(&to, "find .").trim(), ".\n./mounted");
}

#[test]
fn what_criu_does_not_say_is_left_to_the_next_tar() {
    let base = tempfile::tempdir().unwrap();
    let link = base.path().join("tar");
    std::os::unix::fs::symlink(OURS, &link).unwrap();
    let path = format!(
        "{}:{}",
        base.path().display(),
        std::env::var("PATH").unwrap()
    );
    let output = Command::new(&link)
        .arg("--version")
        .env("PATH", &path)
        .output()
        .unwrap();
    assert!(String::from_utf8_lossy(&output.stdout).contains("GNU tar"));
    let output = Command::new(&link)
        .arg("--version")
        .env("PATH", base.path())
        .output()
        .unwrap();
    assert!(!output.status.success(), "it does not run itself for ever");
}

/// One entry of an archive that no honest side writes.
fn hostile(kind: tar::EntryType, path: &[u8], link: &[u8]) -> tar::Header {
    let mut header = tar::Header::new_gnu();
    header.set_entry_type(kind);
    header.as_old_mut().name[..path.len()].copy_from_slice(path);
    header.as_old_mut().linkname[..link.len()].copy_from_slice(link);
    header.set_size(if kind == tar::EntryType::Regular {
        4
    } else {
        0
    });
    header.set_mode(0o644);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    header
}

#[test]
fn nothing_is_made_outside() {
    use tar::EntryType::{Char, Link, Regular, Symlink};
    let base = tempfile::tempdir().unwrap();
    let outside = base.path().join("outside");
    fs::write(&outside, "safe").unwrap();
    let absolute = outside.as_os_str().as_encoded_bytes();
    let case = |entries: &[(tar::EntryType, &[u8], &[u8])]| {
        let archive = base.path().join("archive");
        let gzip = GzEncoder::new(File::create(&archive).unwrap(), Compression::fast());
        let mut builder = tar::Builder::new(gzip);
        for (kind, path, link) in entries {
            let content: &[u8] = if *kind == Regular { b"evil" } else { b"" };
            builder
                .append(&hostile(*kind, path, link), content)
                .unwrap();
        }
        let mut gzip = builder.into_inner().unwrap();
        gzip.flush().unwrap();
        gzip.finish().unwrap();
        let to = base.path().join("to");
        fs::create_dir(&to).unwrap();
        let (done, text) = extract(OURS, &archive, &to);
        assert!(!done, "{entries:?}");
        assert!(text.starts_with("Error (godwit-tar): "), "{text}");
        assert_eq!(fs::read(&outside).unwrap(), b"safe", "{entries:?}");
        assert_eq!(fs::read_dir(base.path()).unwrap().count(), 3);
        fs::remove_dir_all(&to).unwrap();
    };
    case(&[(Regular, b"../outside", b"")]);
    case(&[(Regular, absolute, b"")]);
    case(&[(Symlink, b"up", b".."), (Regular, b"up/outside", b"")]);
    case(&[(Link, b"in", b"../outside")]);
    case(&[(Link, b"in", absolute)]);
    case(&[(Symlink, b"up", b".."), (Link, b"in", b"up/outside")]);
    case(&[(Regular, b"./", b"")]);
    case(&[(Char, b"a/../../b", b"")]);
    // Written where the link is, not where it leads.
    let archive = base.path().join("archive");
    let gzip = GzEncoder::new(File::create(&archive).unwrap(), Compression::fast());
    let mut builder = tar::Builder::new(gzip);
    for header in [
        (Symlink, &b"out"[..], &b"../outside"[..]),
        (Regular, b"out", b""),
    ] {
        let content: &[u8] = if header.0 == Regular { b"evil" } else { b"" };
        builder
            .append(&hostile(header.0, header.1, header.2), content)
            .unwrap();
    }
    builder.into_inner().unwrap().finish().unwrap();
    let to = base.path().join("to");
    fs::create_dir(&to).unwrap();
    if nix::unistd::geteuid().is_root() {
        let (done, text) = extract(OURS, &archive, &to);
        assert!(done, "{text}");
        assert_eq!(fs::read(to.join("out")).unwrap(), b"evil");
    }
    assert_eq!(fs::read(&outside).unwrap(), b"safe");
}

#[test]
fn a_damaged_archive_is_refused() {
    let base = tempfile::tempdir().unwrap();
    let from = base.path().join("from");
    fs::create_dir(&from).unwrap();
    fs::write(from.join("file"), vec![7; 100_000]).unwrap();
    let archive = base.path().join("archive");
    create(OURS, &from, &archive);
    let bytes = fs::read(&archive).unwrap();
    let mut flipped = bytes.clone();
    let at = flipped.len() - 6;
    flipped[at] ^= 1;
    for damaged in [&bytes[..bytes.len() / 2], &flipped, b"", b"no gzip"] {
        fs::write(&archive, damaged).unwrap();
        let to = base.path().join("to");
        fs::create_dir(&to).unwrap();
        assert!(!extract(OURS, &archive, &to).0);
        fs::remove_dir_all(&to).unwrap();
    }
}
