//! The log as the shim writes it: appended to, and rotated where it may not grow.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Read, Write},
    path::{Path, PathBuf},
};

use godwit_types::LogOptions;

use crate::log;

pub struct LogFile {
    path: PathBuf,
    file: File,
    options: LogOptions,
    /// Of the present file. None: not looked at yet, since what a container brings with it is put
    /// in front after this was opened.
    size: Option<u64>,
    /// Lines that are not written yet.
    waiting: Vec<u8>,
}

impl LogFile {
    pub fn open(path: &Path, options: LogOptions) -> io::Result<Self> {
        // A rotation that was broken off: see below.
        let next = path.with_extension("next");
        if !path.exists() && next.exists() {
            fs::rename(&next, path)?;
        }
        Ok(Self {
            path: path.to_owned(),
            file: open(path)?,
            options,
            size: None,
            waiting: Vec::new(),
        })
    }

    pub fn set_options(&mut self, options: LogOptions) {
        self.options = options;
    }

    /// Takes a line, to be written by [`LogFile::flush`].
    pub fn push(&mut self, line: &[u8]) -> io::Result<()> {
        if let Some(max) = self.options.max_size {
            let size = self.size()? + self.waiting.len() as u64;
            // A line that is longer than a file may be gets one of its own.
            if size > 0 && size + line.len() as u64 > max.0 {
                self.flush()?;
                self.rotate()?;
            }
        }
        self.waiting.extend_from_slice(line);
        Ok(())
    }

    pub fn flush(&mut self) -> io::Result<()> {
        if self.waiting.is_empty() {
            return Ok(());
        }
        let size = self.size()?;
        let written = self.file.write_all(&self.waiting);
        self.size = written.is_ok().then_some(size + self.waiting.len() as u64);
        // What could not be written is lost: it must not pile up.
        self.waiting.clear();
        written
    }

    fn size(&mut self) -> io::Result<u64> {
        match self.size {
            Some(size) => Ok(size),
            None => Ok(*self.size.insert(self.file.metadata()?.len())),
        }
    }

    fn rotate(&mut self) -> io::Result<()> {
        let size = self.size()?;
        let mut start = Vec::new();
        File::open(&self.path)?.take(64).read_to_end(&mut start)?;
        // A file with nothing but its header is no file to rotate.
        let header = log::header(log::base(&start)).len() as u64;
        if start.starts_with(b"{\"base\":") && size <= header {
            return Ok(());
        }
        let next = self.path.with_extension("next");
        fs::write(&next, log::header(log::base(&start) + size))?;
        // Two steps, so that a reader is without the present file for a moment at most.
        fs::rename(&self.path, log::rotated(&self.path, log::base(&start)))?;
        fs::rename(&next, &self.path)?;
        self.file = open(&self.path)?;
        self.size = None;
        let keep = self.options.max_file.unwrap_or(1).clamp(1, log::FILES) as usize;
        let rotated = log::rotated_files(&self.path)?;
        let surplus = (rotated.len() + 1).saturating_sub(keep);
        for (_, path) in rotated.into_iter().take(surplus) {
            fs::remove_file(path)?;
        }
        Ok(())
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use godwit_types::ByteSize;

    #[test]
    fn files_are_rotated_and_places_in_the_log_go_on() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(log::FILE);
        let options = LogOptions {
            max_size: Some(ByteSize(100)),
            max_file: Some(3),
        };
        let mut file = LogFile::open(&path, options).unwrap();
        let line = [&[b'x'; 39][..], b"\n"].concat();
        let mut ends = Vec::new();
        for _ in 0..20 {
            file.push(&line).unwrap();
            file.flush().unwrap();
            let last = log::segments(&path).unwrap().pop().unwrap();
            ends.push(last.base + last.len);
        }
        let segments = log::segments(&path).unwrap();
        assert_eq!(segments.len(), 3);
        assert!(segments.iter().all(|segment| segment.len <= 100));
        for pair in segments.windows(2) {
            assert_eq!(pair[0].base + pair[0].len, pair[1].base);
        }
        assert!(ends.windows(2).all(|pair| pair[0] < pair[1]), "{ends:?}");
        // One that is opened anew goes on.
        let mut again = LogFile::open(&path, LogOptions::default()).unwrap();
        again.push(&line).unwrap();
        again.flush().unwrap();
        let last = log::segments(&path).unwrap().pop().unwrap();
        assert_eq!(last.base + last.len, ends.last().unwrap() + 40);
    }

    #[test]
    fn without_a_limit_there_is_one_file_and_with_one_file_the_old_is_dropped() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(log::FILE);
        let mut file = LogFile::open(&path, LogOptions::default()).unwrap();
        for _ in 0..50 {
            file.push(b"0123456789\n").unwrap();
        }
        file.flush().unwrap();
        assert_eq!(fs::metadata(&path).unwrap().len(), 550);
        file.set_options(LogOptions {
            max_size: Some(ByteSize(100)),
            max_file: None,
        });
        file.push(b"after\n").unwrap();
        file.flush().unwrap();
        let text = fs::read_to_string(&path).unwrap();
        assert_eq!(text, format!("{}after\n", log::header(550)));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }
}
