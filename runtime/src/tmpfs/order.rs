//! The two commands that CRIU gives to `tar`.

use std::{
    ffi::{OsStr, OsString},
    path::PathBuf,
};

#[derive(Debug, PartialEq, Eq)]
pub(super) enum Order {
    Create { directory: PathBuf },
    Extract { directory: PathBuf },
}

/// What both say: the archive is gzipped, names are bytes.
const COMMON: [&str; 3] = ["--gzip", "--no-unquote", "--no-wildcards"];
/// What a dump adds.
const CREATE: [&str; 5] = [
    "--one-file-system",
    "--check-links",
    "--preserve-permissions",
    "--sparse",
    "--numeric-owner",
];

impl Order {
    /// None: something else is asked for, or something is missing that changes the result.
    pub(super) fn parse(arguments: &[OsString]) -> Option<Self> {
        let (first, rest) = arguments.split_first()?;
        let create = match first.to_str()? {
            "--create" => true,
            "--extract" => false,
            _ => return None,
        };
        let mut wanted: Vec<&str> = COMMON.to_vec();
        if create {
            wanted.extend(CREATE);
        }
        let mut directory = None;
        let mut all = false;
        let mut rest = rest.iter();
        while let Some(argument) = rest.next() {
            if argument == "--directory" {
                directory = Some(PathBuf::from(rest.next()?));
            } else if argument == OsStr::new(".") {
                all = true;
            } else {
                let at = wanted.iter().position(|option| argument == option)?;
                wanted.remove(at);
            }
        }
        if !wanted.is_empty() || all != create {
            return None;
        }
        let directory = directory?;
        Some(if create {
            Self::Create { directory }
        } else {
            Self::Extract { directory }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Order> {
        let words: Vec<OsString> = line.split(' ').map(OsString::from).collect();
        Order::parse(&words)
    }

    #[test]
    fn only_what_criu_says_is_understood() {
        let create = "--create --gzip --no-unquote --no-wildcards --one-file-system --check-links \
            --preserve-permissions --sparse --numeric-owner --directory /proc/self/fd/0 .";
        let directory = PathBuf::from("/proc/self/fd/0");
        assert_eq!(parse(create), Some(Order::Create { directory }));
        let extract = "--extract --gzip --no-unquote --no-wildcards --directory /dev";
        let directory = PathBuf::from("/dev");
        assert_eq!(parse(extract), Some(Order::Extract { directory }));
        for other in [
            "--version",
            "--extract --gzip --no-unquote --no-wildcards --directory",
            "--extract --gzip --no-unquote --no-wildcards --directory /dev .",
            "--extract --gzip --no-unquote --no-wildcards --xattrs --directory /dev",
            "--extract --no-unquote --no-wildcards --directory /dev",
            &create.replace("--numeric-owner ", ""),
            &create.replace(" .", ""),
        ] {
            assert_eq!(parse(other), None, "{other}");
        }
    }
}
