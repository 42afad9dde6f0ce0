//! Works on many files and a large one, remembers in memory what each must be, and says at its end
//! whether it is: appends, rewrites a part, writes through a mapping, creates, deletes, renames.

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::Write,
    os::unix::fs::FileExt,
    path::PathBuf,
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use memmap2::MmapRaw;

use super::{sys, term};

const DIR: &str = "/data";
const BLOCK: usize = 64 << 10;
/// Between two deeds.
const PAUSE: Duration = Duration::from_millis(5);
/// Deeds on small files between two on the large one.
const SELDOM: u64 = 10;

/// How much there is.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// MiB of the large file
    #[arg(long, default_value_t = 256)]
    large: usize,
    /// Small files at the beginning
    #[arg(long, default_value_t = 1000)]
    small: u64,
}

/// What must be.
struct Model {
    random: u64,
    /// Each block's version.
    large: Vec<u64>,
    log: u64,
    /// Seed and length of each, by its name.
    small: BTreeMap<String, (u64, usize)>,
    made: u64,
    mapped: u64,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let stop = term::flag()?;
    let mut model = Model {
        random: 1,
        large: vec![0; (options.large << 20) / BLOCK],
        log: 0,
        small: BTreeMap::new(),
        made: 0,
        mapped: 0,
    };
    fs::create_dir(at("small"))?;
    let large = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(at("large"))?;
    for block in 0..model.large.len() {
        large.write_all_at(&content(block as u64, BLOCK), (block * BLOCK) as u64)?;
    }
    let mapped = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .open(at("mapped"))?;
    mapped.set_len(2 << 20)?;
    let map = MmapRaw::map_raw(&mapped)?;
    let mut log = File::create_new(at("log"))?;
    for _ in 0..options.small {
        model.create()?;
    }
    println!("ready");
    for number in 0u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        // Once, and a second later, and so on: the page stays written to in between.
        if number.is_multiple_of(200) || number % 200 == 3 {
            model.mapped = number;
            sys::atomic(&map).store(number, Ordering::SeqCst);
        }
        if number.is_multiple_of(SELDOM) {
            let block = model.below(model.large.len() as u64) as usize;
            model.large[block] += 1;
            let seed = block as u64 + (model.large[block] << 32);
            large.write_all_at(&content(seed, BLOCK), (block * BLOCK) as u64)?;
        }
        log.write_all(&content(model.log, 256))?;
        model.log += 1;
        model.deed()?;
        if number.is_multiple_of(100) {
            println!("{number}");
        }
        thread::sleep(PAUSE);
    }
    model.verify(&large)?;
    println!("ok {}", model.small.len());
    Ok(ExitCode::SUCCESS)
}

fn at(name: &str) -> PathBuf {
    PathBuf::from(DIR).join(name)
}

impl Model {
    fn below(&mut self, end: u64) -> u64 {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        self.random % end
    }

    fn create(&mut self) -> Result<()> {
        self.made += 1;
        let (seed, len) = (self.made << 40, self.below(9000) as usize);
        let name = format!("small/{}", self.made);
        fs::write(at(&name), content(seed, len))?;
        self.small.insert(name, (seed, len));
        Ok(())
    }

    fn any(&mut self) -> Option<String> {
        let count = self.small.len() as u64;
        if count == 0 {
            return None;
        }
        let index = self.below(count) as usize;
        self.small.keys().nth(index).cloned()
    }

    fn deed(&mut self) -> Result<()> {
        let Some(name) = self.any() else {
            return self.create();
        };
        match self.below(4) {
            0 => {
                fs::remove_file(at(&name))?;
                self.small.remove(&name);
            }
            1 => {
                self.made += 1;
                let other = format!("small/renamed-{}", self.made);
                fs::rename(at(&name), at(&other))?;
                let what = self.small.remove(&name).context("a name")?;
                self.small.insert(other, what);
            }
            2 => {
                let other = self.any().context("a name")?;
                if other != name {
                    fs::rename(at(&name), at(&other))?;
                    let what = self.small.remove(&name).context("a name")?;
                    self.small.insert(other, what);
                }
                self.create()?;
            }
            _ => self.create()?,
        }
        Ok(())
    }

    fn verify(&self, large: &File) -> Result<()> {
        let opened = File::open(at("large"))?;
        for (block, version) in self.large.iter().enumerate() {
            let expected = content(block as u64 + (version << 32), BLOCK);
            for file in [large, &opened] {
                let mut found = vec![0; BLOCK];
                file.read_exact_at(&mut found, (block * BLOCK) as u64)?;
                ensure!(found == expected, "block {block} is not version {version}");
            }
        }
        let log = fs::read(at("log"))?;
        ensure!(
            log.len() as u64 == self.log * 256,
            "`log` has another length"
        );
        for (number, line) in (0..).zip(log.chunks(256)) {
            ensure!(line == content(number, 256), "line {number} of `log`");
        }
        let mapped = fs::read(at("mapped"))?;
        let found = u64::from_le_bytes(mapped[..8].try_into()?);
        ensure!(
            found == self.mapped,
            "`mapped` has {found}, not {}",
            self.mapped
        );
        for (name, (seed, len)) in &self.small {
            let found = fs::read(at(name)).with_context(|| format!("`{name}`"))?;
            ensure!(found == content(*seed, *len), "`{name}` is another file");
        }
        let listed = fs::read_dir(at("small"))?.count();
        let known = self.small.len();
        ensure!(listed == known, "{listed} files, not {known}");
        Ok(())
    }
}

fn content(seed: u64, len: usize) -> Vec<u8> {
    let mut state = (seed + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
    let mut bytes = Vec::with_capacity(len + 8);
    while bytes.len() < len {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        bytes.extend(state.to_le_bytes());
    }
    bytes.truncate(len);
    bytes
}
