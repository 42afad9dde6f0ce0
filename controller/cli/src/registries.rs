//! Credentials for registries, kept in the user's configuration directory.
//!
//! ```text
//! DIR/registries.json    0600: {"version": 1, "registries": {"host:port": {"username", "password"}}}
//! ```
//!
//! They stay here; one registry's go along with a request that concerns it. `""` stands for the
//! hosts' default registry.

use std::{
    collections::BTreeMap,
    fs::{self, File},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use godwit_types::{ImageReference, RegistryCredentials};
use serde::{Deserialize, Serialize};

const FILE: &str = "registries.json";
const VERSION: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum RegistriesError {
    #[error("can't {step} `{}`", path.display())]
    Io {
        step: &'static str,
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("`{}` is not what this program wrote", path.display())]
    Json {
        path: PathBuf,
        #[source]
        source: serde_json::Error,
    },
    #[error("`{}` has version {found}, this program knows {VERSION}", path.display())]
    Version { path: PathBuf, found: u32 },
}

#[derive(Debug, Serialize, Deserialize)]
struct Stored {
    version: u32,
    registries: BTreeMap<String, RegistryCredentials>,
}

/// See the module.
#[derive(Debug)]
pub struct Registries {
    path: PathBuf,
    stored: Stored,
}

impl Registries {
    /// Those of a configuration directory; none if it has no file of them.
    pub fn open(dir: &Path) -> Result<Self, RegistriesError> {
        let path = dir.join(FILE);
        let none = Stored {
            version: VERSION,
            registries: BTreeMap::new(),
        };
        let stored = match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json).map_err(|source| RegistriesError::Json {
                path: path.clone(),
                source,
            })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => none,
            Err(source) => {
                return Err(RegistriesError::Io {
                    step: "read",
                    path,
                    source,
                });
            }
        };
        if stored.version != VERSION {
            let found = stored.version;
            return Err(RegistriesError::Version { path, found });
        }
        Ok(Self { path, stored })
    }

    /// What goes along with a request about this image.
    pub fn of(&self, reference: &ImageReference) -> Option<RegistryCredentials> {
        let registry = reference.domain().unwrap_or("");
        self.stored.registries.get(registry).cloned()
    }

    /// Keeps credentials for a registry, on the disk.
    pub fn keep(
        &mut self,
        registry: &str,
        credentials: RegistryCredentials,
    ) -> Result<(), RegistriesError> {
        let key = registry.to_ascii_lowercase();
        self.stored.registries.insert(key, credentials);
        self.write()
    }

    /// Forgets a registry's. False: there were none.
    pub fn forget(&mut self, registry: &str) -> Result<bool, RegistriesError> {
        let key = registry.to_ascii_lowercase();
        let known = self.stored.registries.remove(&key).is_some();
        if known {
            self.write()?;
        }
        Ok(known)
    }

    fn write(&self) -> Result<(), RegistriesError> {
        let failed = |step| {
            let path = self.path.clone();
            move |source| RegistriesError::Io { step, path, source }
        };
        let json =
            serde_json::to_vec_pretty(&self.stored).map_err(|source| RegistriesError::Json {
                path: self.path.clone(),
                source,
            })?;
        // Nobody else reads it, not even for the moment before a chmod.
        let beside = self
            .path
            .with_extension(format!("{}.new", std::process::id()));
        let _ = fs::remove_file(&beside);
        let mut file = File::options()
            .write(true)
            .create_new(true)
            .mode(0o600)
            .open(&beside)
            .map_err(failed("make"))?;
        file.write_all(&json)
            .and_then(|()| file.sync_all())
            .map_err(failed("write"))?;
        fs::rename(&beside, &self.path).map_err(failed("rename"))
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn credentials() -> RegistryCredentials {
        RegistryCredentials {
            username: "ann".into(),
            password: "secret".into(),
        }
    }

    #[test]
    fn what_is_kept_is_the_owners_alone_and_goes_to_its_registry_alone() {
        let dir = tempfile::tempdir().unwrap();
        let mut registries = Registries::open(dir.path()).unwrap();
        registries.keep("Reg.example:5000", credentials()).unwrap();
        let path = dir.path().join(FILE);
        let mode = fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut registries = Registries::open(dir.path()).unwrap();
        let of = |registries: &Registries, text: &str| registries.of(&text.parse().unwrap());
        assert_eq!(of(&registries, "reg.example:5000/x"), Some(credentials()));
        for other in ["x", "reg.example/x", "reg.example:5001/x"] {
            assert_eq!(of(&registries, other), None, "{other}");
        }
        assert!(registries.forget("reg.example:5000").unwrap());
        assert!(!registries.forget("reg.example:5000").unwrap());
        assert!(!fs::read_to_string(path).unwrap().contains("secret"));
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    }

    #[test]
    fn a_file_of_another_kind_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join(FILE), "{}").unwrap();
        assert!(Registries::open(dir.path()).is_err());
        fs::write(dir.path().join(FILE), r#"{"version":2,"registries":{}}"#).unwrap();
        assert!(matches!(
            Registries::open(dir.path()),
            Err(RegistriesError::Version { found: 2, .. })
        ));
    }
}
