//! The limit: a bare TLS 1.3 stream between two test hosts, with the same library, ring, and the
//! same processors as a migration, and nothing else. Both ends are processes of this program.

use std::{
    fs,
    io::{BufRead, BufReader, Read, Write},
    net::{Ipv4Addr, Shutdown, TcpListener, TcpStream},
    path::{Path, PathBuf},
    process::{Child, Stdio},
    sync::Arc,
    thread,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, anyhow, ensure};
use rustls::{
    ClientConfig, ClientConnection, RootCertStore, ServerConfig, ServerConnection, StreamOwned,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, ServerName},
    version::TLS13,
};

use super::report::Row;
use crate::testbed::Cluster;

const NAME: &str = "sink";
const CHUNK: usize = 1 << 20;
const TIME: Duration = Duration::from_secs(3);

/// One end, as it is started inside a host.
#[derive(Debug, Clone, clap::Subcommand)]
pub enum End {
    /// Take everything that comes, and say how much and how long
    Sink { dir: PathBuf, connections: usize },
    /// Send for some seconds
    Source {
        dir: PathBuf,
        connections: usize,
        address: String,
    },
}

/// From h1 to h2.
pub fn measure(cluster: &Cluster, connections: usize) -> Result<Row> {
    let dir = cluster.dir().join("stream");
    fs::create_dir_all(&dir)?;
    let identity = rcgen::generate_simple_self_signed([NAME.to_owned()])?;
    fs::write(dir.join("certificate"), identity.cert.der())?;
    fs::write(dir.join("key"), identity.signing_key.serialize_der())?;

    let count = connections.to_string();
    let mut sink = end(cluster, 2, "sink", &dir, &[&count])?;
    let mut told = BufReader::new(sink.0.stdout.take().context("no pipe")?);
    let mut line = String::new();
    told.read_line(&mut line)?;
    let address = format!("{}:{}", cluster.host(2).address, line.trim());
    let mut source = end(cluster, 1, "source", &dir, &[&count, &address])?;
    line.clear();
    told.read_line(&mut line)?;
    ensure!(source.0.wait()?.success(), "the sending end failed");
    ensure!(sink.0.wait()?.success(), "the receiving end failed");
    let (bytes, ms) = line
        .trim()
        .split_once(' ')
        .with_context(|| format!("the receiving end said `{line}`"))?;
    Ok(Row {
        system: format!("rustls x{connections}"),
        total_ms: Some(ms.parse()?),
        wire_bytes: Some(bytes.parse()?),
        ..Row::default()
    })
}

/// A process that does not outlive this value.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn end(cluster: &Cluster, host: u8, which: &str, dir: &Path, rest: &[&str]) -> Result<Running> {
    let mut command = cluster
        .host(host)
        .command(&cluster.programs().testbed, &["bench", which]);
    command.arg(dir).args(rest);
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    Ok(Running(child.context("`nsenter` can't be started")?))
}

/// What a process started by [`measure`] does.
pub fn run(end: &End) -> Result<()> {
    match end {
        End::Sink { dir, connections } => sink(dir, *connections),
        End::Source {
            dir,
            connections,
            address,
        } => source(dir, *connections, address),
    }
}

fn sink(dir: &Path, connections: usize) -> Result<()> {
    let certificate = CertificateDer::from(fs::read(dir.join("certificate"))?);
    let key = PrivatePkcs8KeyDer::from(fs::read(dir.join("key"))?);
    let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_no_client_auth()
        .with_single_cert(vec![certificate], key.into())?;
    let config = Arc::new(config);
    let listener = TcpListener::bind((Ipv4Addr::UNSPECIFIED, 0))?;
    println!("{}", listener.local_addr()?.port());
    let mut began = None;
    let mut threads = Vec::new();
    for _ in 0..connections {
        let (stream, _) = listener.accept()?;
        began.get_or_insert_with(Instant::now);
        let connection = ServerConnection::new(config.clone())?;
        let mut stream = StreamOwned::new(connection, stream);
        threads.push(thread::spawn(move || -> Result<u64> {
            let (mut buffer, mut sum) = (vec![0; CHUNK], 0);
            loop {
                match stream.read(&mut buffer)? {
                    0 => return Ok(sum),
                    count => sum += count as u64,
                }
            }
        }));
    }
    let mut sum = 0;
    for thread in threads {
        sum += thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    let took = began.context("no connection")?.elapsed();
    println!("{sum} {}", took.as_secs_f64() * 1000.0);
    Ok(())
}

fn source(dir: &Path, connections: usize, address: &str) -> Result<()> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from(fs::read(dir.join("certificate"))?))?;
    let config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&TLS13])?
        .with_root_certificates(roots)
        .with_no_client_auth();
    let config = Arc::new(config);
    let end = Instant::now() + TIME;
    let mut threads = Vec::new();
    for _ in 0..connections {
        let mut connection = ClientConnection::new(config.clone(), ServerName::try_from(NAME)?)?;
        connection.set_buffer_limit(Some(CHUNK));
        let mut stream = StreamOwned::new(connection, TcpStream::connect(address)?);
        threads.push(thread::spawn(move || -> Result<()> {
            let chunk = vec![0x5a; CHUNK];
            while Instant::now() < end {
                stream.write_all(&chunk)?;
            }
            stream.conn.send_close_notify();
            stream.flush()?;
            // A socket closed with something unread, here session tickets, resets the connection.
            stream.sock.shutdown(Shutdown::Write)?;
            stream.sock.read_to_end(&mut Vec::new())?;
            Ok(())
        }));
    }
    for thread in threads {
        thread.join().map_err(|_| anyhow!("a thread panicked"))??;
    }
    Ok(())
}
