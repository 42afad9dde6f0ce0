//! Which mappings of a task are carried.

use std::{fs, io};

/// A range of addresses, in bytes; both ends are multiples of the page size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span {
    pub start: u64,
    pub end: u64,
}

impl Span {
    pub fn pages(self) -> u64 {
        (self.end - self.start) / super::PAGE
    }
}

/// The carried mappings of a task, in order; neighbours are not joined, since a mapping is what a
/// userfaultfd knows.
pub fn carried(pid: i32) -> io::Result<Vec<Span>> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    let mut spans: Vec<Span> = maps.lines().filter_map(parse).collect();
    if locks_memory(pid)? {
        // CRIU brings locked mappings itself. Only here, since asking costs a walk of all pages.
        let smaps = fs::read_to_string(format!("/proc/{pid}/smaps"))?;
        let locked = locked(&smaps);
        spans.retain(|span| !locked.contains(span));
    }
    Ok(spans)
}

/// `vdso` among a task's mappings.
pub fn vdso(pid: i32) -> io::Result<Span> {
    let maps = fs::read_to_string(format!("/proc/{pid}/maps"))?;
    maps.lines()
        .find(|line| line.ends_with("[vdso]"))
        .and_then(span)
        .ok_or_else(|| io::Error::new(io::ErrorKind::NotFound, "no vdso"))
}

fn locks_memory(pid: i32) -> io::Result<bool> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    Ok(status
        .lines()
        .find_map(|line| line.strip_prefix("VmLck:"))
        .is_some_and(|rest| !rest.trim_start().starts_with("0 ")))
}

/// The span of a line of `maps` that is carried.
fn parse(line: &str) -> Option<Span> {
    let mut fields = line.split_ascii_whitespace();
    let range = fields.next()?;
    let (mode, _offset, device, inode) = (
        fields.next()?,
        fields.next()?,
        fields.next()?,
        fields.next()?,
    );
    let private = mode.as_bytes().get(3) == Some(&b'p');
    if !private || inode != "0" || device != "00:00" {
        return None;
    }
    let carried = match fields.next() {
        None | Some("[heap]" | "[stack]") => true,
        Some(name) => name.starts_with("[anon:") || name.starts_with("[stack:"),
    };
    carried.then(|| span(range))?
}

fn span(text: &str) -> Option<Span> {
    let range = text.split(' ').next()?;
    let (start, end) = range.split_once('-')?;
    let number = |digits| u64::from_str_radix(digits, 16).ok();
    Some(Span {
        start: number(start)?,
        end: number(end)?,
    })
}

/// Mappings with the flag `lo`.
fn locked(smaps: &str) -> Vec<Span> {
    let mut found = Vec::new();
    let mut current = None;
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags:") {
            if flags.split_ascii_whitespace().any(|flag| flag == "lo") {
                found.extend(current);
            }
        } else if let Some(next) = span(line).filter(|_| line.as_bytes()[0].is_ascii_hexdigit()) {
            current = Some(next);
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_private_anonymous_memory_is_carried() {
        for (line, carried) in [
            ("7f0000000000-7f0000002000 rw-p 00000000 00:00 0 ", true),
            ("7f0000000000-7f0000002000 ---p 00000000 00:00 0 ", true),
            (
                "55d0c0000000-55d0c0021000 rw-p 00000000 00:00 0      [heap]",
                true,
            ),
            (
                "7ffc00000000-7ffc00021000 rw-p 00000000 00:00 0      [stack]",
                true,
            ),
            (
                "7f0000000000-7f0000002000 rw-p 00000000 00:00 0      [anon:arena]",
                true,
            ),
            (
                "7f0000000000-7f0000002000 rw-s 00000000 00:01 12     /dev/zero (deleted)",
                false,
            ),
            (
                "7f0000000000-7f0000002000 rw-p 00001000 fe:00 77     /lib/libc.so.6",
                false,
            ),
            (
                "7f0000000000-7f0000002000 rw-p 00000000 00:0f 9      /anon_hugepage (deleted)",
                false,
            ),
            (
                "7ffc00000000-7ffc00002000 r-xp 00000000 00:00 0      [vdso]",
                false,
            ),
            (
                "7ffc00000000-7ffc00004000 r--p 00000000 00:00 0      [vvar]",
                false,
            ),
            (
                "ffffffffff600000-ffffffffff601000 --xp 00000000 00:00 0 [vsyscall]",
                false,
            ),
        ] {
            assert_eq!(parse(line).is_some(), carried, "{line}");
        }
    }

    #[test]
    fn locked_mappings_are_found() {
        let smaps = "1000-3000 rw-p 00000000 00:00 0 \nSize: 8 kB\nVmFlags: rd wr mr lo ac \n\
                     4000-5000 rw-p 00000000 00:00 0 \nSize: 4 kB\nVmFlags: rd wr mr ac \n";
        let span = Span {
            start: 0x1000,
            end: 0x3000,
        };
        assert_eq!(locked(smaps), [span]);
    }

    #[test]
    fn our_own_heap_is_carried_and_our_vdso_found() {
        let me = std::process::id() as i32;
        let page = Box::new([1u8; 8192]);
        let at = page.as_ptr() as u64;
        let spans = carried(me).unwrap();
        assert!(spans.iter().any(|s| (s.start..s.end).contains(&at)));
        assert!(vdso(me).unwrap().pages() > 0);
    }
}
