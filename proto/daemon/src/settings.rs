//! The settings file of a daemon, such as `/etc/godwit/agent.toml`: TOML, every key optional. What is
//! given on the command line or in the environment wins over it.

use std::{
    fmt::Display,
    fs, io,
    path::{Path, PathBuf},
    str::FromStr,
};

use serde::{Deserialize, Deserializer, de::DeserializeOwned};

#[derive(Debug, thiserror::Error)]
pub enum SettingsError {
    #[error("can't read `{path}`")]
    Read {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    /// Lines count from 1.
    #[error("`{path}` line {line}: {reason}")]
    Invalid {
        path: PathBuf,
        line: usize,
        reason: String,
    },
}

/// Reads `path`. A file that is not there has no keys, unless it was `asked` for by name.
pub fn read<T: DeserializeOwned + Default>(path: &Path, asked: bool) -> Result<T, SettingsError> {
    match fs::read_to_string(path) {
        Ok(text) => parse(path, &text),
        Err(error) if error.kind() == io::ErrorKind::NotFound && !asked => Ok(T::default()),
        Err(source) => Err(SettingsError::Read {
            path: path.into(),
            source,
        }),
    }
}

fn parse<T: DeserializeOwned>(path: &Path, text: &str) -> Result<T, SettingsError> {
    toml::from_str(text).map_err(|error| {
        let at = error.span().map_or(0, |span| span.start.min(text.len()));
        SettingsError::Invalid {
            path: path.into(),
            line: text[..at].matches('\n').count() + 1,
            reason: explain(error.message()),
        }
    })
}

/// A key that is unknown is most likely one that was misspelt.
fn explain(message: &str) -> String {
    let Some(rest) = message.strip_prefix("unknown field ") else {
        return message.to_owned();
    };
    let mut names = rest.split('`').skip(1).step_by(2);
    let Some(unknown) = names.next() else {
        return message.to_owned();
    };
    let known: Vec<&str> = names.collect();
    let nearest = known
        .iter()
        .map(|known| (distance(unknown, known), known))
        .min();
    match nearest {
        Some((distance, nearest)) if distance <= 1 + unknown.len() / 3 => {
            format!("there is no key `{unknown}`: did you mean `{nearest}`?")
        }
        _ => format!(
            "there is no key `{unknown}`: there are {}",
            known.join(", ")
        ),
    }
}

/// Insertions, deletions and replacements from one word to the other.
fn distance(from: &str, to: &str) -> usize {
    let to: Vec<char> = to.chars().collect();
    let mut row: Vec<usize> = (0..=to.len()).collect();
    for (index, letter) in from.chars().enumerate() {
        let mut before = row[0];
        row[0] = index + 1;
        for (at, other) in to.iter().enumerate() {
            let replaced = before + usize::from(letter != *other);
            before = row[at + 1];
            row[at + 1] = replaced.min(row[at] + 1).min(before + 1);
        }
    }
    row[to.len()]
}

/// For `#[serde(deserialize_with)]`: a value as it is typed on the command line, such as `2g`.
pub fn typed<'de, T, D>(from: D) -> Result<Option<T>, D::Error>
where
    T: FromStr<Err: Display>,
    D: Deserializer<'de>,
{
    let text = String::deserialize(from)?;
    text.parse().map(Some).map_err(serde::de::Error::custom)
}

#[cfg(test)]
mod tests {
    use godwit_types::ByteSize;

    use super::*;

    #[derive(Debug, Default, PartialEq, Deserialize)]
    #[serde(default, deny_unknown_fields, rename_all = "kebab-case")]
    struct Sample {
        data_root: Option<PathBuf>,
        #[serde(deserialize_with = "typed")]
        memory_reserve: Option<ByteSize>,
        log_level: Option<String>,
    }

    fn refused(text: &str) -> String {
        let parsed: Result<Sample, _> = parse(Path::new("/etc/x.toml"), text);
        parsed.unwrap_err().to_string()
    }

    #[test]
    fn a_file_is_read_as_it_is_typed() {
        let text = "# a comment\ndata-root = \"/srv\"\nmemory-reserve = \"2g\"\n";
        let parsed: Sample = parse(Path::new("x"), text).unwrap();
        assert_eq!(parsed.data_root, Some("/srv".into()));
        assert_eq!(parsed.memory_reserve, Some(ByteSize(2 << 30)));
        assert_eq!(parsed.log_level, None);
        assert_eq!(
            parse::<Sample>(Path::new("x"), "").unwrap(),
            Sample::default()
        );
    }

    #[test]
    fn a_misspelt_key_is_named_with_its_line_and_what_was_meant() {
        let said = refused("log-level = \"info\"\n\ndata-rot = \"/srv\"\n");
        assert_eq!(
            said,
            "`/etc/x.toml` line 3: there is no key `data-rot`: did you mean `data-root`?"
        );
        let said = refused("port = 3\n");
        assert!(
            said.ends_with("there are data-root, memory-reserve, log-level"),
            "{said}"
        );
    }

    #[test]
    fn a_value_that_is_none_is_named_with_its_line() {
        let said = refused("\nmemory-reserve = \"much\"\n");
        assert!(
            said.starts_with("`/etc/x.toml` line 2: size `much`"),
            "{said}"
        );
        assert!(refused("data-root = 3\n").contains("line 1"));
        assert!(refused("data-root = \"/srv\"\ndata-root").contains("line 2"));
        assert!(refused("data-root = \"a\"\ndata-root = \"b\"").contains("line 2"));
    }

    #[test]
    fn only_a_file_that_was_asked_for_must_be_there() {
        let path = Path::new("/nonexistent/agent.toml");
        assert_eq!(read::<Sample>(path, false).unwrap(), Sample::default());
        let said = read::<Sample>(path, true).unwrap_err().to_string();
        assert_eq!(said, "can't read `/nonexistent/agent.toml`");
    }
}
