//! Terminal, standard input and log of a container.

use serde::{Deserialize, Serialize};

use crate::ByteSize;

#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct TerminalOptions {
    /// Descriptors 0, 1 and 2 are a pseudo-terminal.
    pub tty: bool,
    /// Standard input is kept open, whether anybody is attached or not.
    pub stdin: bool,
    /// Standard input ends when the first who was attached goes.
    pub stdin_once: bool,
    /// The first size of the terminal.
    pub size: Option<TerminalSize>,
    pub log: LogOptions,
}

/// How much of its output is kept.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct LogOptions {
    /// A file that is larger is rotated. None: one file without bounds.
    pub max_size: Option<ByteSize>,
    /// Files that are kept, the present one included. None: 1.
    pub max_file: Option<u32>,
}

/// Of a terminal, in characters.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TerminalSize {
    pub rows: u16,
    pub columns: u16,
}
