//! Members that come and go, as real processes: what was answered is never lost, and who can't
//! take part is told why.

mod harness;

use std::{
    fs,
    path::Path,
    process::Command,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use godwit_proto::{
    control::{AddMemberRequest, MemberRequest, RemoveMembersRequest},
    failure::{self, Problem},
};
use godwit_types::{MemberRole, Refusal};
use harness::programs::*;

/// Writes all the time, to whichever member, and remembers what was answered.
struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<Mutex<Vec<String>>>,
    writer: Arc<Mutex<Writer>>,
    thread: std::thread::JoinHandle<()>,
}

impl Load {
    fn start(programs: &Programs) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(Mutex::new(Vec::new()));
        let writer = Arc::new(Mutex::new(programs.writer()));
        let (end, done, with) = (stop.clone(), answered.clone(), writer.clone());
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Runtime::new().unwrap();
            let mut number = 0;
            while !end.load(Ordering::Relaxed) {
                number += 1;
                let mut writer = with.lock().unwrap().clone();
                let member = format!("m{}", 1 + number % 7);
                let name = format!("load-{number}");
                if runtime.block_on(writer.write(&member, &name)).is_ok() {
                    done.lock().unwrap().push(name);
                }
                std::thread::sleep(Duration::from_millis(30));
            }
        });
        Self {
            stop,
            answered,
            writer,
            thread,
        }
    }

    /// There are others to write to.
    fn follow(&self, programs: &Programs) {
        *self.writer.lock().unwrap() = programs.writer();
    }

    fn count(&self) -> usize {
        self.answered.lock().unwrap().len()
    }

    /// Ends when some writes went well from here on.
    fn goes_on(&self) {
        let before = self.count();
        until("writes", || (self.count() > before + 3).then_some(()));
    }

    fn end(self) -> Vec<String> {
        self.stop.store(true, Ordering::Relaxed);
        self.thread.join().unwrap();
        self.answered.lock().unwrap().clone()
    }
}

#[test]
fn a_group_grows_to_five_and_shrinks_to_one_and_no_write_is_lost() {
    let mut group = Programs::start(1);
    let load = Load::start(&group);
    load.goes_on();

    // One that is added alone waits: two votes are no safer than one.
    let told = group.add("m2", "");
    assert_eq!(told.notes.len(), 1, "{told:?}");
    group.launch("m2");
    until("a learner with the log", || {
        let views = group.members();
        let second = views.iter().find(|view| view.id == 2)?;
        let waits = second.note.as_deref()?.contains("even");
        (second.role == MemberRole::Learner && waits).then_some(())
    });
    group.add("m3", "");
    group.launch("m3");
    group.voters(&["m1", "m2", "m3"]);
    load.follow(&group);
    load.goes_on();

    // The leader dies while two are added.
    group.add("m4", "");
    group.launch("m4");
    group.add("m5", "");
    let leader = group.leader();
    group.kill(&leader);
    group.launch("m5");
    load.goes_on();
    group.launch(&leader);
    group.voters(&["m1", "m2", "m3", "m4", "m5"]);
    load.follow(&group);

    // One is replaced while it is down.
    let follower = group.follower();
    group.kill(&follower);
    group.add("m6", &follower);
    group.launch("m6");
    let mut names: Vec<String> = (1..=6).map(|n| format!("m{n}")).collect();
    names.retain(|name| *name != follower);
    let now: Vec<&str> = names.iter().map(String::as_str).collect();
    group.voters(&now);
    load.follow(&group);
    load.goes_on();

    // The leader and another leave, twice. Their programs end.
    for _ in 0..2 {
        let leader = group.leader();
        let other = group.follower();
        group.remove(&[&leader, &other]);
        for name in [&leader, &other] {
            assert_eq!(group.ended(name), Some(1), "{}", group.said(name));
            assert!(
                group.said(name).contains("taken out"),
                "{}",
                group.said(name)
            );
        }
        names.retain(|name| *name != leader && *name != other);
        let now: Vec<&str> = names.iter().map(String::as_str).collect();
        group.voters(&now);
        load.goes_on();
    }
    assert_eq!(names.len(), 1);
    let written = load.end();
    let there = group.network_names();
    let lost: Vec<_> = written
        .iter()
        .filter(|name| !there.contains(name))
        .collect();
    assert!(
        lost.is_empty(),
        "of {} these are lost: {lost:?}",
        written.len()
    );
    println!("{} writes, none lost", written.len());
    // Also after the last one was started anew.
    group.kill(&names[0]);
    group.launch(&names[0]);
    assert_eq!(group.network_names().len(), there.len());
}

