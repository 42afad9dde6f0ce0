//! The configuration directory that `godwit cluster init` writes for each part: `config.json`
//! beside `ca.pem`, `cert.pem` and `key.pem`. Who the part is stands in its certificate alone.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use godwit_types::MemberName;
use serde::{Deserialize, Serialize, de::DeserializeOwned};

const FILE: &str = "config.json";

/// A member of the Raft group as it was at the beginning.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberAddress {
    /// The Raft id: never reused.
    pub id: u64,
    pub name: MemberName,
    /// `address:port`
    pub address: String,
}

/// For `godwit-controller`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct MemberConfig {
    /// Where this member listens: `address:port`.
    pub listen: String,
    /// The group, this member included.
    pub members: Vec<MemberAddress>,
    /// The Raft ids that the group began with. Empty: those of `members`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub founders: Vec<u64>,
}

/// For `godwit-agent`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentConfig {
    /// Where this agent listens, and what the others dial: `address:port`. Its address is also
    /// the host's on the underlay.
    pub listen: String,
    pub members: Vec<MemberAddress>,
}

/// For `godwit`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AdminConfig {
    pub members: Vec<MemberAddress>,
}

#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error("can't read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("can't write `{path}`")]
    Write {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{path}` is not a valid configuration")]
    Parse {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
}

/// Reads `config.json` of a configuration directory.
pub fn load<T: DeserializeOwned>(dir: &Path) -> Result<T, ConfigError> {
    let path = dir.join(FILE);
    let text = fs::read(&path).map_err(|source| ConfigError::Read {
        path: path.clone(),
        source,
    })?;
    serde_json::from_slice(&text).map_err(|source| ConfigError::Parse { path, source })
}

/// Writes `config.json` of a configuration directory.
pub fn save<T: Serialize>(dir: &Path, config: &T) -> Result<(), ConfigError> {
    let path = dir.join(FILE);
    let text = serde_json::to_vec_pretty(config).map_err(|source| ConfigError::Parse {
        path: path.clone(),
        source,
    })?;
    fs::create_dir_all(dir)
        .and_then(|()| fs::write(&path, text))
        .map_err(|source| ConfigError::Write { path, source })
}
