//! Sends back what comes over TCP and over UDP, at one port.

use std::{
    io::{Read, Write},
    net::{TcpListener, TcpStream, UdpSocket},
    process::ExitCode,
    sync::atomic::Ordering,
    thread,
    time::Duration,
};

use anyhow::Result;

use super::term;

pub fn run(port: u16) -> Result<ExitCode> {
    let stop = term::flag()?;
    let listener = TcpListener::bind(("0.0.0.0", port))?;
    let datagrams = UdpSocket::bind(("0.0.0.0", port))?;
    thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = datagrams.recv_from(&mut buffer) {
            let _ = datagrams.send_to(&buffer[..length], from);
        }
    });
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || back(stream));
        }
    });
    println!("ready");
    while !stop.load(Ordering::SeqCst) {
        thread::sleep(Duration::from_millis(20));
    }
    Ok(ExitCode::SUCCESS)
}

fn back(mut stream: TcpStream) {
    let mut buffer = [0; 2048];
    while let Ok(length @ 1..) = stream.read(&mut buffer) {
        if stream.write_all(&buffer[..length]).is_err() {
            return;
        }
    }
}
