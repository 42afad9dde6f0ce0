//! Several processes under two users, joined by everything that has to move with them.
//!
//! ```text
//! head (root) ──pipe── anna (1001) ══ shared memory ══ ben (1002)
//!                        └──────────── Unix socket ─────────┘
//! ```
//!
//! Anna writes a number into shared memory and sends it over the socket; Ben compares the two
//! and answers with its successor; Anna checks that and reports to head over the pipe. A number
//! that is lost, doubled or wrong ends all three with an error.

use std::{
    fs::{File, OpenOptions},
    io::{BufRead, BufReader, Read, Write},
    os::unix::{
        fs::OpenOptionsExt,
        net::{UnixListener, UnixStream},
        process::CommandExt,
    },
    path::Path,
    process::{Command, ExitCode, Stdio},
    sync::atomic::{AtomicU64, Ordering},
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use memmap2::MmapRaw;

const SHARED: &str = "/dev/shm/family";
const SOCKET: &str = "/tmp/family.sock";
const ANNA: u32 = 1001;
const BEN: u32 = 1002;

/// The first process: starts the others and tells how far they have come.
pub fn head() -> Result<ExitCode> {
    let shared = OpenOptions::new()
        .read(true)
        .write(true)
        .create_new(true)
        .mode(0o666)
        .open(SHARED)?;
    shared.set_len(4096)?;
    nix::sys::stat::fchmod(&shared, nix::sys::stat::Mode::from_bits_truncate(0o666))?;
    let me = std::env::current_exe()?;
    let start = |part: &str, id: u32| {
        Command::new(&me)
            .args(["family", part])
            .uid(id)
            .gid(id)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .spawn()
    };
    let mut anna = start("anna", ANNA)?;
    let mut ben = start("ben", BEN)?;
    let reports = BufReader::new(anna.stdout.take().context("no pipe")?);
    let mut said = Instant::now();
    for (expected, line) in (0u64..).zip(reports.lines()) {
        let number: u64 = line?.parse().context("what anna says is no number")?;
        ensure!(
            number == expected,
            "the pipe brought {number} instead of {expected}"
        );
        if said.elapsed() > Duration::from_millis(20) {
            println!("{number}");
            said = Instant::now();
        }
    }
    let _ = ben.kill();
    anyhow::bail!("anna ended: {:?}, ben: {:?}", anna.wait()?, ben.wait()?)
}

/// The shared page's first word.
struct Shared(MmapRaw);

impl Shared {
    fn open() -> Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(SHARED)?;
        Ok(Self(MmapRaw::map_raw(&file)?))
    }

    fn number(&self) -> &AtomicU64 {
        super::sys::atomic(&self.0)
    }
}

pub fn anna() -> Result<ExitCode> {
    let shared = Shared::open()?;
    let listener = UnixListener::bind(SOCKET)?;
    nix::sys::stat::fchmodat(
        nix::fcntl::AT_FDCWD,
        Path::new(SOCKET),
        nix::sys::stat::Mode::from_bits_truncate(0o666),
        nix::sys::stat::FchmodatFlags::FollowSymlink,
    )?;
    let (mut ben, _) = listener.accept()?;
    let mut file = File::create("/data/anna")?;
    let mut out = std::io::stdout().lock();
    for number in 0u64.. {
        shared.number().store(number, Ordering::SeqCst);
        ben.write_all(&number.to_le_bytes())?;
        let mut answer = [0; 8];
        ben.read_exact(&mut answer)?;
        ensure!(
            u64::from_le_bytes(answer) == number + 1,
            "ben's answer to {number} is wrong"
        );
        writeln!(out, "{number}")?;
        out.flush()?;
        if number % 1000 == 0 {
            writeln!(file, "{number}")?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

pub fn ben() -> Result<ExitCode> {
    let shared = Shared::open()?;
    let mut anna = loop {
        match UnixStream::connect(SOCKET) {
            Ok(stream) => break stream,
            Err(_) => thread::sleep(Duration::from_millis(5)),
        }
    };
    loop {
        let mut bytes = [0; 8];
        anna.read_exact(&mut bytes)?;
        let number = u64::from_le_bytes(bytes);
        let seen = shared.number().load(Ordering::SeqCst);
        ensure!(
            seen == number,
            "shared memory holds {seen}, the socket brought {number}"
        );
        anna.write_all(&(number + 1).to_le_bytes())?;
    }
}
