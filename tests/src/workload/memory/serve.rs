//! The TCP side of the first process: a line in, a line out.

use std::{
    env,
    io::{self, BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    os::unix::process::CommandExt,
    process::Command,
    thread,
};

use anyhow::{Context, Result};

use super::{family::Family, region::Region};
use crate::workload::page;

/// Pages at a time, where memory is taken without an end.
const GROWTH: usize = 1024;

/// Listens, and answers every connection on a thread of its own.
pub fn start(port: u16, family: Family) -> Result<()> {
    let listener =
        TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).with_context(|| format!("port {port}"))?;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let family = family.clone();
            // One that breaks off is its client's matter.
            thread::spawn(move || converse(stream, &family));
        }
    });
    Ok(())
}

fn converse(mut stream: TcpStream, family: &Family) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut lines = BufReader::new(stream.try_clone()?);
    let mut line = String::new();
    loop {
        line.clear();
        if lines.read_line(&mut line)? == 0 {
            return Ok(());
        }
        let answer = match line.trim() {
            "verify" => family.verify()?,
            "hash" => family.ask_all("hash")?.join(" "),
            "pause" => family.ask_all("pause")?[0].clone(),
            "go" => family.ask_all("go")?[0].clone(),
            "exec" => return Err(again().into()),
            "grow" => return grow(),
            other => match other.strip_prefix("ping ") {
                Some(number) => format!("pong {number}"),
                None => "unknown".into(),
            },
        };
        // One write, one segment.
        stream.write_all(format!("{answer}\n").as_bytes())?;
    }
}

/// The same program with the same arguments. Returns only when it can't.
fn again() -> io::Error {
    match env::current_exe() {
        Ok(program) => Command::new(program).args(env::args_os().skip(1)).exec(),
        Err(error) => error,
    }
}

/// Until the kernel ends it.
fn grow() -> Result<()> {
    let mut all = Vec::new();
    loop {
        all.push(Region::fill(all.len(), GROWTH, page::WORDS)?);
    }
}
