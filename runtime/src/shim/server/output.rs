//! The container's output: two pipes or a terminal in, one log out.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::{
        fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd},
        unix::fs::FileExt,
    },
    path::Path,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use rustix::{
    fs::{Mode, OFlags, fcntl_setfl, fstat, open},
    io::read,
    pipe::{PipeFlags, pipe_with},
};

use godwit_types::{LogOptions, TerminalOptions};

use super::{input::Input, log_file::LogFile};
use crate::{
    criu::pipe_key,
    log::{Entry, Stream},
};

/// A line that is longer is cut into several entries.
const LINE: usize = 16 << 10;
/// The beginning of a line that has no end is written after this time: a prompt.
const PROMPT: Duration = Duration::from_millis(100);

/// The reading ends, what is left of the last line, and the log file.
pub struct Output {
    log: LogFile,
    stdout: Reader,
    stderr: Reader,
    pub input: Input,
}

/// The container's ends. Dropped once the container has them, so that the end of the output is
/// seen. They could be read, too: a container whose shim is killed then waits with what it writes
/// until another shim reads it, instead of being killed for it.
pub struct Ends {
    pub stdout: OwnedFd,
    pub stderr: OwnedFd,
}

struct Reader {
    /// None: ended.
    pipe: Option<OwnedFd>,
    stream: Stream,
    partial: Vec<u8>,
    /// Since when there is a partial line.
    since: Option<Instant>,
    /// A terminal: nothing in it waits for the end of a line.
    terminal: bool,
    key: String,
}

impl Output {
    pub fn new(log: &Path) -> io::Result<(Self, Ends)> {
        let log = LogFile::open(log, LogOptions::default())?;
        let (stdout, out) = Reader::new(Stream::Stdout)?;
        let (stderr, err) = Reader::new(Stream::Stderr)?;
        Ok((
            Self {
                log,
                stdout,
                stderr,
                input: Input::default(),
            },
            Ends {
                stdout: out,
                stderr: err,
            },
        ))
    }

    /// The output of a container whose shim is gone, by [`keys`](Self::keys). `pids`: its
    /// processes, one of which may still have it open. Its input has ended, and a terminal's output
    /// with it: they ended with the shim.
    pub fn adopt(
        log: &Path,
        options: &LogOptions,
        keys: (String, String),
        pids: &[i32],
    ) -> io::Result<Self> {
        end_line(log)?;
        Ok(Self {
            log: LogFile::open(log, options.clone())?,
            stdout: Reader::adopt(Stream::Stdout, keys.0, pids)?,
            stderr: Reader::adopt(Stream::Stderr, keys.1, pids)?,
            input: Input::default(),
        })
    }

    /// What its options ask for beyond the two pipes: the other end of its standard input, if it
    /// has one that is no terminal.
    pub fn equip(&mut self, options: &TerminalOptions) -> io::Result<Option<OwnedFd>> {
        self.log.set_options(options.log.clone());
        if options.tty || !options.stdin {
            return Ok(None);
        }
        let (input, reader) = Input::pipe()?;
        self.input = input;
        Ok(Some(reader))
    }

    /// Its terminal takes the place of the pipes.
    pub fn set_terminal(&mut self, master: OwnedFd) -> io::Result<()> {
        fcntl_setfl(&master, OFlags::NONBLOCK | OFlags::RDWR)?;
        self.stdout.pipe = Some(master.try_clone()?);
        self.stdout.terminal = true;
        self.stdout.key = "/dev/null".to_owned();
        self.stderr.pipe = None;
        self.stderr.key = "/dev/null".to_owned();
        self.input = Input::terminal(master);
        Ok(())
    }

    /// When to call [`Output::drain`] at the latest. None: when there is something to read.
    pub fn due(&self) -> Option<Duration> {
        let since = [&self.stdout, &self.stderr].map(|reader| reader.since);
        let first = since.into_iter().flatten().min()?;
        Some(PROMPT.saturating_sub(first.elapsed()))
    }

    /// What to wait for.
    pub fn sources(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        [&self.stdout, &self.stderr]
            .into_iter()
            .filter_map(|r| r.pipe.as_ref())
            .map(|p| p.as_fd())
    }

    /// What CRIU calls the pipes.
    pub fn keys(&self) -> (String, String) {
        (self.stdout.key.clone(), self.stderr.key.clone())
    }

    /// Reads all there is and writes whole lines.
    pub fn drain(&mut self) {
        for reader in [&mut self.stdout, &mut self.stderr] {
            reader.drain(&mut self.log);
            if reader.since.is_some_and(|since| since.elapsed() >= PROMPT) {
                reader.flush(&mut self.log);
            }
        }
        written(self.log.flush());
    }

