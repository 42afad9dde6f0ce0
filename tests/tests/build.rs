//! Images that are built: the same tree as `buildah` makes, a cache that follows content, errors
//! that name their line, and containers of them that move.

use std::{
    fs,
    io::Write,
    os::unix::fs::{PermissionsExt, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use godwit_tests::{
    command::{run, sh},
    scene::host_of,
    testbed::{Cluster, Options, list, wait_for},
    tree,
};
use serde_json::Value;

/// A build under the load of a small machine.
const PATIENCE: Duration = Duration::from_secs(60);
/// Two builds of the same are then the same, on any host.
const OF_NO_TIME: &str = "SOURCE_DATE_EPOCH=1000000000";

fn cluster(hosts: u8) -> Cluster {
    Cluster::start(Options {
        hosts,
        members: 1,
        ..Options::default()
    })
    .unwrap()
}

fn with_busybox(hosts: u8) -> Cluster {
    let cluster = cluster(hosts);
    cluster
        .load_image(&cluster.programs().image("busybox"))
        .unwrap();
    cluster
}

fn write(path: &Path, text: impl AsRef<[u8]>, mode: u32) {
    fs::create_dir_all(path.parent().unwrap()).unwrap();
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).unwrap();
}

/// A directory of this cluster with these files.
fn context(cluster: &Cluster, name: &str, files: &[(&str, &str)]) -> PathBuf {
    let dir = cluster.dir().join(name);
    fs::create_dir_all(&dir).unwrap();
    for (path, text) in files {
        write(&dir.join(path), text, 0o644);
    }
    dir
}

/// What a build says, as values.
fn build(cluster: &Cluster, arguments: &[&str]) -> Vec<Value> {
    let mut all = vec!["--format", "json", "build"];
    all.extend(arguments);
    let text = cluster.ok(&all).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

fn refused(cluster: &Cluster, arguments: &[&str]) -> String {
    cluster.refused(&[&["build"], arguments].concat()).unwrap()
}

fn image(events: &[Value]) -> String {
    let last = events.last().unwrap();
    assert_eq!(last["event"], "built", "{last}");
    last["image"]["id"].as_str().unwrap().to_owned()
}

/// The texts of the steps, and whether each was found in the cache.
fn steps(events: &[Value]) -> Vec<(String, bool)> {
    let mut steps: Vec<(String, bool)> = Vec::new();
    for event in events {
        match event["event"].as_str().unwrap() {
            "step" => steps.push((event["text"].as_str().unwrap().to_owned(), false)),
            "cached" => steps.last_mut().unwrap().1 = true,
            _ => {}
        }
    }
    steps
}

fn cached(events: &[Value]) -> Vec<String> {
    let steps = steps(events).into_iter();
    steps
        .filter(|(_, cached)| *cached)
        .map(|(text, _)| text)
        .collect()
}

fn done(events: &[Value]) -> Vec<String> {
    let steps = steps(events).into_iter();
    steps
        .filter(|(text, cached)| !cached && !text.starts_with("FROM"))
        .map(|(text, _)| text)
        .collect()
}

const THREE_STAGES: &str = r#"# escape=\
ARG BASE=busybox
FROM ${BASE} AS builder
ARG GREETING=hello
WORKDIR /src
COPY app/ ./
# A comment in the middle \
RUN mkdir -p out/deep && cp main.sh out/ \
    # and in a continued line
    && echo "$GREETING, ${BASE:-nothing}" > out/greeting \
    && chmod 4755 out/main.sh && ln out/greeting out/deep/hard \
    && ln -s ../greeting out/deep/soft && chown 1000:33 out/deep
RUN ["/bin/sh", "-c", "rm /bin/vi && rm -rf /home && mkdir /home && touch /home/new && mkfifo /srv/pipe"]

FROM busybox AS assets
ADD assets.tar.gz plain.txt /assets/
SHELL ["/bin/ash", "-c"]
RUN echo made > /assets/made

FROM builder AS final
ENV APP=/opt/app MODE="a b"
COPY --from=builder --chown=user:www-data /src/out ${APP}/
COPY --from=assets /assets /opt/assets
COPY --chown=1000:1000 --chmod=0640 app/sub/data.txt app/*.sh /data/
COPY ["app/with blank", "/data/one file"]
COPY app/sub /new/place
USER user
RUN id -un > /tmp/who && echo "$MODE" > /tmp/mode
USER root
WORKDIR /var/run/work
RUN rm -rf /opt/assets/sub && mkdir /opt/assets/sub && touch /opt/assets/sub/again
LABEL a=b "c d"='e f'
EXPOSE 80 53/udp
VOLUME /data
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=5s CMD true
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["sleep 1000"]
"#;

fn three_stages(cluster: &Cluster) -> PathBuf {
    let dir = context(
        cluster,
        "three",
        &[
            ("Dockerfile", THREE_STAGES),
            (".dockerignore", "**/*.log\n!app/keep.log\nsecret\n"),
            ("app/sub/data.txt", "data"),
            ("app/with blank", "blank"),
            ("app/a.log", "ignored"),
            ("app/keep.log", "kept"),
            ("secret/key", "ignored"),
            ("plain.txt", "plain"),
        ],
    );
    write(&dir.join("app/main.sh"), "#!/bin/sh\necho main\n", 0o755);
    symlink("sub/data.txt", dir.join("app/link")).unwrap();
    symlink("/etc/shadow", dir.join("app/outside")).unwrap();
    // An archive with what a layer has to keep.
    let assets = cluster.dir().join("assets");
    write(&assets.join("sub/file"), "in an archive", 0o600);
    write(&assets.join("ping"), "capable", 0o755);
    let capability = [1, 0, 0, 2, 0, 32, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let flags = rustix::fs::XattrFlags::empty();
    rustix::fs::setxattr(
        assets.join("ping"),
        "security.capability",
        &capability,
        flags,
    )
    .unwrap();
    symlink("sub/file", assets.join("soft")).unwrap();
    std::os::unix::fs::chown(assets.join("sub"), Some(33), Some(5)).unwrap();
    sh(&format!(
        "tar -C {} --xattrs --xattrs-include=* -czf {} .",
        assets.display(),
        dir.join("assets.tar.gz").display()
    ))
    .unwrap();
    dir
}

