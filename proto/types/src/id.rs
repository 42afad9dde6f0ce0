//! Names that people give and ids that the cluster gives. Both are checked when they are made,
//! so that no path, label or shell ever sees an unchecked one.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// Why a name or an id was refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdError {
    #[error(
        "{what} `{value}` is not valid: 1 to 63 of letters, digits, `_`, `.` and `-`, the first a letter or digit"
    )]
    Name { what: &'static str, value: String },
    #[error("{what} `{value}` is not valid: {length} lowercase hexadecimal digits")]
    Hex {
        what: &'static str,
        value: String,
        length: usize,
    },
}

fn shown(value: &str) -> String {
    value.chars().take(80).collect()
}

fn is_name(value: &str) -> bool {
    let mut bytes = value.bytes();
    (1..=63).contains(&value.len())
        && bytes.next().is_some_and(|b| b.is_ascii_alphanumeric())
        && bytes.all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'.' | b'-'))
}

fn is_hex(value: &str, length: usize) -> bool {
    value.len() == length
        && value
            .bytes()
            .all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

macro_rules! checked_string {
    ($(#[$doc:meta])* $name:ident, $what:literal, |$value:ident| $valid:expr, $error:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        #[serde(try_from = "String", into = "String")]
        pub struct $name(String);

        impl $name {
            /// Checks the text and keeps it.
            pub fn new(value: impl Into<String>) -> Result<Self, IdError> {
                let $value = value.into();
                if $valid { Ok(Self($value)) } else { Err($error) }
            }

            pub fn as_str(&self) -> &str {
                &self.0
            }
        }

        impl TryFrom<String> for $name {
            type Error = IdError;
            fn try_from(value: String) -> Result<Self, IdError> {
                Self::new(value)
            }
        }

        impl From<$name> for String {
            fn from(value: $name) -> String {
                value.0
            }
        }

        impl FromStr for $name {
            type Err = IdError;
            fn from_str(value: &str) -> Result<Self, IdError> {
                Self::new(value)
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.pad(&self.0)
            }
        }
    };
}

macro_rules! name {
    ($(#[$doc:meta])* $name:ident, $what:literal) => {
        checked_string!($(#[$doc])* $name, $what, |value| is_name(&value),
            IdError::Name { what: $what, value: shown(&value) });
    };
}

macro_rules! hex_id {
    ($(#[$doc:meta])* $name:ident, $what:literal, $length:literal) => {
        checked_string!($(#[$doc])* $name, $what, |value| is_hex(&value, $length),
            IdError::Hex { what: $what, value: shown(&value), length: $length });

        impl $name {
            /// The id of these random bytes: each becomes two digits.
            pub fn from_bytes(bytes: [u8; $length / 2]) -> Self {
                Self(hex::encode(bytes))
            }
        }
    };
}

name!(
    /// A host: a machine with an agent.
    HostName, "host name");
name!(
    /// A member: a controller in the Raft group.
    MemberName, "member name");
name!(
    /// What people call a container.
    ContainerName, "container name");
name!(
    /// What people call a network.
    NetworkName, "network name");

checked_string!(
    /// What people call a volume; sixty-four digits for one that nobody named.
    VolumeName, "volume name", |value| is_name(&value) || is_hex(&value, 64),
    IdError::Name { what: "volume name", value: shown(&value) });

hex_id!(
    /// A volume, whatever it is called: a name that was free again means another one.
    VolumeId, "volume id", 32);
hex_id!(
    /// A container: the logical thing that a user asked for, wherever it runs.
    ContainerId, "container id", 64);
hex_id!(
    /// One move of one container.
    MigrationId, "migration id", 16);
hex_id!(
    /// One command to one agent. A repeat carries the same id and changes nothing.
    OperationId, "operation id", 32);

impl ContainerId {
    /// The first twelve digits, as people see it.
    pub fn short(&self) -> &str {
        &self.0[..12]
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn names_that_could_escape_a_directory_are_refused() {
        for bad in [
            "",
            ".",
            "..",
            "a/b",
            "-x",
            "a b",
            "é",
            "a\0",
            &"a".repeat(64),
        ] {
            assert!(ContainerName::new(bad).is_err(), "{bad:?}");
        }
        assert!(ContainerName::new("redis-1.blue_2").is_ok());
    }

    #[test]
    fn an_id_is_exactly_its_digits() {
        assert_eq!(ContainerId::from_bytes([0xab; 32]).short(), "abababababab");
        assert!(ContainerId::new("AB".repeat(32)).is_err());
        assert!(ContainerId::new("ab".repeat(31)).is_err());
    }

    proptest! {
        #[test]
        fn any_text_is_refused_or_kept_as_it_is(text in "\\PC{0,70}") {
            if let Ok(name) = HostName::new(text.clone()) {
                prop_assert_eq!(name.as_str(), text.as_str());
                prop_assert!(!text.contains('/') && !text.starts_with('.'));
            }
        }
    }
}
