//! The client of `memory`: pings it over one connection and reports every pause and how many
//! pings got through; or asks it one thing and ends.

use std::{
    io::{BufRead, BufReader, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};

use super::{redis::Gap, term};

/// A pause between two replies that is worth a line.
const GAP: Duration = Duration::from_millis(5);
/// Between two lines that say how many pings were answered.
const WINDOW: Duration = Duration::from_millis(100);
/// Longer than any freeze, and than checking many GiB.
const PATIENCE: Duration = Duration::from_secs(300);

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// `ADDRESS:PORT`
    address: String,
    /// Microseconds between an answer and the next ping
    #[arg(long, default_value_t = 500)]
    every: u64,
    /// Ask this and print the answer, instead of pinging; several are asked in turn
    #[arg(long)]
    ask: Vec<String>,
}

/// The last line.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    pub replies: u64,
    pub replies_wrong: u64,
    pub connections_lost: u64,
    pub largest_gap_ms: f64,
}

/// How many pings were answered in about [`WINDOW`].
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct Rate {
    pub per_s: f64,
    /// When the window ended, in milliseconds since 1970, and how long it was.
    pub at_ms: u64,
    pub window_ms: f64,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let address = options
        .address
        .to_socket_addrs()?
        .next()
        .context("no address")?;
    if options.ask.is_empty() {
        return ping(address, Duration::from_micros(options.every));
    }
    let mut connection = connect(address)?;
    for question in &options.ask {
        println!("{}", ask(&mut connection, question)?);
    }
    Ok(ExitCode::SUCCESS)
}

fn connect(address: SocketAddr) -> Result<BufReader<TcpStream>> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .with_context(|| format!("`{address}`"))?;
    stream.set_nodelay(true)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    Ok(BufReader::new(stream))
}

fn ask(connection: &mut BufReader<TcpStream>, question: &str) -> Result<String> {
    connection
        .get_mut()
        .write_all(format!("{question}\n").as_bytes())?;
    let mut line = String::new();
    connection.read_line(&mut line)?;
    ensure!(!line.is_empty(), "the connection was closed");
    Ok(line.trim().to_owned())
}

fn ping(address: SocketAddr, every: Duration) -> Result<ExitCode> {
    let stop = term::flag()?;
    let mut connection = connect(address)?;
    println!("connected");
    let mut summary = Summary::default();
    let mut last = Instant::now();
    let mut window = (last, 0u32);
    for number in 0u64.. {
        if stop.load(Ordering::SeqCst) {
            break;
        }
        match ask(&mut connection, &format!("ping {number}")) {
            Ok(answer) => {
                let now = Instant::now();
                let gap = now - last;
                let gap_ms = gap.as_secs_f64() * 1000.0;
                if gap >= GAP && summary.replies > 0 {
                    say(&Gap {
                        gap_ms,
                        at_ms: now_ms()?,
                    })?;
                    summary.largest_gap_ms = summary.largest_gap_ms.max(gap_ms);
                }
                last = now;
                summary.replies += 1;
                window.1 += 1;
                if answer != format!("pong {number}") {
                    summary.replies_wrong += 1;
                    println!("wrong: `{answer}` to ping {number}");
                }
                let open = now - window.0;
                if open >= WINDOW {
                    say(&Rate {
                        per_s: f64::from(window.1) / open.as_secs_f64(),
                        at_ms: now_ms()?,
                        window_ms: open.as_secs_f64() * 1000.0,
                    })?;
                    window = (now, 0);
                }
            }
            Err(error) => {
                summary.connections_lost += 1;
                println!("lost: {error:#}");
                thread::sleep(Duration::from_millis(100));
                if let Ok(again) = connect(address) {
                    connection = again;
                }
            }
        }
        if !every.is_zero() {
            thread::sleep(every);
        }
    }
    say(&summary)?;
    Ok(ExitCode::SUCCESS)
}

pub fn now_ms() -> Result<u64> {
    Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64)
}

pub fn say(line: &impl Serialize) -> Result<()> {
    println!("{}", serde_json::to_string(line)?);
    Ok(())
}