/// Paths that each container has its own of; and the root itself, which no layer of the image
/// describes.
const OWN: [&str; 7] = [
    ".",
    "dev",
    "proc",
    "sys",
    "etc/hosts",
    "etc/hostname",
    "etc/resolv.conf",
];

#[test]
fn three_stages_make_the_tree_that_buildah_makes_and_its_container_moves() {
    let cluster = with_busybox(2);
    let dir = three_stages(&cluster);
    let path = dir.display().to_string();
    let ids: Vec<_> = ["h1", "h2"]
        .iter()
        .map(|host| {
            let arguments = [
                "-t",
                "three:1",
                "--host",
                host,
                "--build-arg",
                OF_NO_TIME,
                &path,
            ];
            image(&build(&cluster, &arguments))
        })
        .collect();
    assert_eq!(ids[0], ids[1], "the same build on two hosts");

    let mark =
        "i=0; while :; do i=$((i+1)); echo $i > /data/mark; cat /opt/app/greeting; sleep 0.1; done";
    cluster
        .ok(&[
            "run", "-d", "--name", "built", "--host", "h1", "three:1", mark,
        ])
        .unwrap();
    cluster
        .wait_for_log("built", |text| text.contains("hello, nothing"))
        .unwrap();
    let pid = |cluster: &Cluster| cluster.processes_of(&cluster.id("built").unwrap()).unwrap()[0];
    let skip = [&OWN[..], &["data/mark"]].concat();
    let root = |pid: i32| PathBuf::from(format!("/proc/{pid}/root"));
    let ours = tree::read(&root(pid(&cluster)), &skip).unwrap();

    let theirs = buildah(&cluster, &dir, |mount| tree::read(mount, &skip).unwrap());
    assert!(theirs.len() > 300, "buildah made {} entries", theirs.len());
    let different = tree::differences(&ours, &theirs);
    assert!(different.is_empty(), "ours | buildah's: {different:#?}");
    assert!(
        ours["opt/app/main.sh"].contains(" 4755 1000:33"),
        "{}",
        ours["opt/app/main.sh"]
    );
    assert!(ours["opt/assets/ping"].contains("security.capability="));
    assert!(!ours.contains_key("opt/assets/sub/file") && !ours.contains_key("bin/vi"));

    cluster.migrate("built", 2).unwrap();
    assert_eq!(host_of(&cluster, "built").unwrap(), "h2");
    let before = cluster.logs("built").unwrap().len();
    cluster
        .wait_for_log("built", |text| text.len() > before)
        .unwrap();
    let moved = tree::read(&root(pid(&cluster)), &skip).unwrap();
    assert_eq!(tree::differences(&ours, &moved), Vec::<String>::new());
}