#[test]
fn one_that_was_taken_out_and_comes_back_is_refused_once_and_its_id_is_not_given_again() {
    let mut group = Programs::start(3);
    group.kill("m3");
    let told = group.remove(&["m3"]);
    assert_eq!(told.members.len(), 2);
    assert!(told.notes[0].contains("no safer"), "{told:?}");
    for _ in 0..2 {
        group.launch("m3");
        assert_eq!(group.ended("m3"), Some(1), "{}", group.said("m3"));
    }
    let said = group.said("m3");
    assert!(said.contains("was taken out of the group"), "{said}");
    assert!(said.contains("must not use its log any more"), "{said}");
    for other in ["m1", "m2"] {
        let said = group.said(other);
        let count = said.matches("member refused").count();
        assert!(count <= 1, "{other} says it {count} times");
    }
    // Under its name, but as another.
    fs::remove_dir_all(group.data("m3")).unwrap();
    let told = group.add("m3", "");
    assert_eq!(told.members.last().unwrap().id, 4);
    group.launch("m3");
    group.voters(&["m1", "m2", "m3"]);
}

fn refusal(answer: Result<impl Sized, tonic::Status>) -> Refusal {
    match failure::problem(&answer.err().unwrap()) {
        Some(Problem::Refused(refusal)) => refusal,
        other => panic!("{other:?}"),
    }
}

#[test]
fn what_would_stop_the_group_is_refused_with_the_reason() {
    let mut group = Programs::start(3);
    let leader = group.leader();
    let down = group.follower();
    group.kill(&down);
    until("one that is down", || {
        let views = group.members();
        views.iter().any(|view| !view.reachable).then_some(())
    });
    let healthy = group.follower();
    let mut control = group.control(&leader);
    let remove = |names: &[&str]| RemoveMembersRequest {
        names: names.iter().map(|name| (*name).to_owned()).collect(),
    };
    let answer = group
        .runtime
        .block_on(control.remove_members(remove(&[&healthy])));
    let text = refusal(answer).to_string();
    assert!(text.contains(&format!("without `{healthy}`")), "{text}");
    assert!(text.contains(&format!("`{down}` is down")), "{text}");
    let answer = group
        .runtime
        .block_on(control.remove_members(remove(&["m1", "m2", "m3"])));
    assert!(matches!(refusal(answer), Refusal::QuorumAtRisk { .. }));
    let answer = group
        .runtime
        .block_on(control.remove_members(remove(&["m9"])));
    assert!(matches!(refusal(answer), Refusal::UnknownMember { .. }));
    let mut add = |name: &str, address: &str| {
        let request = AddMemberRequest {
            name: name.to_owned(),
            address: address.to_owned(),
            replaces: String::new(),
        };
        refusal(group.runtime.block_on(control.add_member(request))).to_string()
    };
    assert!(add("m1", "127.0.0.1:1").contains("name is in use"));
    assert!(add("m4", &group.addresses["m1"].address).contains("address is in use by `m1`"));
    assert!(add("m4", "0.0.0.0:7400").contains("one machine"));
    assert!(add("m\u{1b}4", "127.0.0.1:1").contains("not valid"));
    let mut control = group.control(&leader);
    let request = MemberRequest { name: down.clone() };
    let answer = group.runtime.block_on(control.transfer_leader(request));
    assert!(matches!(refusal(answer), Refusal::CannotLead { .. }));
    // The one that is down may go.
    group.remove(&[&down]);
    assert_eq!(group.members().len(), 2);
}

