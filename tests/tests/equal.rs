//! Memory at the cut: while every task is stopped and everything has arrived, source and
//! destination hash all of it, page by page, and compare.

use std::fs;

use godwit_tests::testbed::{Cluster, Options};

/// What the source's agent says of each move in which memory was compared: tasks and pages.
fn compared(cluster: &Cluster, host: u8) -> Vec<(u64, u64)> {
    let log = fs::read_to_string(cluster.host(host).dir.join("agent.log")).unwrap();
    let number = |line: &str, name: &str| {
        let (_, rest) = line.split_once(&format!("{name}=")).unwrap();
        let digits: String = rest.chars().take_while(char::is_ascii_digit).collect();
        digits.parse().unwrap()
    };
    log.lines()
        .filter(|line| line.contains("memory is equal on both hosts"))
        .map(|line| (number(line, "tasks"), number(line, "pages")))
        .collect()
}

#[test]
fn every_page_is_equal_on_both_hosts_while_the_container_is_stopped() {
    let verify = |host| (host, "--verify-memory".to_owned());
    let cluster = Cluster::start(Options {
        hosts: 2,
        members: 1,
        agent_arguments: vec![verify(1), verify(2)],
        ..Options::default()
    })
    .unwrap();
    cluster.load_workload().unwrap();
    let rewritten = ["memory", "--rss=16", "--processes=4", "--rate=50"];
    for (name, workload, ready, tasks, pages) in [
        ("memory", &rewritten[..], "ready", 4, 16384),
        ("churn", &["churn"][..], "ready", 1, 200),
        ("family", &["family"][..], "3", 3, 30),
    ] {
        let mut arguments = vec!["run", "-d", "--name", name, "--host", "h1"];
        arguments.extend(["workload", "/bin/godwit-workload"]);
        arguments.extend(workload);
        cluster.ok(&arguments).unwrap();
        let begun = |text: &str| text.lines().any(|line| line.starts_with(ready));
        cluster.wait_for_log(name, begun).unwrap();
        for (from, to) in [(1, 2), (2, 1)] {
            let before = compared(&cluster, from).len();
            cluster.migrate(name, to).unwrap();
            let all = compared(&cluster, from);
            assert_eq!(all.len(), before + 1, "{name} was not compared");
            let (seen_tasks, seen_pages) = all[before];
            assert!(
                seen_tasks >= tasks && seen_pages >= pages,
                "{name}: {seen_tasks} tasks with {seen_pages} pages"
            );
        }
        cluster.ok(&["rm", "-f", name]).unwrap();
    }
}