/// Builds the same with buildah and hands out where its root is mounted.
fn buildah<T>(cluster: &Cluster, context: &Path, look: impl FnOnce(&Path) -> T) -> T {
    let dir = cluster.dir().join("buildah");
    let tool = |arguments: &[&str]| {
        let mut command = Command::new("buildah");
        command
            .arg("--root")
            .arg(dir.join("root"))
            .arg("--runroot")
            .arg(dir.join("run"))
            .args(["--storage-driver", "vfs"])
            .args(arguments);
        run(command).unwrap().trim().to_owned()
    };
    let archive = format!(
        "docker-archive:{}",
        cluster.programs().image("busybox").display()
    );
    let base = tool(&["pull", "-q", &archive]);
    tool(&["tag", &base, "localhost/busybox:latest"]);
    let path = context.display().to_string();
    let options = [
        "bud",
        "-q",
        "--isolation",
        "chroot",
        "--pull-never",
        "--format",
        "docker",
    ];
    tool(&[&options[..], &["--layers=false", "-t", "peer", &path]].concat());
    let container = tool(&["from", "--pull-never", "peer"]);
    let mount = tool(&["mount", &container]);
    let seen = look(Path::new(&mount));
    tool(&["umount", &container]);
    tool(&["rm", &container]);
    seen
}

#[test]
fn the_cache_follows_what_is_copied_and_not_its_times() {
    let cluster = with_busybox(1);
    let dir = context(
        &cluster,
        "cached",
        &[
            (
                "Dockerfile",
                "FROM busybox AS one\nRUN echo one > /one\nCOPY a /a\nRUN cat /a > /b\n\
                 FROM busybox\nWORKDIR /w\nCOPY --from=one /b .\nARG X\nRUN echo $X > /x\nENV A=1",
            ),
            ("a", "first"),
        ],
    );
    let path = dir.display().to_string();
    let all = ["-t", "cached", &path];
    let first = build(&cluster, &all);
    assert_eq!(done(&first).len(), 6, "{first:#?}");

    // A new time and nothing else.
    write(&dir.join("a"), "first", 0o644);
    let again = build(&cluster, &all);
    assert_eq!(cached(&again).len(), 6, "{again:#?}");
    assert_eq!(image(&first), image(&again), "all of it was known");

    let other = build(&cluster, &["--build-arg", "X=2", &path]);
    assert_eq!(done(&other), ["RUN echo $X > /x"]);

    write(&dir.join("a"), "second", 0o644);
    let changed = build(&cluster, &all);
    assert_eq!(
        done(&changed),
        [
            "COPY a /a",
            "RUN cat /a > /b",
            "COPY --from=one /b .",
            "RUN echo $X > /x"
        ]
    );
    fs::set_permissions(dir.join("a"), fs::Permissions::from_mode(0o600)).unwrap();
    let mode = build(&cluster, &all);
    assert!(
        done(&mode).contains(&"COPY a /a".to_owned()),
        "{:?}",
        done(&mode)
    );

    let none = build(&cluster, &["--no-cache", &path]);
    assert!(cached(&none).is_empty(), "{none:#?}");
    let target = build(&cluster, &["--target", "one", &path]);
    assert_eq!(steps(&target).len(), 4);

    let said = cluster.ok(&["run", "cached", "cat", "/w/b"]);
    assert_eq!(said.unwrap(), "second");
    leaves_nothing(&cluster);
}

#[test]
fn a_build_that_fails_names_file_line_and_exit_code() {
    let cluster = with_busybox(1);
    let cases: [(&str, &[&str]); 12] = [
        (
            "FROM busybox\n\nRUN echo before; exit 7",
            &["Dockerfile:3: `RUN echo before; exit 7`", "exit code 7"],
        ),
        (
            "FROM busybox\nRUN nosuchprogram",
            &["Dockerfile:2:", "exit code 127"],
        ),
        (
            "FROM busybox\nRUN [\"/nope\"]",
            &["Dockerfile:2:", "exit code 127"],
        ),
        (
            "FROM busybox\nRUM x",
            &["Dockerfile:2: unknown instruction `RUM`"],
        ),
        (
            "FROM busybox\nCOPY ../x /",
            &["Dockerfile:2: `../x` is outside of the build context"],
        ),
        (
            "FROM busybox\nCOPY missing /",
            &[
                "Dockerfile:2: `COPY missing /`",
                "`missing` is not in the build context",
            ],
        ),
        ("FROM busybox\nCOPY *.zip /", &["Dockerfile:2:", "`*.zip`"]),
        (
            "FROM busybox\nCOPY --chown=nobodyelse a /",
            &["Dockerfile:2:", "nobodyelse"],
        ),
        (
            "FROM busybox\nADD https://example.com/a /",
            &["Dockerfile:2:", "download it"],
        ),
        (
            "FROM nosuchimage\n",
            &["Dockerfile:1:", "`nosuchimage` is not on this host"],
        ),
        (
            "FROM busybox\nCOPY --from=nostage /a /",
            &["Dockerfile:2:", "`nostage`"],
        ),
        ("FROM scratch\nENV A=1", &["has no files"]),
    ];
    for (number, (dockerfile, words)) in cases.iter().enumerate() {
        let name = format!("fails-{number}");
        let dir = context(&cluster, &name, &[("Dockerfile", dockerfile), ("a", "a")]);
        let text = refused(&cluster, &["-t", &name, &dir.display().to_string()]);
        for word in *words {
            assert!(text.contains(word), "{dockerfile}: no `{word}` in: {text}");
        }
    }
    let images = cluster.json(&["image", "ls"]).unwrap();
    assert_eq!(list(&images).len(), 1, "{images}");
    leaves_nothing(&cluster);
}