#[test]
fn the_lead_is_handed_over_when_it_is_asked_for_and_when_the_leader_is_stopped() {
    let mut group = Programs::start(3);
    group.voters(&["m1", "m2", "m3"]);
    let next = group.follower();
    group.transfer(&next);
    assert_eq!(group.leader(), next);
    group.transfer(&next);
    assert_eq!(group.stop(&next), Some(0));
    assert!(group.said(&next).contains("handing the lead over"));
    assert_ne!(group.leader(), next);
}

#[test]
fn an_old_leader_that_wakes_up_answers_nothing_stale() {
    let mut group = Programs::start(3);
    group.write(3);
    let old = group.leader();
    group.running.get_mut(&old).unwrap().signal("STOP");
    assert_ne!(group.leader(), old);
    let before = group.network_names().len();
    let runtime = tokio::runtime::Runtime::new().unwrap();
    for round in 0..5 {
        // Asked while it sleeps: it answers in the moment in which it still thinks that it leads.
        let mut control = group.control(&old);
        let asked = runtime.spawn(async move { harness::networks(&mut control).await });
        let mut writer = group.writer();
        let others: Vec<String> = group
            .running
            .keys()
            .filter(|n| **n != old)
            .cloned()
            .collect();
        until("a write", || {
            let name = format!("fresh-{round}");
            let written = group
                .runtime
                .block_on(writer.write(&others[round % 2], &name));
            written.ok()
        });
        std::thread::sleep(Duration::from_millis(300));
        group.running.get_mut(&old).unwrap().signal("CONT");
        let answer = runtime.block_on(asked).unwrap();
        if let Ok(networks) = answer {
            assert!(networks.len() > before + round, "round {round} is stale");
        }
        if round < 4 {
            group.voters(&["m1", "m2", "m3"]);
            group.transfer(&old);
            group.running.get_mut(&old).unwrap().signal("STOP");
            assert_ne!(group.leader(), old);
        }
    }
}

/// Copies the log of one that does not run.
fn copy(from: &Path, to: &Path) {
    fs::create_dir_all(to).unwrap();
    fs::copy(from.join("raft.redb"), to.join("raft.redb")).unwrap();
}

#[test]
fn a_member_with_an_old_copy_of_its_log_is_refused_until_it_is_added_again() {
    let mut group = Programs::start(3);
    group.write(2);
    let old = group.follower();
    assert_eq!(group.stop(&old), Some(0));
    let backup = group.dir.path().join("backup");
    copy(&group.data(&old), &backup);
    group.launch(&old);
    group.voters(&["m1", "m2", "m3"]);
    group.write(5);
    until("all of the log everywhere", || {
        group.members().iter().all(|m| m.behind == 0).then_some(())
    });
    assert_eq!(group.stop(&old), Some(0));
    copy(&backup, &group.data(&old));
    for reason in ["it is an old copy, or was lost", "must not use its log"] {
        group.launch(&old);
        assert_eq!(group.ended(&old), Some(1), "{}", group.said(&old));
        assert!(group.said(&old).contains(reason), "{}", group.said(&old));
    }
    // The group did without it, and takes it again as another.
    group.write(2);
    group.remove(&[&old]);
    fs::remove_dir_all(group.data(&old)).unwrap();
    group.add(&old, "");
    group.launch(&old);
    group.voters(&["m1", "m2", "m3"]);
}

#[test]
fn a_member_without_its_log_is_refused_even_by_the_next_leader() {
    let mut group = Programs::start(3);
    group.voters(&["m1", "m2", "m3"]);
    group.write(2);
    let lost = group.follower();
    let leader = group.leader();
    let id = group.addresses[&lost].id;
    until("what it has to be written down", || {
        let said = group.said(&leader);
        let mut lines = said.lines();
        let marked = |line: &str| {
            line.contains("known to have so much") && line.contains(&format!("({id}, "))
        };
        lines.any(marked).then_some(())
    });
    group.write(2);
    group.kill(&lost);
    fs::remove_dir_all(group.data(&lost)).unwrap();
    assert_eq!(group.stop(&leader), Some(0));
    group.launch(&leader);
    group.leader();
    group.launch(&lost);
    assert_eq!(group.ended(&lost), Some(1), "{}", group.said(&lost));
    assert!(
        group.said(&lost).contains("was lost"),
        "{}",
        group.said(&lost)
    );
}

