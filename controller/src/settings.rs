//! `controller.toml`: what a member's settings file may say. Keys are those of the command line.

use std::{net::SocketAddr, path::PathBuf};

use serde::Deserialize;

/// Where it is unless it is named.
pub const FILE: &str = "/etc/godwit/controller.toml";

#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
pub struct Settings {
    pub config: Option<PathBuf>,
    pub data_root: Option<PathBuf>,
    pub log_level: Option<String>,
    pub metrics: Option<SocketAddr>,
    pub socket: Option<PathBuf>,
    pub socket_group: Option<String>,
    pub admin: Option<PathBuf>,
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn the_file_that_is_shipped_is_read_and_each_key_has_an_example() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/etc/controller.toml");
        let settings: Settings = godwit_daemon::settings::read(&path, true).unwrap();
        assert!(settings.data_root.is_none());
        let text = std::fs::read_to_string(&path).unwrap();
        let examples: String = text
            .lines()
            .filter_map(|line| line.strip_prefix("#").filter(|rest| rest.contains(" = ")))
            .map(|line| format!("{}\n", line.trim()))
            .collect();
        let dir = tempfile::TempDir::new().unwrap();
        let all = dir.path().join("all.toml");
        std::fs::write(&all, &examples).unwrap();
        let settings: Settings = godwit_daemon::settings::read(&all, true).unwrap();
        let said = format!("{settings:?}");
        assert!(!said.contains("None"), "a key has no example: {said}");
    }
}