/// A symlink in the context leads into the image that is made, and nowhere on the host.
#[test]
fn a_hostile_context_touches_nothing() {
    let cluster = with_busybox(1);
    let outside = cluster.dir().join("outside");
    fs::write(&outside, "untouched").unwrap();
    let target = outside.display().to_string();
    let dockerfile = "FROM busybox\nCOPY . /c\n";
    let cases: [(&str, Vec<u8>); 4] = [
        (
            "../outside",
            tar(&[
                ("Dockerfile", b'0', dockerfile, ""),
                ("../outside", b'0', "bad", ""),
            ]),
        ),
        (
            &target,
            tar(&[
                ("Dockerfile", b'0', dockerfile, ""),
                (&target, b'0', "bad", ""),
            ]),
        ),
        (
            "way/outside",
            tar(&[
                ("Dockerfile", b'0', dockerfile, ""),
                ("way", b'2', "", cluster.dir().to_str().unwrap()),
                ("way/outside", b'0', "bad", ""),
            ]),
        ),
        (
            "disk",
            tar(&[("Dockerfile", b'0', dockerfile, ""), ("disk", b'4', "", "")]),
        ),
    ];
    for (word, bytes) in cases {
        let (success, text) = from_stdin(&cluster, &["build", "-"], &bytes);
        assert!(!success && text.contains(word), "{word}: {text}");
        assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");
    }
    // Links to the host's files: they stay links, or lead inside the context.
    let link = tar(&[
        ("Dockerfile", b'0', "FROM busybox\nCOPY out /c\n", ""),
        ("out", b'2', "", &target),
    ]);
    let (success, text) = from_stdin(&cluster, &["build", "-"], &link);
    assert!(
        !success && text.contains("`out` is not in the build context"),
        "{text}"
    );
    // A symlink in the image, on the way of a copy: what it leads to is the image's.
    let escape = format!(
        "FROM busybox\nRUN ln -s {} /way\nCOPY a /way/outside\n",
        cluster.dir().display()
    );
    let dir = context(&cluster, "escape", &[("Dockerfile", &escape), ("a", "bad")]);
    let _ = cluster
        .output(&["build", "-t", "escape", &dir.display().to_string()])
        .unwrap();
    assert_eq!(fs::read_to_string(&outside).unwrap(), "untouched");

    let (success, text) = from_stdin(
        &cluster,
        &["build", "-t", "fromtext", "-"],
        b"FROM busybox\nRUN true\n",
    );
    assert!(success, "{text}");
    leaves_nothing(&cluster);
}

