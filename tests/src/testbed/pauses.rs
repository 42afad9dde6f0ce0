//! A daemon held up at a point of its work (`proto/src/pause.rs`).

use std::{fs, path::PathBuf, time::Duration};

use anyhow::Result;

use super::{Cluster, wait_for};

/// Where daemons look for what a test wants of them.
pub const VARIABLE: &str = "GODWIT_PAUSES";
/// In a host's directory.
pub const DIRECTORY: &str = "pauses";

/// One point at which a daemon waits, once.
pub struct Hold {
    asked: PathBuf,
}

impl Hold {
    pub fn is_reached(&self) -> bool {
        self.reached().exists()
    }

    /// Waits until a daemon has come there.
    pub fn wait(&self, patience: Duration) -> Result<()> {
        wait_for("the point", patience, || self.is_reached())
    }

    /// Lets the daemon go on.
    pub fn release(&self) -> Result<()> {
        Ok(fs::remove_file(self.reached())?)
    }

    fn reached(&self) -> PathBuf {
        self.asked.with_extension("reached")
    }
}

impl Cluster {
    /// Asks the daemons of a host for something, once or as long as it is not taken back: to wait
    /// at a point, or to be disorderly.
    pub fn hold(&self, number: u8, what: &str) -> Result<Hold> {
        let directory = self.host(number).dir.join(DIRECTORY);
        fs::create_dir_all(&directory)?;
        let asked = directory.join(what);
        fs::write(&asked, "")?;
        Ok(Hold { asked })
    }

    /// Takes back all that was asked for.
    pub fn hold_nothing(&self) -> Result<()> {
        for host in &self.hosts {
            match fs::remove_dir_all(host.dir.join(DIRECTORY)) {
                Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }
}
