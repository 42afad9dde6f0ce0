//! A client that increments a key over one connection as fast as it can, and checks every reply.

use std::{
    io::{BufRead, BufReader, Write},
    net::{TcpStream, ToSocketAddrs},
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};

use super::term;

/// A pause between two replies that is worth a line.
const GAP: Duration = Duration::from_millis(10);

/// The last line.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Summary {
    pub replies: u64,
    pub replies_wrong: u64,
    pub connections_lost: u64,
}

/// A line for each pause.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Gap {
    pub gap_ms: f64,
    /// When the reply came, in milliseconds since 1970.
    pub at_ms: u64,
}

pub fn run(address: &str, key: &str) -> Result<ExitCode> {
    let stop = term::flag()?;
    let address = address.to_socket_addrs()?.next().context("no address")?;
    let connect = || -> Result<BufReader<TcpStream>> {
        let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))?;
        stream.set_nodelay(true)?;
        // Longer than any freeze: silence alone is not a lost connection.
        stream.set_read_timeout(Some(Duration::from_secs(30)))?;
        Ok(BufReader::new(stream))
    };
    let mut stream = connect()?;
    println!("connected");
    let request = format!("*2\r\n$4\r\nINCR\r\n${}\r\n{key}\r\n", key.len());
    let mut summary = Summary::default();
    let mut expected = 1u64;
    let mut last = Instant::now();
    let mut line = String::new();
    while !stop.load(Ordering::SeqCst) {
        line.clear();
        let answered = stream
            .get_mut()
            .write_all(request.as_bytes())
            .and_then(|()| stream.read_line(&mut line));
        match answered {
            Ok(count) if count > 0 => {
                let now = Instant::now();
                if now - last >= GAP && summary.replies > 0 {
                    let at = SystemTime::now().duration_since(UNIX_EPOCH)?.as_millis() as u64;
                    let gap_ms = (now - last).as_secs_f64() * 1000.0;
                    println!("{}", serde_json::to_string(&Gap { gap_ms, at_ms: at })?);
                }
                last = now;
                summary.replies += 1;
                if line.trim_end() != format!(":{expected}") {
                    summary.replies_wrong += 1;
                    println!("wrong: {:?} instead of {expected}", line.trim_end());
                    expected = line
                        .trim()
                        .trim_start_matches(':')
                        .parse()
                        .unwrap_or(expected);
                }
                expected += 1;
            }
            _ => {
                summary.connections_lost += 1;
                println!("lost: {answered:?}");
                thread::sleep(Duration::from_millis(100));
                if let Ok(again) = connect() {
                    stream = again;
                    // What the lost one had asked may or may not have been counted.
                    expected = 0;
                }
            }
        }
    }
    println!("{}", serde_json::to_string(&summary)?);
    Ok(ExitCode::SUCCESS)
}
