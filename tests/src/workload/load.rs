//! The load of a Redis as `redis-benchmark` makes it: many connections from one thread, each of
//! which asks again as soon as it is answered. Every value says which key it belongs to, and is
//! checked whole.

mod protocol;
mod value;

use std::{
    io::{self, Read, Write},
    net::{SocketAddr, TcpStream, ToSocketAddrs},
    process::ExitCode,
    sync::atomic::Ordering,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use protocol::Reply;
use value::Values;

use super::{
    redis::Gap,
    term,
    witness::{Rate, now_ms, say},
};

/// Between two lines that say how many requests were answered.
const WINDOW: Duration = Duration::from_millis(100);
/// An answer that took longer is worth a line.
const GAP: Duration = Duration::from_millis(5);
/// Requests that are on their way together while all keys are set or checked.
const BATCH: u64 = 200;

/// What to do.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// `ADDRESS:PORT`
    address: String,
    /// Keys, with values of 100 to 1000 bytes
    #[arg(long)]
    keys: u64,
    /// Connections, each with one request on its way
    #[arg(long, default_value_t = 50)]
    connections: usize,
    /// Of a hundred requests, how many set a value; the others get one
    #[arg(long, default_value_t = 10)]
    sets: u64,
    /// Set every key first
    #[arg(long)]
    fill: bool,
    /// Get every key once and end, instead of asking all the while
    #[arg(long)]
    check: bool,
}

pub fn run(options: &Options) -> Result<ExitCode> {
    let stop = term::flag()?;
    let mut addresses = options.address.to_socket_addrs()?;
    let address = addresses.next().context("no address")?;
    let values = Values::new();
    if options.fill {
        let set = |key, to: &mut Vec<u8>| protocol::set(to, key, &values.of(key, 0));
        every_key(address, options.keys, set, |key, reply| {
            ensure!(reply == Reply::Ok, "SET {key}: {}", reply.shown());
            Ok(())
        })?;
    }
    if options.check {
        let mut wrong = 0;
        let get = |key, to: &mut Vec<u8>| protocol::get(to, key);
        every_key(address, options.keys, get, |key, reply| {
            wrong += u64::from(!values.fit(key, &reply));
            Ok(())
        })?;
        println!("checked {} wrong {wrong}", options.keys);
        return Ok(ExitCode::SUCCESS);
    }
    let mut load = Load::new(address, options, values)?;
    println!("connected");
    while !stop.load(Ordering::SeqCst) {
        load.step()?;
    }
    Ok(ExitCode::SUCCESS)
}

/// Asks something of each key, many requests at a time.
fn every_key(
    address: SocketAddr,
    keys: u64,
    ask: impl Fn(u64, &mut Vec<u8>),
    mut answered: impl FnMut(u64, Reply) -> Result<()>,
) -> Result<()> {
    let mut stream = connect(address)?;
    let mut part = vec![0; 1 << 16];
    let (mut requests, mut received) = (Vec::new(), Vec::new());
    for first in (0..keys).step_by(BATCH as usize) {
        let batch = first..keys.min(first + BATCH);
        requests.clear();
        batch.clone().for_each(|key| ask(key, &mut requests));
        stream.write_all(&requests)?;
        received.clear();
        let mut read = 0;
        for key in batch {
            let reply = loop {
                if let Some((reply, length)) = protocol::parse(&received[read..])? {
                    read += length;
                    break reply;
                }
                let count = stream.read(&mut part)?;
                ensure!(count > 0, "the connection was closed");
                received.extend_from_slice(&part[..count]);
            };
            answered(key, reply)?;
        }
    }
    Ok(())
}

fn connect(address: SocketAddr) -> Result<TcpStream> {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5))
        .with_context(|| format!("`{address}`"))?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

struct Load {
    address: SocketAddr,
    keys: u64,
    sets: u64,
    values: Values,
    epoll: Epoll,
    connections: Vec<Connection>,
    random: u64,
    request: Vec<u8>,
    window: Window,
}

struct Connection {
    stream: TcpStream,
    received: Vec<u8>,
    asked: Asked,
    at: Instant,
}

#[derive(Clone, Copy)]
enum Asked {
    Get(u64),
    Set,
}

