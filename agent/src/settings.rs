//! `agent.toml`: what the agent's settings file may say. Keys are those of the command line.

use std::{net::SocketAddr, path::PathBuf};

use godwit_agent::ImagesConfig;
use godwit_daemon::settings::typed;
use godwit_runtime::memory::Wanted;
use godwit_types::ByteSize;
use serde::Deserialize;

/// Where it is unless it is named.
pub const FILE: &str = "/etc/godwit/agent.toml";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub config: Option<PathBuf>,
    pub data_root: Option<PathBuf>,
    pub run_root: Option<PathBuf>,
    pub cgroup_parent: Option<String>,
    pub criu: Option<PathBuf>,
    pub interpose: Option<PathBuf>,
    pub shim: Option<PathBuf>,
    #[serde(deserialize_with = "typed")]
    pub memory_reserve: Option<ByteSize>,
    #[serde(deserialize_with = "typed")]
    pub tracking: Option<Wanted>,
    pub verify_memory: Option<bool>,
    pub log_level: Option<String>,
    pub metrics: Option<SocketAddr>,
    pub socket: Option<PathBuf>,
    pub socket_group: Option<String>,
    pub admin: Option<PathBuf>,
    pub images: Option<ImagesConfig>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_file_that_is_shipped_is_read_and_sets_nothing() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/etc/agent.toml");
        let text = std::fs::read_to_string(&path).unwrap();
        let settings: Settings = godwit_daemon::settings::read(&path, true).unwrap();
        assert!(settings.data_root.is_none() && settings.tracking.is_none());
        // Each key is in it, as a comment with an example, which is valid too.
        let examples: String = text
            .lines()
            .filter_map(|line| {
                let rest = line.strip_prefix("#")?;
                (rest.contains(" = ") || rest.starts_with('[')).then_some(rest)
            })
            .map(|line| format!("{}\n", line.trim()))
            .collect();
        let dir = tempfile::TempDir::new().unwrap();
        let all = dir.path().join("all.toml");
        std::fs::write(&all, &examples).unwrap();
        let settings: Settings = godwit_daemon::settings::read(&all, true).unwrap();
        let said = format!("{settings:?}");
        let (own, _) = said.split_once("images: ").unwrap();
        assert!(!own.contains("None"), "a key has no example: {said}");
        assert_eq!(settings.images.unwrap().insecure_registries.len(), 1);
    }
}
