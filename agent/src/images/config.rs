//! What this host is told about registries. `--images-config FILE` names it, as TOML or JSON; the
//! same table can be a part of a larger configuration.
//!
//! ```toml
//! default-registry = "registry.example"          # what a name without a host means
//! registry-mirrors = ["https://mirror.example"]  # asked before it
//! insecure-registries = ["10.0.0.5:5000"]        # HTTP, or a certificate that nobody vouches for
//! max-concurrent-downloads = 3
//!
//! [registries."registry.example"]
//! mirrors = ["http://10.0.0.5:5000"]
//! ca = "/etc/godwit/registry-ca.pem"
//! ```

use std::{
    collections::BTreeMap,
    fs, io,
    path::{Path, PathBuf},
};

use serde::Deserialize;

const MAX_FILE: u64 = 1 << 20;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct ImagesConfig {
    /// `HOST[:PORT][/PATH]`. The path is put before names of one component, as `library`.
    pub default_registry: Option<String>,
    /// `[http[s]://]HOST[:PORT]`, asked for names without a host before the default registry is.
    pub registry_mirrors: Vec<String>,
    /// `HOST[:PORT]` or a network, as in `10.0.0.0/8`. Those on this machine's loopback are insecure without being listed.
    pub insecure_registries: Vec<String>,
    /// By `HOST[:PORT]`.
    pub registries: BTreeMap<String, RegistryConfig>,
    /// Blobs at once, in all pulls together.
    pub max_concurrent_downloads: usize,
    /// Blobs at once, in all pushes together.
    pub max_concurrent_uploads: usize,
    /// Seconds without a byte after which a transfer is broken off and tried again.
    pub stall_timeout: u64,
    /// Without these the environment's `HTTP_PROXY`, `HTTPS_PROXY` and `NO_PROXY` hold.
    pub http_proxy: Option<String>,
    pub https_proxy: Option<String>,
    pub no_proxy: Option<String>,
}

/// What is particular to one registry.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields, default)]
pub struct RegistryConfig {
    pub mirrors: Vec<String>,
    /// Certificates of the authority that vouches for it, PEM, beside the system's.
    pub ca: Option<PathBuf>,
}

impl Default for ImagesConfig {
    fn default() -> Self {
        Self {
            default_registry: None,
            registry_mirrors: Vec::new(),
            insecure_registries: Vec::new(),
            registries: BTreeMap::new(),
            max_concurrent_downloads: 3,
            max_concurrent_uploads: 5,
            stall_timeout: 30,
            http_proxy: None,
            https_proxy: None,
            no_proxy: None,
        }
    }
}

/// Why the file can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ImagesConfigError {
    #[error("can't read `{}`", path.display())]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not valid TOML for images", path.display())]
    Toml {
        path: PathBuf,
        #[source]
        source: Box<toml::de::Error>,
    },
    #[error("`{}` is not valid JSON for images", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}`: `{key}` is {found}, not {wanted}", path.display())]
    Value {
        path: PathBuf,
        key: &'static str,
        found: u64,
        wanted: &'static str,
    },
}

impl ImagesConfig {
    /// Reads a file: JSON if it is called so, else TOML.
    pub fn load(path: &Path) -> Result<Self, ImagesConfigError> {
        let at = || path.to_owned();
        let read = |source| ImagesConfigError::Read { path: at(), source };
        let size = fs::metadata(path).map_err(read)?.len();
        if size > MAX_FILE {
            return Err(read(io::ErrorKind::FileTooLarge.into()));
        }
        let text = fs::read_to_string(path).map_err(read)?;
        let config: Self = if path
            .extension()
            .is_some_and(|extension| extension == "json")
        {
            serde_json::from_str(&text)
                .map_err(|source| ImagesConfigError::Json { path: at(), source })?
        } else {
            toml::from_str(&text).map_err(|source| ImagesConfigError::Toml {
                path: at(),
                source: Box::new(source),
            })?
        };
        config.check(path)?;
        Ok(config)
    }

    fn check(&self, path: &Path) -> Result<(), ImagesConfigError> {
        let numbers = [
            (
                "max-concurrent-downloads",
                self.max_concurrent_downloads as u64,
            ),
            ("max-concurrent-uploads", self.max_concurrent_uploads as u64),
            ("stall-timeout", self.stall_timeout),
        ];
        for (key, found) in numbers {
            let most = if key == "stall-timeout" { 3600 } else { 64 };
            if !(1..=most).contains(&found) {
                return Err(ImagesConfigError::Value {
                    path: path.to_owned(),
                    key,
                    found,
                    wanted: if most == 64 {
                        "1 to 64"
                    } else {
                        "1 to 3600 seconds"
                    },
                });
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn load(name: &str, text: &str) -> Result<ImagesConfig, ImagesConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join(name);
        fs::write(&path, text).unwrap();
        ImagesConfig::load(&path)
    }

    #[test]
    fn both_forms_say_the_same() {
        let toml = load(
            "images.toml",
            "default-registry = \"reg.example\"\n[registries.\"reg.example\"]\nca = \"/ca\"\n",
        );
        let json =
            r#"{"default-registry": "reg.example", "registries": {"reg.example": {"ca": "/ca"}}}"#;
        let toml = toml.unwrap();
        assert_eq!(toml, load("images.json", json).unwrap());
        assert_eq!(toml.max_concurrent_downloads, 3);
    }

    #[test]
    fn what_is_not_known_or_makes_no_sense_is_refused() {
        assert!(load("x.toml", "defualt-registry = \"x\"").is_err());
        assert!(load("x.json", "{").is_err());
        let error = load("x.toml", "max-concurrent-downloads = 0").unwrap_err();
        assert!(
            error.to_string().contains("max-concurrent-downloads"),
            "{error}"
        );
    }
}
