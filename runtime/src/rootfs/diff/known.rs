//! What is remembered of an entry that was sent: enough to tell, without reading it, whether it
//! changed since.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::{FileType, Stat};

/// Younger than this when a round begins, a time can't tell what came before it from what comes
/// after: clocks of file systems tick, and a write takes its time before it is done.
const MARGIN: Duration = Duration::from_millis(100);

/// Seconds since 1970, and nanoseconds.
type Time = (i64, i64);

/// All that says that an entry changed. A name more or less changes a file's `ctime`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Stamp {
    pub ino: u64,
    mode: u32,
    uid: u32,
    gid: u32,
    device: u64,
    size: i64,
    mtime: Time,
    ctime: Time,
}

impl Stamp {
    pub(super) fn of(stat: &Stat) -> Self {
        let stamp = Self {
            ino: stat.st_ino,
            mode: stat.st_mode,
            uid: stat.st_uid,
            gid: stat.st_gid,
            device: stat.st_rdev,
            size: stat.st_size,
            mtime: (stat.st_mtime, stat.st_mtime_nsec as i64),
            ctime: (stat.st_ctime, stat.st_ctime_nsec as i64),
        };
        if is_whiteout(stat) {
            // All of them are names of one inode, which changes with each that is made.
            return Self {
                ino: 0,
                ctime: (0, 0),
                ..stamp
            };
        }
        stamp
    }

    pub(super) fn is_directory(&self) -> bool {
        FileType::from_raw_mode(self.mode) == FileType::Directory
    }
}

/// Overlayfs' mark of a deleted entry.
pub(super) fn is_whiteout(stat: &Stat) -> bool {
    FileType::from_raw_mode(stat.st_mode) == FileType::CharacterDevice && stat.st_rdev == 0
}

/// Whether other entries are the same file.
pub(super) fn is_linked(stat: &Stat) -> bool {
    stat.st_nlink > 1
        && FileType::from_raw_mode(stat.st_mode) != FileType::Directory
        && !is_whiteout(stat)
}

/// One entry, as it was sent.
#[derive(Debug, Clone)]
pub(super) struct Known {
    pub stamp: Stamp,
    /// Its stamp may stay the same when it changes.
    pub unsure: bool,
    /// Which of the contents it has; several names of one file have the same. None: it is sent
    /// whole when it changes.
    pub content: Option<u64>,
    /// The last look that found it.
    pub seen: u32,
}

/// A moment, as the times of files are compared with it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment(Time);

impl Moment {
    /// Now, without what is too young to be told apart from it.
    pub(super) fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH);
        let since = since.unwrap_or_default().saturating_sub(MARGIN);
        Self((since.as_secs() as i64, i64::from(since.subsec_nanos())))
    }

    /// Whether the entry may change, after it, without another time.
    pub(super) fn is_near(self, stamp: &Stamp) -> bool {
        let (seconds, nanoseconds) = stamp.ctime;
        // A file system that counts seconds.
        let end = if nanoseconds == 0 && stamp.ino != 0 {
            (seconds.saturating_add(1), 0)
        } else {
            stamp.ctime
        };
        end >= self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(ctime: Time) -> Stamp {
        Stamp {
            ino: 1,
            mode: 0,
            uid: 0,
            gid: 0,
            device: 0,
            size: 0,
            mtime: ctime,
            ctime,
        }
    }

    #[test]
    fn what_changed_in_the_tick_of_a_look_may_have_changed_again() {
        let moment = Moment((100, 500));
        assert!(!moment.is_near(&at((100, 499))));
        assert!(moment.is_near(&at((100, 500))));
        assert!(moment.is_near(&at((200, 1))), "a clock that was set back");
        assert!(moment.is_near(&at((100, 0))), "a clock of seconds");
        assert!(!moment.is_near(&at((98, 0))));
    }
}
