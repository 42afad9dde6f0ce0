//! A registry that misbehaves, by the name of the repository that is asked for.

use std::{
    collections::HashMap,
    io::{BufRead, BufReader, Result, Write},
    net::{Ipv4Addr, TcpListener, TcpStream},
    sync::{Arc, Mutex},
    thread,
    time::Duration,
};

use serde_json::json;
use sha2::{Digest, Sha256};

/// What it gives in one answer of `cut` and at once of `slow`.
const PIECE: usize = 64 << 10;
/// How `cut` is cut: in so many answers.
const CUTS: usize = 8;

/// See [`Hostile::start`].
pub struct Hostile {
    pub address: String,
    shared: Arc<Shared>,
}

struct Shared {
    blobs: HashMap<String, Vec<u8>>,
    layer: String,
    manifest: Vec<u8>,
    /// Offsets that blobs were asked for from, beyond 0.
    ranges: Mutex<Vec<u64>>,
}

fn digest(bytes: &[u8]) -> String {
    format!("sha256:{}", hex::encode(Sha256::digest(bytes)))
}

impl Hostile {
    /// Serves one image of one layer, a tar, under these names, and never ends:
    ///
    /// `good`; `cut`: the connection ends after a part; `slow`: a piece now and then; `stall`: a few
    /// bytes of the layer and no more; `digest`: another layer of that size; `long`, `short`: more
    /// or less than was said; `endless`: a manifest without end; `elsewhere`: layers are on a port
    /// where nobody is; `binary`: a manifest that is none, with control characters in its type.
    pub fn start(address: Ipv4Addr, layer: Vec<u8>) -> Result<Self> {
        let config = json!({
            "architecture": if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" },
            "os": "linux",
            "config": {"Env": ["PATH=/bin"], "WorkingDir": "/"},
            "rootfs": {"type": "layers", "diff_ids": [digest(&layer)]},
        });
        let config = config.to_string().into_bytes();
        let described = |kind: &str, bytes: &[u8]| {
            json!({"mediaType": format!("application/vnd.oci.image.{kind}"),
                "digest": digest(bytes), "size": bytes.len()})
        };
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": described("config.v1+json", &config),
            "layers": [described("layer.v1.tar", &layer)],
        });
        let listener = TcpListener::bind((address, 0))?;
        let hostile = Self {
            address: listener.local_addr()?.to_string(),
            shared: Arc::new(Shared {
                layer: digest(&layer),
                manifest: manifest.to_string().into_bytes(),
                ranges: Mutex::default(),
                blobs: [config, layer]
                    .into_iter()
                    .map(|bytes| (digest(&bytes), bytes))
                    .collect(),
            }),
        };
        let shared = hostile.shared.clone();
        thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let shared = shared.clone();
                thread::spawn(move || drop(serve(&shared, stream)));
            }
        });
        Ok(hostile)
    }

    /// Offsets that blobs were asked for from, since the last call.
    pub fn ranges(&self) -> Vec<u64> {
        std::mem::take(&mut *self.shared.ranges.lock().expect("no holder panics"))
    }
}

fn serve(shared: &Shared, mut out: TcpStream) -> Result<()> {
    let mut lines = BufReader::new(out.try_clone()?);
    loop {
        let mut request = String::new();
        if lines.read_line(&mut request)? == 0 {
            return Ok(());
        }
        let mut offset = 0;
        loop {
            let mut line = String::new();
            lines.read_line(&mut line)?;
            let line = line.trim().to_ascii_lowercase();
            if line.is_empty() {
                break;
            }
            if let Some(range) = line.strip_prefix("range: bytes=") {
                offset = range.trim_end_matches('-').parse().unwrap_or(0);
            }
        }
        let path = request.split(' ').nth(1).unwrap_or_default().to_owned();
        if !answer(shared, &path, offset, &mut out)? {
            return Ok(());
        }
    }
}

fn whole(out: &mut TcpStream, head: &str, body: &[u8]) -> Result<()> {
    write!(
        out,
        "HTTP/1.1 {head}\r\nContent-Length: {}\r\n\r\n",
        body.len()
    )?;
    out.write_all(body)
}

/// False: the connection ends.
fn answer(shared: &Shared, path: &str, offset: usize, out: &mut TcpStream) -> Result<bool> {
    let mut parts = path.trim_start_matches("/v2/").split('/');
    let mut next = || parts.next().unwrap_or_default();
    let (name, kind, what) = (next(), next(), next());
    match (kind, name) {
        ("manifests", "endless") => {
            write!(out, "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")?;
            loop {
                write!(out, "10000\r\n{}\r\n", " ".repeat(0x10000))?;
            }
        }
        ("manifests", "binary") => {
            let body = r#"{"schemaVersion":2,"mediaType":"\u001b[2Jx","layers":[]}"#;
            whole(out, "200 OK", body.as_bytes())?;
        }
        ("manifests", _) => {
            let kind = "Content-Type: application/vnd.oci.image.manifest.v1+json";
            whole(out, &format!("200 OK\r\n{kind}"), &shared.manifest)?;
        }
        ("blobs", _) => {
            let Some(bytes) = shared.blobs.get(what) else {
                whole(out, "404 Not Found", b"")?;
                return Ok(true);
            };
            let name = if what == shared.layer { name } else { "good" };
            if offset > 0 {
                let mut ranges = shared.ranges.lock().expect("no holder panics");
                ranges.push(offset as u64);
            }
            return blob(name, bytes, offset, out);
        }
        _ => whole(out, "200 OK", b"")?,
    }
    Ok(true)
}

fn blob(name: &str, bytes: &[u8], offset: usize, out: &mut TcpStream) -> Result<bool> {
    let mut bytes = bytes.to_vec();
    let part = (bytes.len() / CUTS).max(PIECE);
    match name {
        "elsewhere" => {
            let head = "307 Temporary Redirect\r\nLocation: http://127.0.0.1:1/blob";
            whole(out, head, b"")?;
            return Ok(true);
        }
        "digest" => bytes.fill(7),
        "long" => bytes.extend([0; 4096]),
        "short" => bytes.truncate(bytes.len() / 2),
        _ => {}
    }
    let rest = &bytes[offset.min(bytes.len())..];
    let status = match offset {
        0 => "200 OK",
        _ => "206 Partial Content",
    };
    let length = rest.len();
    write!(out, "HTTP/1.1 {status}\r\nContent-Length: {length}\r\n\r\n")?;
    match name {
        "cut" if length > part => {
            out.write_all(&rest[..part])?;
            return Ok(false);
        }
        "slow" => {
            for piece in rest.chunks(PIECE) {
                out.write_all(piece)?;
                thread::sleep(Duration::from_millis(200));
            }
        }
        "stall" => {
            out.write_all(&rest[..16.min(length)])?;
            thread::sleep(Duration::from_secs(3600));
        }
        _ => out.write_all(rest)?,
    }
    Ok(true)
}
