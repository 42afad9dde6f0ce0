//! Whether a container's command exists and can be executed: asked before anything is made, so
//! that the answer is 127 or 126 and not a failure half-way.

use std::{os::unix::fs::PermissionsExt, path::Path};

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CommandError {
    #[error("no command was given and the image has none")]
    Empty,
    #[error("command `{0}` not found in the container")]
    NotFound(String),
    #[error("command `{0}` can't be executed in the container: {1}")]
    NotExecutable(String, &'static str),
}

/// Looks the command up in the container's root as `execvp` will.
pub fn resolve(root: &Path, command: &str, path: &str, cwd: &str) -> Result<(), CommandError> {
    if command.is_empty() {
        return Err(CommandError::Empty);
    }
    let candidates: Vec<String> = if command.starts_with('/') {
        vec![command.to_owned()]
    } else if command.contains('/') {
        vec![format!("{cwd}/{command}")]
    } else {
        path.split(':')
            .filter(|dir| !dir.is_empty())
            .map(|dir| format!("{dir}/{command}"))
            .collect()
    };
    let mut problem = None;
    for candidate in candidates {
        // Symbolic links mean what they mean inside the container.
        let Ok(handle) = pathrs::Root::open(root).and_then(|root| root.resolve(&candidate)) else {
            continue;
        };
        let Ok(metadata) = handle.as_file_metadata() else {
            continue;
        };
        if metadata.is_dir() {
            problem = Some("it is a directory");
        } else if metadata.permissions().mode() & 0o111 == 0 {
            problem = Some("permission denied");
        } else {
            return Ok(());
        }
    }
    Err(match problem {
        Some(problem) => CommandError::NotExecutable(command.to_owned(), problem),
        None => CommandError::NotFound(command.to_owned()),
    })
}

/// The metadata behind a handle.
trait Metadata {
    fn as_file_metadata(&self) -> std::io::Result<std::fs::Metadata>;
}

impl Metadata for pathrs::Handle {
    fn as_file_metadata(&self) -> std::io::Result<std::fs::Metadata> {
        use std::os::fd::AsFd;
        std::fs::File::from(self.as_fd().try_clone_to_owned()?).metadata()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_command_is_found_refused_or_missing() {
        let dir = tempfile::tempdir().unwrap();
        let bin = dir.path().join("bin");
        fs::create_dir(&bin).unwrap();
        for (name, mode) in [("good", 0o755), ("plain", 0o644)] {
            fs::write(bin.join(name), "").unwrap();
            fs::set_permissions(bin.join(name), fs::Permissions::from_mode(mode)).unwrap();
        }
        // Absolute inside the container: not the host's /bin/good.
        std::os::unix::fs::symlink("/bin/good", bin.join("link")).unwrap();
        let ask = |command: &str| resolve(dir.path(), command, "/usr/bin:/bin", "/");
        for good in ["good", "/bin/good", "link", "bin/good"] {
            assert_eq!(ask(good), Ok(()), "{good}");
        }
        assert!(matches!(ask("plain"), Err(CommandError::NotExecutable(..))));
        assert!(matches!(ask("/bin"), Err(CommandError::NotExecutable(..))));
        assert!(matches!(ask("none"), Err(CommandError::NotFound(_))));
        assert_eq!(ask(""), Err(CommandError::Empty));
    }
}
