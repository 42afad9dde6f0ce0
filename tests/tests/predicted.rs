//! What is said before a move against what then happens, and a writer that is faster than the way.

use godwit_tests::{
    mover::{Mover, at_rest},
    scene::last_migration,
    testbed::{Cluster, Options, list},
};
use serde_json::Value;

/// The machine is shared, and daemons of a debug build are slow: what is printed tells more.
const FACTOR: f64 = 10.0;

fn cluster() -> Cluster {
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    cluster
}

/// What a dry run says, whether or not there is a reason against it.
fn dry_run(cluster: &Cluster, container: &str, to: &str, options: &[&str]) -> Value {
    let mut arguments = vec![
        "--format",
        "json",
        "migrate",
        "--dry-run",
        container,
        "--to",
        to,
    ];
    arguments.extend(options);
    let output = cluster.output(&arguments).unwrap();
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let estimate: Value = serde_json::from_str(&text).unwrap_or_else(|_| panic!("{output:?}"));
    let against = !list(&estimate["against"]).is_empty();
    assert_eq!(output.status.code(), Some(i32::from(against)), "{estimate}");
    estimate
}

#[test]
fn a_dry_run_says_about_how_long_the_freeze_will_be() {
    let cluster = cluster();
    for (name, rate) in [("idle", "--rate=0"), ("writing", "--rate=20")] {
        let mover = Mover::play(&cluster, name, 1, &[], &["--rss=128", rate]).unwrap();
        let options = ["--max-downtime", "5s"];
        let before = cluster.json(&["migration", "ls"]).unwrap();
        let said = dry_run(&cluster, name, "h2", &options);
        assert_eq!(list(&said["against"]).len(), 0, "{said}");
        assert_eq!(
            cluster.json(&["migration", "ls"]).unwrap(),
            before,
            "a dry run moved it"
        );
        mover.is_let_go(&cluster).unwrap();
        let mut arguments = vec!["migrate", name, "--to", "h2"];
        arguments.extend(options);
        let moved = cluster.json(&arguments).unwrap();
        let times = &moved["times"];
        let millis = |value: &Value| value.as_f64().unwrap() / 1000.0;
        let (dry, last, was) = (
            millis(&said["predicted_freeze_us"]),
            millis(&times["predicted_freeze_us"]),
            millis(&times["freeze_us"]),
        );
        println!(
            "{name}: dry run {dry:.0} ms, last round {last:.0} ms, freeze {was:.0} ms; rounds {} \
             and {}, bytes {} and {}",
            said["rounds"],
            list(&moved["rounds"]).len(),
            said["bytes"],
            times["bytes"]
        );
        for predicted in [dry, last] {
            let factor = (was / predicted).max(predicted / was);
            assert!(
                factor < FACTOR,
                "{predicted} ms were predicted, {was} ms it took"
            );
        }
        let bytes = times["bytes"].as_f64().unwrap() / said["bytes"].as_f64().unwrap();
        assert!((0.5..2.0).contains(&bytes), "{said}: {moved}");
        mover.verify(&cluster).unwrap();
        mover.dismiss(&cluster).unwrap();
        cluster.ok(&["rm", "-f", name]).unwrap();
    }
}

#[test]
fn a_writer_that_is_faster_than_the_way_stays_where_it_is_and_the_figures_are_said() {
    let cluster = cluster();
    let mover = Mover::play(&cluster, "fast", 1, &[], &["--rss=8", "--rate=50"]).unwrap();
    let rest = at_rest(&cluster, 2).unwrap();
    let speed = mover.goes_on(&cluster).unwrap();
    let slow = ["--max-bandwidth", "2M"];
    let said = dry_run(&cluster, "fast", "h2", &slow);
    println!("dry run: {said}");
    assert!(
        said["against"]
            .to_string()
            .contains("more than the 300 ms allowed"),
        "{said}"
    );

    let mut arguments = vec!["migrate", "fast", "--to", "h2"];
    arguments.extend(slow);
    let text = cluster.refused(&arguments).unwrap();
    println!("{text}");
    for word in [
        "`fast` was not moved",
        "pre-copy: host `h1`",
        "the freeze would still take",
        "more than the 300 ms allowed",
        "the container writes",
        "hint: raise `--max-downtime` or `--max-bandwidth`, or accept the freeze with `--mode stop`",
        "runs on h1 as before",
    ] {
        assert!(text.contains(word), "no `{word}` in: {text}");
    }
    let last = last_migration(&cluster).unwrap();
    assert_eq!(
        (last["phase"].as_str(), last["failure"].as_str()),
        (Some("aborted"), Some("not_converging"))
    );
    mover.is_untouched(&cluster, 1, speed).unwrap();
    rest.holds_again(&cluster).unwrap();
    assert_eq!(mover.verify(&cluster).unwrap(), 8 * 256);
    mover.dismiss(&cluster).unwrap();
}
