//! The content of a container's tmpfs mounts, as CRIU wants it: a gzipped tar.
//!
//! CRIU runs `tar` for each of them, inside the freeze, and GNU tar runs `gzip`: milliseconds for
//! a mount that is mostly empty. CRIU finds `godwit-tar` in its place (see [`crate::criu`]). It
//! takes the same arguments and writes the same format, so that checkpoints go to and come from
//! hosts where GNU tar does it. What it is not made for, it leaves to the next `tar` in `PATH`.

mod error;
mod order;
mod pack;
mod unpack;

use std::{
    ffi::OsString,
    fs::File,
    io::{BufWriter, Read, Write},
    os::{fd::AsFd, unix::process::CommandExt},
    path::{Path, PathBuf},
    process::Command,
};

pub use error::TmpfsError;
use flate2::{Compression, read::MultiGzDecoder, write::GzEncoder};
use order::Order;

const BUFFER: usize = 64 << 10;

/// What `godwit-tar` does. The archive is its input or its output.
pub fn run(arguments: &[OsString]) -> Result<(), TmpfsError> {
    match Order::parse(arguments) {
        Some(Order::Create { directory }) => create(&directory, standard(1)?),
        Some(Order::Extract { directory }) => extract(standard(0)?, &directory),
        None => Err(leave(arguments)),
    }
}

/// Writes all of `directory`, of its own file system.
pub fn create(directory: &Path, out: impl Write) -> Result<(), TmpfsError> {
    let dir = File::open(directory).map_err(|source| TmpfsError::Open {
        path: directory.to_owned(),
        source,
    })?;
    // It holds up tasks that are stopped: fast counts for more than small.
    let gzip = GzEncoder::new(BufWriter::with_capacity(BUFFER, out), Compression::fast());
    pack::pack(dir.as_fd(), gzip)?
        .finish()
        .and_then(|mut out| out.flush())
        .map_err(TmpfsError::Write)
}

/// Fills `directory`, and nothing outside of it, from an archive that is not trusted.
pub fn extract(archive: impl Read, directory: &Path) -> Result<(), TmpfsError> {
    unpack::unpack(MultiGzDecoder::new(archive), directory)
}

/// Standard input or output without the buffer that splits lines.
fn standard(number: i32) -> Result<File, TmpfsError> {
    let fd = match number {
        0 => std::io::stdin().as_fd().try_clone_to_owned(),
        _ => std::io::stdout().as_fd().try_clone_to_owned(),
    };
    fd.map(File::from).map_err(TmpfsError::Standard)
}

/// Becomes the next `tar`; comes back if there is none.
fn leave(arguments: &[OsString]) -> TmpfsError {
    let Some(tar) = next_tar() else {
        return TmpfsError::Unknown;
    };
    let source = Command::new(&tar).arg0("tar").args(arguments).exec();
    TmpfsError::Exec { path: tar, source }
}

/// The first `tar` in `PATH` that is not this program.
fn next_tar() -> Option<PathBuf> {
    let this = std::fs::canonicalize("/proc/self/exe").ok();
    std::env::split_paths(&std::env::var_os("PATH")?)
        .map(|dir| dir.join("tar"))
        .find(|path| match std::fs::canonicalize(path) {
            Ok(found) => Some(found) != this,
            Err(_) => false,
        })
}