#[test]
fn heredocs_triggers_and_limits_reach_their_steps() {
    let cluster = with_busybox(1);
    let base = context(
        &cluster,
        "base",
        &[(
            "Dockerfile",
            "FROM busybox\nONBUILD COPY trigger /t\nONBUILD RUN cat /t > /u\n",
        )],
    );
    build(&cluster, &["-t", "base", &base.display().to_string()]);
    let text = "FROM base\nARG NAME=n\nCOPY <<one.txt <<'two.txt' /h/\n$NAME\none.txt\n$NAME\ntwo.txt\n\
                RUN <<EOF\necho a > /a\necho \"$NAME\" >> /a\nEOF\n\
                RUN <<EOF\n#!/usr/bin/env sh\necho $0 > /script\nEOF\n\
                RUN cat <<A > /cat\n${NAME}\nA\n\
                RUN ip addr show eth0 > /net && ! ping -c 1 -w 1 192.0.2.1\n\
                RUN --network=none ! ip addr show eth0 && seq 1 20000\n\
                HEALTHCHECK NONE\nCMD cat /h/one.txt /h/two.txt /a /cat /u; grep -c 198.19.240 /net\n";
    let dir = context(
        &cluster,
        "uses",
        &[("Dockerfile", text), ("trigger", "triggered\n")],
    );
    let events = build(
        &cluster,
        &[
            "-t",
            "uses",
            "--pids-limit",
            "50",
            "-m",
            "64m",
            &dir.display().to_string(),
        ],
    );
    // All of what a step says comes, in its order.
    let output: String = events
        .iter()
        .filter(|event| event["event"] == "output" && event["stream"] == "stdout")
        .filter_map(|event| event["text"].as_str())
        .collect();
    let numbers: Vec<_> = (1..=20_000).map(|number| number.to_string()).collect();
    assert!(
        output.ends_with(&(numbers.join("\n") + "\n")),
        "{} bytes",
        output.len()
    );
    let said = cluster.ok(&["run", "uses"]).unwrap();
    assert_eq!(
        said.lines().collect::<Vec<_>>(),
        ["n", "$NAME", "a", "n", "n", "triggered", "1"]
    );

    // More than it may have.
    let greedy = context(
        &cluster,
        "greedy",
        &[(
            "Dockerfile",
            "FROM busybox\nRUN head -c 200m /dev/zero | tail -c 200m > /dev/null\n",
        )],
    );
    let path = greedy.display().to_string();
    let text = refused(&cluster, &["-m", "32m", &path]);
    assert!(text.contains("Dockerfile:2:"), "{text}");
    leaves_nothing(&cluster);
}

#[test]
fn a_build_that_is_interrupted_leaves_nothing() {
    let cluster = with_busybox(1);
    let dir = context(
        &cluster,
        "long",
        &[(
            "Dockerfile",
            "FROM busybox\nRUN echo started; sleep 100000\n",
        )],
    );
    let log = cluster.dir().join("long.log");
    let mut child = cluster
        .godwit(&["build", "-t", "long", &dir.display().to_string()])
        .stdin(Stdio::null())
        .stderr(fs::File::create(&log).unwrap())
        .spawn()
        .unwrap();
    let said = || fs::read_to_string(&log).unwrap();
    wait_for("the step", PATIENCE, || said().contains("#2 started")).unwrap();
    let pid = nix::unistd::Pid::from_raw(child.id() as i32);
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(status.code(), Some(130), "{}", said());
    leaves_nothing(&cluster);
    let images = cluster.json(&["image", "ls"]).unwrap();
    assert_eq!(list(&images).len(), 1, "{images}");
}

/// No container of a step, no directory of a build, no mount of one.
fn leaves_nothing(cluster: &Cluster) {
    let work = cluster.dir().join("h1/data/builds/work");
    let containers = cluster.dir().join("h1/data/containers");
    let is_empty = |path: &Path| match fs::read_dir(path) {
        Ok(mut entries) => entries.next().is_none(),
        Err(_) => true,
    };
    let running = || !list(&cluster.json(&["ps", "-a"]).unwrap()).is_empty();
    wait_for("the end of what builds had", PATIENCE, || {
        is_empty(&work) && (running() || is_empty(&containers))
    })
    .unwrap_or_else(|error| {
        panic!(
            "{error}: {:?}",
            sh(&format!("find {} -maxdepth 3", work.display()))
        )
    });
}

fn from_stdin(cluster: &Cluster, arguments: &[&str], bytes: &[u8]) -> (bool, String) {
    let mut child = cluster
        .godwit(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    // It may have seen enough before all was written.
    let _ = child.stdin.take().unwrap().write_all(bytes);
    let output = child.wait_with_output().unwrap();
    (
        output.status.success(),
        String::from_utf8_lossy(&output.stderr).into_owned(),
    )
}

/// A tar of path, type, content and link as they are: no library would write these.
fn tar(entries: &[(&str, u8, &str, &str)]) -> Vec<u8> {
    let mut bytes = Vec::new();
    for (name, kind, content, link) in entries {
        let mut header = tar::Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(tar::EntryType::new(*kind));
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(content.len() as u64);
        header.set_cksum();
        bytes.extend(header.as_bytes());
        bytes.extend(content.as_bytes());
        bytes.resize(bytes.len().next_multiple_of(512), 0);
    }
    bytes.extend([0; 1024]);
    bytes
}