    /// Writes what has no line end, too: the container has ended, or leaves this host.
    pub fn flush(&mut self) {
        self.drain();
        for reader in [&mut self.stdout, &mut self.stderr] {
            reader.flush(&mut self.log);
        }
        written(self.log.flush());
    }
}

impl Reader {
    fn new(stream: Stream) -> io::Result<(Self, OwnedFd)> {
        let (reader, writer) = pipe_with(PipeFlags::CLOEXEC)?;
        let writer = reopen("self", writer.as_raw_fd(), OFlags::RDWR)?;
        fcntl_setfl(&reader, OFlags::NONBLOCK)?;
        let key = pipe_key(fstat(&reader)?.st_ino);
        Ok((
            Self {
                pipe: Some(reader),
                stream,
                partial: Vec::new(),
                since: None,
                terminal: false,
                key,
            },
            writer,
        ))
    }

    fn adopt(stream: Stream, key: String, pids: &[i32]) -> io::Result<Self> {
        let found = find(&key, pids).filter(|_| key.starts_with("pipe:"));
        let pipe = match found {
            Some((pid, fd)) => Some(reopen(&pid.to_string(), fd, OFlags::RDONLY)?),
            // Nobody can write to it any more.
            None => None,
        };
        if let Some(pipe) = &pipe {
            fcntl_setfl(pipe, OFlags::NONBLOCK)?;
        }
        Ok(Self {
            pipe,
            stream,
            partial: Vec::new(),
            since: None,
            terminal: false,
            key,
        })
    }

    fn drain(&mut self, log: &mut LogFile) {
        let mut buffer = [0u8; 32 << 10];
        // Bounded, so that a container that never stops writing can't keep the loop for itself.
        for _ in 0..64 {
            let Some(pipe) = &self.pipe else { return };
            match read(pipe, &mut buffer) {
                Ok(0) => self.pipe = None,
                Ok(count) => self.take(&buffer[..count], log),
                Err(rustix::io::Errno::INTR) => {}
                Err(rustix::io::Errno::AGAIN) => return,
                // A terminal that nobody has open any more: it would be readable for ever.
                Err(_) => self.pipe = None,
            }
        }
    }

    fn take(&mut self, bytes: &[u8], log: &mut LogFile) {
        self.partial.extend_from_slice(bytes);
        let time = now();
        let mut start = 0;
        loop {
            let rest = &self.partial[start..];
            let end = match rest.iter().take(LINE).position(|b| *b == b'\n') {
                Some(at) => at + 1,
                None if rest.len() >= LINE => LINE,
                None if self.terminal => whole(rest),
                None => 0,
            };
            if end == 0 {
                break;
            }
            write(log, self.stream, &rest[..end], &time);
            start += end;
        }
        self.partial.drain(..start);
        if start > 0 || self.since.is_none() {
            self.since = (!self.partial.is_empty()).then(Instant::now);
        }
    }

    /// Writes what has no line end, too.
    fn flush(&mut self, log: &mut LogFile) {
        self.since = None;
        let rest = std::mem::take(&mut self.partial);
        if !rest.is_empty() {
            write(log, self.stream, &rest, &now());
        }
    }
}

/// A pipe that a process has open, once more.
fn reopen(process: &str, fd: i32, flags: OFlags) -> io::Result<OwnedFd> {
    let path = format!("/proc/{process}/fd/{fd}");
    Ok(open(path, flags | OFlags::CLOEXEC, Mode::empty())?)
}

/// Who has a pipe open, and as which descriptor. A process that ends meanwhile has none.
fn find(key: &str, pids: &[i32]) -> Option<(i32, i32)> {
    pids.iter().find_map(|pid| {
        let fds = fs::read_dir(format!("/proc/{pid}/fd")).ok()?;
        let found = fds.flatten().find(|fd| {
            let target = fs::read_link(fd.path());
            target.is_ok_and(|target| target.as_os_str() == key)
        })?;
        Some((*pid, found.file_name().to_str()?.parse().ok()?))
    })
}

/// Of a line that the shim before was killed in, nothing can be read: the next begins anew.
fn end_line(log: &Path) -> io::Result<()> {
    let mut log = OpenOptions::new()
        .read(true)
        .append(true)
        .create(true)
        .open(log)?;
    let length = log.metadata()?.len();
    let mut last = [b'\n'];
    if let Some(at) = length.checked_sub(1) {
        log.read_exact_at(&mut last, at)?;
    }
    if last != [b'\n'] {
        log.write_all(b"\n")?;
    }
    Ok(())
}