/// What happened since the last lines.
struct Window {
    began: Instant,
    answers: u64,
    longest: Duration,
    /// When the answer came that took so long.
    longest_at_ms: u64,
}

impl Load {
    fn new(address: SocketAddr, options: &Options, values: Values) -> Result<Self> {
        let mut load = Self {
            address,
            keys: options.keys,
            sets: options.sets,
            values,
            epoll: Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?,
            connections: Vec::new(),
            random: 1,
            request: Vec::new(),
            window: Window::new(),
        };
        for number in 0..options.connections {
            let connection = load.open(number)?;
            load.connections.push(connection);
        }
        for number in 0..options.connections {
            load.ask(number)?;
        }
        Ok(load)
    }

    fn open(&self, number: usize) -> Result<Connection> {
        let stream = connect(self.address)?;
        stream.set_nonblocking(true)?;
        let event = EpollEvent::new(EpollFlags::EPOLLIN, number as u64);
        self.epoll.add(&stream, event)?;
        Ok(Connection {
            stream,
            received: Vec::new(),
            asked: Asked::Set,
            at: Instant::now(),
        })
    }

    /// The next request of a connection.
    fn ask(&mut self, number: usize) -> io::Result<()> {
        self.random = value::next(self.random);
        let key = self.random % self.keys;
        let set = (self.random >> 40) % 100 < self.sets;
        self.request.clear();
        let connection = &mut self.connections[number];
        connection.asked = if set {
            protocol::set(&mut self.request, key, &self.values.of(key, self.random));
            Asked::Set
        } else {
            protocol::get(&mut self.request, key);
            Asked::Get(key)
        };
        connection.at = Instant::now();
        // Nothing else is on its way on this connection: there is room.
        connection.stream.write_all(&self.request)
    }

    fn step(&mut self) -> Result<()> {
        let mut events = [EpollEvent::empty(); 64];
        let left = WINDOW.saturating_sub(self.window.began.elapsed());
        let timeout = EpollTimeout::try_from(left + Duration::from_millis(1))?;
        let count = match self.epoll.wait(&mut events, timeout) {
            Err(nix::errno::Errno::EINTR) => 0,
            other => other?,
        };
        for event in &events[..count] {
            let number = event.data() as usize;
            if let Err(error) = self.take(number) {
                println!("lost: {error:#}");
                self.connections[number] = self.open(number)?;
                self.ask(number)?;
            }
        }
        if self.window.began.elapsed() >= WINDOW {
            self.window.tell()?;
        }
        Ok(())
    }

    fn take(&mut self, number: usize) -> Result<()> {
        let connection = &mut self.connections[number];
        let mut part = [0; 4096];
        let count = match connection.stream.read(&mut part) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
            other => other?,
        };
        ensure!(count > 0, "the connection was closed");
        connection.received.extend_from_slice(&part[..count]);
        let Some((reply, length)) = protocol::parse(&connection.received)? else {
            return Ok(());
        };
        connection.received.drain(..length);
        let good = match connection.asked {
            Asked::Set => reply == Reply::Ok,
            Asked::Get(key) => self.values.fit(key, &reply),
        };
        if !good {
            println!("wrong: {}", reply.shown());
        }
        self.window.count(connection.at.elapsed())?;
        Ok(self.ask(number)?)
    }
}

impl Window {
    fn new() -> Self {
        Self {
            began: Instant::now(),
            answers: 0,
            longest: Duration::ZERO,
            longest_at_ms: 0,
        }
    }

    fn count(&mut self, took: Duration) -> Result<()> {
        self.answers += 1;
        if took > self.longest {
            self.longest = took;
            self.longest_at_ms = now_ms()?;
        }
        Ok(())
    }

    /// Prints it, and begins anew.
    fn tell(&mut self) -> Result<()> {
        let open = self.began.elapsed();
        if self.longest >= GAP {
            say(&Gap {
                gap_ms: self.longest.as_secs_f64() * 1000.0,
                at_ms: self.longest_at_ms,
            })?;
        }
        say(&Rate {
            per_s: self.answers as f64 / open.as_secs_f64(),
            at_ms: now_ms()?,
            window_ms: open.as_secs_f64() * 1000.0,
        })?;
        *self = Self::new();
        Ok(())
    }
}
