//! An image's configuration document, the same in Docker's and in OCI's form.

use std::collections::BTreeMap;

use godwit_types::{Digest, HealthOptions, ImageConfig};
use serde::{Deserialize, Deserializer};
use sha2::{Digest as _, Sha256};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::error::ImageError;

pub(super) const MAX_LAYERS: usize = 127;

#[derive(Debug)]
pub(super) struct Config {
    pub run: ImageConfig,
    /// Seconds since 1970; 0: not said.
    pub created: i64,
    /// Digests of the uncompressed layers, bottom first.
    pub diff_ids: Vec<Digest>,
    pub platform: Platform,
}

#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub(super) struct Platform {
    #[serde(default)]
    pub os: String,
    #[serde(default)]
    pub architecture: String,
}

impl Platform {
    /// This host's, in Go's words, as images use them.
    pub(super) fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
        }
    }

    /// What an image leaves unsaid is taken to fit.
    pub(super) fn fits(&self) -> bool {
        let here = Self::here();
        [
            (&self.os, &here.os),
            (&self.architecture, &here.architecture),
        ]
        .iter()
        .all(|(image, here)| image.is_empty() || image == here)
    }
}

impl std::fmt::Display for Platform {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)
    }
}

/// `null` stands for nothing, as Go writes it.
fn nullable<'de, D: Deserializer<'de>, T: Default + Deserialize<'de>>(d: D) -> Result<T, D::Error> {
    Ok(Option::deserialize(d)?.unwrap_or_default())
}

#[derive(Deserialize)]
struct Document {
    #[serde(default, deserialize_with = "nullable")]
    created: String,
    #[serde(default, deserialize_with = "nullable")]
    os: String,
    #[serde(default, deserialize_with = "nullable")]
    architecture: String,
    #[serde(default, deserialize_with = "nullable")]
    config: Run,
    rootfs: Rootfs,
}

#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Run {
    #[serde(default, deserialize_with = "nullable")]
    user: String,
    #[serde(default, deserialize_with = "nullable")]
    env: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    entrypoint: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    cmd: Vec<String>,
    #[serde(default, deserialize_with = "nullable")]
    working_dir: String,
    #[serde(default, deserialize_with = "nullable")]
    stop_signal: String,
    #[serde(default, deserialize_with = "nullable")]
    labels: BTreeMap<String, String>,
    /// Sets, as Go writes them.
    #[serde(default, deserialize_with = "nullable")]
    volumes: BTreeMap<String, serde_json::Value>,
    #[serde(default, deserialize_with = "nullable")]
    exposed_ports: BTreeMap<String, serde_json::Value>,
    #[serde(default)]
    healthcheck: Option<Healthcheck>,
}

/// As Docker writes it: times in nanoseconds.
#[derive(Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Healthcheck {
    #[serde(deserialize_with = "nullable")]
    test: Vec<String>,
    interval: u64,
    timeout: u64,
    start_period: u64,
    retries: u32,
}

impl From<Healthcheck> for HealthOptions {
    fn from(check: Healthcheck) -> Self {
        let millis = |nanos: u64| (nanos > 0).then_some(nanos / 1_000_000);
        let off = check.test.first().is_some_and(|first| first == "NONE");
        Self {
            off,
            test: if off { Vec::new() } else { check.test },
            interval_ms: millis(check.interval),
            timeout_ms: millis(check.timeout),
            start_period_ms: millis(check.start_period),
            retries: (check.retries > 0).then_some(check.retries),
        }
    }
}

#[derive(Deserialize)]
struct Rootfs {
    #[serde(default, deserialize_with = "nullable")]
    diff_ids: Vec<Digest>,
}

impl Config {
    /// `name` is what the document is called in messages.
    pub(super) fn parse(name: &str, json: &[u8]) -> Result<Self, ImageError> {
        let document: Document =
            serde_json::from_slice(json).map_err(|source| ImageError::Json {
                document: name.to_owned(),
                source,
            })?;
        let diff_ids = document.rootfs.diff_ids;
        if diff_ids.len() > MAX_LAYERS {
            return Err(ImageError::Limit {
                what: "a number of layers of".to_owned(),
                found: diff_ids.len() as u64,
                limit: MAX_LAYERS as u64,
            });
        }
        let created = OffsetDateTime::parse(&document.created, &Rfc3339);
        let run = document.config;
        Ok(Self {
            run: ImageConfig {
                entrypoint: run.entrypoint,
                cmd: run.cmd,
                env: run.env,
                working_dir: run.working_dir,
                user: run.user,
                stop_signal: run.stop_signal,
                labels: run.labels,
                volumes: run.volumes.into_keys().collect(),
                exposed: run.exposed_ports.into_keys().collect(),
                healthcheck: run.healthcheck.map(HealthOptions::from),
            },
            created: created.map_or(0, OffsetDateTime::unix_timestamp),
            diff_ids,
            platform: Platform {
                os: document.os,
                architecture: document.architecture,
            },
        })
    }

    /// The chain ids of the layers, bottom first.
    pub(super) fn chain_ids(&self) -> Vec<Digest> {
        let mut chain: Vec<Digest> = Vec::with_capacity(self.diff_ids.len());
        for diff_id in &self.diff_ids {
            chain.push(match chain.last() {
                None => diff_id.clone(),
                Some(below) => digest(format!("{below} {diff_id}").as_bytes()),
            });
        }
        chain
    }
}

/// SHA-256, as images use it.
pub fn digest(bytes: &[u8]) -> Digest {
    Digest::from_sha256(Sha256::digest(bytes).into())
}
