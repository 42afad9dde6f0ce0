//! `-e KEY=VALUE`, or `-e KEY` with the value of the caller's own environment.

/// Why an environment entry was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum EnvError {
    #[error("environment entry `{0}` has no name before the `=`")]
    NoName(String),
    #[error("environment variable `{0}` is not valid UTF-8 here")]
    NotText(String),
}

/// The entries as `KEY=VALUE`, in order. A KEY that `lookup` does not have is left out, as Docker
/// does.
pub fn resolve<L>(entries: &[String], lookup: L) -> Result<Vec<String>, EnvError>
where
    L: Fn(&str) -> Option<std::ffi::OsString>,
{
    let mut resolved = Vec::new();
    for entry in entries {
        match entry.split_once('=') {
            Some(("", _)) => return Err(EnvError::NoName(entry.clone())),
            Some(_) => resolved.push(entry.clone()),
            None if entry.is_empty() => return Err(EnvError::NoName(entry.clone())),
            None => {
                if let Some(value) = lookup(entry) {
                    let value = value
                        .into_string()
                        .map_err(|_| EnvError::NotText(entry.clone()))?;
                    resolved.push(format!("{entry}={value}"));
                }
            }
        }
    }
    Ok(resolved)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn resolved(entries: &[&str]) -> Result<Vec<String>, EnvError> {
        let entries: Vec<_> = entries.iter().map(|&entry| entry.to_owned()).collect();
        resolve(&entries, |key| (key == "HOME").then(|| "/root".into()))
    }

    #[test]
    fn a_bare_name_takes_the_callers_value() {
        assert_eq!(
            resolved(&["A=1", "HOME", "ABSENT", "B=", "C=x=y"]).unwrap(),
            ["A=1", "HOME=/root", "B=", "C=x=y"]
        );
    }

    #[test]
    fn an_entry_without_a_name_is_refused() {
        assert_eq!(resolved(&["=1"]), Err(EnvError::NoName("=1".into())));
        assert_eq!(resolved(&[""]), Err(EnvError::NoName(String::new())));
    }
}
