//! A container's processes, of `/proc`.

use std::{fs, time::Duration};

use godwit_types::Process;

/// The longest command that is told.
const COMMAND: usize = 4096;

/// Of these pids, as this host numbers them, in the container's order. One that has ended
/// meanwhile is left out.
pub fn processes(pids: &[i32]) -> Vec<Process> {
    let uptime = fs::read_to_string("/proc/uptime").unwrap_or_default();
    let uptime = uptime
        .split(' ')
        .next()
        .and_then(|text| text.parse::<f64>().ok())
        .map_or(Duration::ZERO, Duration::from_secs_f64);
    let mut inner = std::collections::BTreeMap::new();
    for pid in pids {
        let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        if let Some(number) = own_pid(&status) {
            inner.insert(*pid, (number, status));
        }
    }
    let mut found: Vec<Process> = inner
        .iter()
        .filter_map(|(pid, (number, status))| {
            let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
            let stat = Stat::parse(&stat)?;
            let line = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
            Some(Process {
                uid: field(status, "Uid:")?.parse().ok()?,
                pid: *number,
                // Whose parent is outside has none, as it sees it.
                parent: inner.get(&stat.parent).map_or(0, |(number, _)| *number),
                cpu_ms: millis(stat.ticks).as_millis() as u64,
                age_ms: uptime.saturating_sub(millis(stat.started)).as_millis() as u64,
                terminal: terminal(stat.terminal),
                command: command(&line, &stat.name),
            })
        })
        .collect();
    found.sort_by_key(|process| process.pid);
    found
}

/// The kernel's clock ticks in `/proc` are hundredths of a second on every architecture.
fn millis(ticks: u64) -> Duration {
    Duration::from_millis(ticks * 10)
}

fn field<'a>(status: &'a str, name: &str) -> Option<&'a str> {
    let line = status.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()
}

/// The pid in the innermost namespace.
fn own_pid(status: &str) -> Option<i32> {
    let line = status
        .lines()
        .find_map(|line| line.strip_prefix("NSpid:"))?;
    line.split_whitespace().last()?.parse().ok()
}

#[derive(Debug, PartialEq, Eq)]
struct Stat {
    name: String,
    parent: i32,
    terminal: i32,
    ticks: u64,
    started: u64,
}

impl Stat {
    fn parse(text: &str) -> Option<Self> {
        let (front, rest) = text.rsplit_once(')')?;
        let fields: Vec<&str> = rest.split_ascii_whitespace().collect();
        let number = |at: usize| fields.get(at)?.parse::<u64>().ok();
        Some(Self {
            name: front.split_once('(')?.1.to_owned(),
            parent: fields.get(1)?.parse().ok()?,
            terminal: fields.get(4)?.parse().ok()?,
            ticks: number(11)? + number(12)?,
            started: number(19)?,
        })
    }
}

/// Of its device number: 136 and up are pseudo-terminals.
fn terminal(device: i32) -> String {
    let device = device as u32;
    let (major, minor) = (device >> 8 & 0xfff, device & 0xff | device >> 12 & 0xfff00);
    match major {
        0 => String::new(),
        136..=143 => format!("pts/{}", (major - 136) * 256 + minor),
        _ => format!("{major}:{minor}"),
    }
}

fn command(line: &[u8], name: &str) -> String {
    let text = String::from_utf8_lossy(&line[..line.len().min(COMMAND)]).into_owned();
    let words: Vec<&str> = text.split('\0').filter(|word| !word.is_empty()).collect();
    match words.is_empty() {
        true => format!("[{name}]"),
        false => words.join(" "),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_kernel_says_of_a_process_is_understood() {
        let text = "12 (a b) S 3 4 5 34816 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20 21";
        let expected = Stat {
            name: "a b".into(),
            parent: 3,
            terminal: 34816,
            ticks: 25,
            started: 20,
        };
        assert_eq!(Stat::parse(text), Some(expected));
        assert_eq!(terminal(34816), "pts/0");
        assert_eq!(terminal(0), "");
        assert_eq!(own_pid("NSpid:\t44\t7\n"), Some(7));
        assert_eq!(command(b"sh\0-c\0x\0", "sh"), "sh -c x");
        assert_eq!(command(b"", "kworker"), "[kworker]");
    }

    #[test]
    fn this_process_is_found() {
        let found = processes(&[std::process::id() as i32, i32::MAX]);
        assert_eq!(found.len(), 1);
        assert!(!found[0].command.is_empty());
    }
}