/// Without the first bytes of a character whose others are still to come.
fn whole(bytes: &[u8]) -> usize {
    match std::str::from_utf8(bytes) {
        Err(error) if error.error_len().is_none() => error.valid_up_to(),
        _ => bytes.len(),
    }
}

fn write(log: &mut LogFile, stream: Stream, text: &[u8], time: &str) {
    let entry = Entry::new(text, stream, time.to_owned());
    written(
        serde_json::to_vec(&entry)
            .map_err(io::Error::from)
            .and_then(|mut line| {
                line.push(b'\n');
                log.push(&line)
            }),
    );
}

fn written(result: io::Result<()>) {
    if let Err(error) = result {
        // A full disk must not stop the container: its output is lost, and that is said.
        tracing::error!(%error, "container output lost");
    }
}

/// Now, as RFC 3339 in UTC with nanoseconds.
fn now() -> String {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    rfc3339(since.as_secs(), since.subsec_nanos())
}

fn rfc3339(seconds: u64, nanos: u32) -> String {
    let (days, rest) = (seconds / 86_400, seconds % 86_400);
    // Civil date from days since 1970, in eras of 400 years that begin in March.
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 {
        month_index + 3
    } else {
        month_index - 9
    };
    let year = year_of_era + era * 400 + u64::from(month <= 2);
    let (hour, minute, second) = (rest / 3600, rest / 60 % 60, rest % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{nanos:09}Z")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        assert_eq!(rfc3339(0, 0), "1970-01-01T00:00:00.000000000Z");
        assert_eq!(rfc3339(951_782_400, 5), "2000-02-29T00:00:00.000000005Z");
        assert_eq!(rfc3339(1_709_251_199, 0), "2024-02-29T23:59:59.000000000Z");
        assert_eq!(rfc3339(1_709_251_200, 0), "2024-03-01T00:00:00.000000000Z");
    }

    #[test]
    fn lines_are_kept_whole_and_the_rest_is_flushed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut output, ends) = Output::new(&path).unwrap();
        rustix::io::write(&ends.stdout, b"one\ntw").unwrap();
        rustix::io::write(&ends.stderr, b"bad\n").unwrap();
        output.drain();
        rustix::io::write(&ends.stdout, b"o\nthree").unwrap();
        output.flush();
        let bytes = std::fs::read(&path).unwrap();
        let (entries, used) = crate::log::parse(&bytes);
        let texts: Vec<_> = entries.iter().map(|e| e.log.as_str()).collect();
        assert_eq!(texts, ["one\n", "bad\n", "two\n", "three"]);
        assert_eq!(used, bytes.len());
        drop(ends);
        output.drain();
        assert_eq!(output.sources().count(), 0);
    }

    #[test]
    fn output_outlives_its_reader_and_is_read_by_the_next() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log");
        let (mut output, ends) = Output::new(&path).unwrap();
        rustix::io::write(&ends.stdout, b"one\n").unwrap();
        output.drain();
        let keys = output.keys();
        drop(output);
        let mut log = OpenOptions::new().append(true).open(&path).unwrap();
        log.write_all(b"{\"log\":\"torn").unwrap();
        rustix::io::write(&ends.stdout, b"two\n").unwrap();
        rustix::io::write(&ends.stderr, b"bad\n").unwrap();
        let own = [std::process::id() as i32];
        let mut output = Output::adopt(&path, &LogOptions::default(), keys, &own).unwrap();
        output.drain();
        let bytes = fs::read(&path).unwrap();
        let (entries, _) = crate::log::parse(&bytes);
        let texts: Vec<_> = entries.iter().map(|e| e.log.as_str()).collect();
        assert_eq!(texts, ["one\n", "two\n", "bad\n"]);
        drop(ends);
        output.drain();
        assert_eq!(output.sources().count(), 0);
        let gone = Output::adopt(&path, &LogOptions::default(), output.keys(), &own).unwrap();
        assert_eq!(gone.sources().count(), 0);
    }

    #[test]
    fn a_prompt_is_written_though_its_line_has_no_end() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("log.json");
        let (mut output, ends) = Output::new(&path).unwrap();
        rustix::io::write(&ends.stdout, b"name: ").unwrap();
        output.drain();
        let due = output.due().unwrap();
        std::thread::sleep(due);
        output.drain();
        let (entries, _) = crate::log::parse(&std::fs::read(&path).unwrap());
        assert_eq!(entries.len(), 1);
        assert_eq!((entries[0].log.as_str(), output.due()), ("name: ", None));
    }

    #[test]
    fn a_character_that_comes_in_two_reads_is_kept_whole() {
        assert_eq!(whole("aé".as_bytes()), 3);
        assert_eq!(whole(&"aé".as_bytes()[..2]), 1);
        assert_eq!(whole(b"a\xff"), 2);
    }
}