#[test]
fn a_member_with_the_log_of_another_group_is_refused_and_harms_nobody() {
    let mut group = Programs::start(3);
    group.write(2);
    for name in ["m1", "m2", "m3"] {
        group.stop(name);
    }
    for name in ["m1", "m2"] {
        fs::remove_dir_all(group.data(name)).unwrap();
        group.launch(name);
    }
    group.leader();
    group.launch("m3");
    assert_eq!(group.ended("m3"), Some(1), "{}", group.said("m3"));
    let said = group.said("m3");
    assert!(said.contains("has the log of another group"), "{said}");
    group.write(2);
    // And what is not even of this member.
    group.kill("m2");
    copy(&group.data("m3"), &group.data("m2").join("other"));
    let mut command = group.command("m2", &group.data("m2").join("other"));
    let ended = command.status().unwrap();
    assert_eq!(ended.code(), Some(1));
    let said = group.said("m2");
    assert!(
        said.contains("`m3` (id 3) of cluster `blue`, not of member `m2`"),
        "{said}"
    );
}

#[test]
fn a_log_that_was_cut_off_does_not_start() {
    let mut group = Programs::start(3);
    group.write(2);
    let torn = group.follower();
    group.kill(&torn);
    let log = group.data(&torn).join("raft.redb");
    let bytes = fs::read(&log).unwrap();
    fs::write(&log, &bytes[..bytes.len() / 2]).unwrap();
    group.launch(&torn);
    assert_eq!(group.ended(&torn), Some(1));
    let said = group.said(&torn);
    assert!(
        said.contains("can't use the log") && said.contains("raft.redb"),
        "{said}"
    );
    group.write(2);
}

#[test]
fn a_member_whose_disk_is_full_stops_and_goes_on_when_there_is_room() {
    let mut group = Programs::start(3);
    let full = group.follower();
    group.stop(&full);
    let disk = group.dir.path().join("disk");
    fs::create_dir_all(&disk).unwrap();
    let mounted = Command::new("mount")
        .args(["-t", "tmpfs", "-o", "size=3m", "tmpfs"])
        .arg(&disk)
        .status();
    if !mounted.is_ok_and(|status| status.success()) {
        println!("skipped: a small tmpfs can't be mounted here, which needs root");
        return;
    }
    let _unmount = Mounted(&disk);
    let data = disk.join("data");
    fs::create_dir_all(&data).unwrap();
    // With its holes: what redb has not used yet takes no room, and finds none later.
    let copied = Command::new("cp")
        .arg("--sparse=always")
        .arg(group.data(&full).join("raft.redb"))
        .arg(&data)
        .status();
    assert!(copied.unwrap().success());
    let command = group.command(&full, &data);
    group.spawn(&full, command);
    group.voters(&["m1", "m2", "m3"]);
    // Everything but a little is taken.
    let filler = disk.join("filler");
    let _ = fs::write(&filler, vec![7; 4 << 20]);
    let before = group.network_names().len();
    let mut writes = 0;
    let code = loop {
        group.write(4);
        writes += 4;
        let program = group.running.contains_key(&full);
        assert!(program && writes < 400, "{}", group.said(&full));
        if group.said(&full).contains("this member stops") {
            break group.ended(&full);
        }
    };
    assert_eq!(code, Some(1));
    let said = group.said(&full);
    assert!(said.contains("the disk under the log is full"), "{said}");
    // The others went on, and it does, with everything.
    assert_eq!(group.network_names().len(), before + writes);
    fs::remove_file(&filler).unwrap();
    let command = group.command(&full, &data);
    group.spawn(&full, command);
    group.voters(&["m1", "m2", "m3"]);
    until("the log of the others", || {
        group.members().iter().all(|m| m.behind == 0).then_some(())
    });
    group.transfer(&full);
    assert_eq!(group.network_names().len(), before + writes);
    group.stop(&full);
}

struct Mounted<'a>(&'a Path);

impl Drop for Mounted<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0).status();
    }
}
