//! The TCP side of the first process: a line in, a line out.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    thread,
};

use anyhow::{Context, Result};

use super::family::Family;

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
            other => match other.strip_prefix("ping ") {
                Some(number) => format!("pong {number}"),
                None => "unknown".into(),
            },
        };
        // One write, one segment.
        stream.write_all(format!("{answer}\n").as_bytes())?;
    }
}
