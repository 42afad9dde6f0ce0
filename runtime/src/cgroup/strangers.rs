//! Which of a container's processes came into it from outside, as `exec` puts them there: CRIU
//! walks from the container's init and would not see them.

use std::{collections::BTreeSet, fs};

/// A process as `/proc/PID/stat` has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Task {
    pid: i32,
    parent: i32,
    session: i32,
}

/// Of the group's processes those whose parent is not in the group, without the init, and whoever
/// shares a session with one of them. What made a session of its own in the container is not
/// among them: once its parent has ended it is the init's.
pub fn strangers(pids: &[i32], init: i32) -> Vec<i32> {
    let tasks: Vec<Task> = pids.iter().filter_map(|pid| look(*pid)).collect();
    find(&tasks, init)
}

fn look(pid: i32) -> Option<Task> {
    parse(pid, &fs::read_to_string(format!("/proc/{pid}/stat")).ok()?)
}

/// The name may have anything in it: what counts begins after the last bracket.
fn parse(pid: i32, stat: &str) -> Option<Task> {
    let (_, rest) = stat.rsplit_once(')')?;
    let mut fields = rest.split_ascii_whitespace();
    let state = fields.next()?;
    let parent = fields.next()?.parse().ok()?;
    let session = fields.nth(1)?.parse().ok()?;
    (state != "Z").then_some(Task {
        pid,
        parent,
        session,
    })
}

fn find(tasks: &[Task], init: i32) -> Vec<i32> {
    let members: BTreeSet<i32> = tasks.iter().map(|task| task.pid).collect();
    let outside = |task: &&Task| task.pid != init && !members.contains(&task.parent);
    let own = tasks
        .iter()
        .find(|task| task.pid == init)
        .map(|task| task.session);
    let sessions: BTreeSet<i32> = tasks
        .iter()
        .filter(outside)
        .map(|task| task.session)
        .filter(|session| Some(*session) != own)
        .collect();
    tasks
        .iter()
        .filter(|task| outside(task) || sessions.contains(&task.session))
        .filter(|task| task.pid != init)
        .map(|task| task.pid)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn task(pid: i32, parent: i32, session: i32) -> Task {
        Task {
            pid,
            parent,
            session,
        }
    }

    #[test]
    fn whoever_has_a_parent_outside_is_a_stranger_with_its_session() {
        let tasks = [
            task(10, 1, 10),
            task(11, 10, 10),
            // An exec, its child, and what that made a daemon.
            task(20, 2, 20),
            task(21, 20, 20),
            task(22, 21, 22),
        ];
        assert_eq!(find(&tasks, 10), [20, 21]);
        assert_eq!(find(&tasks[..2], 10), Vec::<i32>::new());
    }

    #[test]
    fn names_with_brackets_and_the_dead_are_no_trouble() {
        assert_eq!(parse(7, "7 (a) b) S 3 7 6 0 -1"), Some(task(7, 3, 6)));
        assert_eq!(parse(7, "7 (x) Z 3 7 6 0 -1"), None);
        assert_eq!(parse(7, ""), None);
    }
}
