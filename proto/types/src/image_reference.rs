//! What people call an image in a registry, by Docker's grammar.
//!
//! ```text
//! [HOST[:PORT]/]COMPONENT[/COMPONENT…][:TAG][@sha256:…]
//! ```
//!
//! The first component is a host if it has a dot or a colon, or is `localhost`. A reference without
//! one is *unqualified*: which registry it means is the configuration's, never this file's.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

use crate::{Digest, IdError, ImageName};

const MAX_NAME: usize = 255;
const MAX_TAG: usize = 128;

/// See the module.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct ImageReference {
    domain: Option<String>,
    path: String,
    tag: Option<String>,
    digest: Option<Digest>,
}

impl ImageReference {
    /// `host[:port]`, lowercase.
    pub fn domain(&self) -> Option<&str> {
        self.domain.as_deref()
    }

    /// The repository in its registry.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// `latest` when neither tag nor digest is given; None: the digest alone decides.
    pub fn tag(&self) -> Option<&str> {
        match (&self.tag, &self.digest) {
            (Some(tag), _) => Some(tag),
            (None, None) => Some("latest"),
            (None, Some(_)) => None,
        }
    }

    pub fn digest(&self) -> Option<&Digest> {
        self.digest.as_ref()
    }

    /// The repository with its registry, as it was written.
    pub fn repository(&self) -> String {
        match &self.domain {
            Some(domain) => format!("{domain}/{}", self.path),
            None => self.path.clone(),
        }
    }

    /// What the image is called on a host. None: it was asked for by its digest alone.
    pub fn name(&self) -> Option<ImageName> {
        if self.digest.is_some() {
            return None;
        }
        let tag = self.tag()?;
        format!("{}:{tag}", self.repository()).parse().ok()
    }
}

fn is_domain(part: &str) -> bool {
    part.contains(['.', ':']) || part == "localhost"
}

fn domain_ok(domain: &str) -> bool {
    let (host, port) = match domain.split_once(':') {
        Some((host, port)) => (host, Some(port)),
        None => (domain, None),
    };
    let label = |label: &str| {
        !label.is_empty()
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b == b'-')
    };
    host.split('.').all(label)
        && port.is_none_or(|port| port.parse::<u16>().is_ok_and(|port| port != 0))
}

/// Runs of letters and digits, between them one of `.`, `_`, `__` or any number of `-`.
fn component_ok(component: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = component.as_bytes();
    let (Some(first), Some(last)) = (bytes.first(), bytes.last()) else {
        return false;
    };
    if !plain(*first) || !plain(*last) {
        return false;
    }
    let between = component.split(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    between
        .filter(|run| !run.is_empty())
        .all(|run| matches!(run, "." | "_" | "__") || run.bytes().all(|b| b == b'-'))
}

fn tag_ok(tag: &str) -> bool {
    let word = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    tag.len() <= MAX_TAG
        && tag.bytes().next().is_some_and(word)
        && tag.bytes().all(|b| word(b) || matches!(b, b'.' | b'-'))
}

impl TryFrom<String> for ImageReference {
    type Error = IdError;
    fn try_from(value: String) -> Result<Self, IdError> {
        let refuse = || IdError::Name {
            what: "image reference",
            value: value.chars().take(80).collect(),
        };
        let (rest, digest) = match value.split_once('@') {
            Some((rest, digest)) => (rest, Some(digest.parse().map_err(|_| refuse())?)),
            None => (value.as_str(), None),
        };
        let (name, tag) = match rest.rsplit_once(':') {
            // A colon before a slash belongs to a port.
            Some((name, tag)) if !tag.contains('/') => (name, Some(tag)),
            _ => (rest, None),
        };
        let (domain, path) = match name.split_once('/') {
            Some((first, path)) if is_domain(first) => (Some(first.to_ascii_lowercase()), path),
            _ => (None, name),
        };
        let ok = name.len() <= MAX_NAME
            && domain.as_deref().is_none_or(domain_ok)
            && path.split('/').all(component_ok)
            && tag.is_none_or(tag_ok);
        if !ok {
            return Err(refuse());
        }
        Ok(Self {
            domain,
            path: path.to_owned(),
            tag: tag.map(str::to_owned),
            digest,
        })
    }
}

impl From<ImageReference> for String {
    fn from(value: ImageReference) -> String {
        value.to_string()
    }
}

impl FromStr for ImageReference {
    type Err = IdError;
    fn from_str(value: &str) -> Result<Self, IdError> {
        Self::try_from(value.to_owned())
    }
}

impl fmt::Display for ImageReference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.repository())?;
        if let Some(tag) = self.tag() {
            write!(f, ":{tag}")?;
        }
        if let Some(digest) = &self.digest {
            write!(f, "@{digest}")?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_component_is_a_host_where_docker_says_so() {
        for (text, domain, path, tag) in [
            ("busybox", None, "busybox", "latest"),
            ("a/b:1", None, "a/b", "1"),
            ("localhost/b", Some("localhost"), "b", "latest"),
            ("reg.example/x/y:v1.2", Some("reg.example"), "x/y", "v1.2"),
            ("10.0.0.1:5000/x", Some("10.0.0.1:5000"), "x", "latest"),
            ("Reg.Example/x", Some("reg.example"), "x", "latest"),
            ("a__b/c---d.e", None, "a__b/c---d.e", "latest"),
        ] {
            let found: ImageReference = text.parse().unwrap();
            assert_eq!(found.domain(), domain, "{text}");
            assert_eq!((found.path(), found.tag()), (path, Some(tag)), "{text}");
            let again: ImageReference = found.to_string().parse().unwrap();
            assert_eq!(again.to_string(), found.to_string());
        }
    }

    #[test]
    fn a_digest_alone_gives_no_name() {
        let digest = format!("sha256:{}", "0a".repeat(32));
        let found: ImageReference = format!("reg.example/x@{digest}").parse().unwrap();
        assert_eq!((found.tag(), found.name()), (None, None));
        assert_eq!(found.digest().unwrap().as_str(), digest);
        let both: ImageReference = format!("x:1@{digest}").parse().unwrap();
        assert_eq!(both.tag(), Some("1"));
    }

    #[test]
    fn what_the_grammar_does_not_have_is_refused() {
        let long = "a".repeat(256);
        for bad in [
            "",
            ":",
            "Upper",
            "a//b",
            "/a",
            "a/",
            "a..b",
            "a___b",
            "-a",
            "a:t g",
            "a:.t",
            "a\nb",
            "a\u{1b}[2J",
            "reg.example:99999/x",
            "reg.example:/x",
            "-reg.example/x",
            "x@sha256:00",
            "../x",
            &long,
        ] {
            assert!(bad.parse::<ImageReference>().is_err(), "{bad:?}");
        }
    }
}
