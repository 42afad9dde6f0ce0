//! Everything that is printed. Standard output is for data; notes and errors go to standard
//! error.

pub mod age;
pub mod confirm;
pub mod drain;
pub mod failure;
pub mod layers;
pub mod progress;
pub mod table;

use std::io::{self, Write};

use serde::Serialize;

/// Nobody reads standard output any more, as in `godwit ps | head -1`. No error to speak of.
#[derive(Debug, thiserror::Error)]
#[error("standard output is closed")]
pub struct Closed;

/// Writes a line of data.
pub fn line(text: impl std::fmt::Display) -> anyhow::Result<()> {
    checked(writeln!(io::stdout().lock(), "{text}"))
}

/// Writes data as it is.
pub fn text(text: &str) -> anyhow::Result<()> {
    bytes(&mut io::stdout().lock(), text.as_bytes())
}

/// Writes a value as JSON on one line.
pub fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    line(serde_json::to_string(value)?)
}

/// Writes a value as JSON for people to read.
pub fn pretty_json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    line(serde_json::to_string_pretty(value)?)
}

/// Passes on a container's bytes, at once.
pub fn bytes(to: &mut impl Write, data: &[u8]) -> anyhow::Result<()> {
    checked(to.write_all(data).and_then(|()| to.flush()))
}

/// Tells a person something that is no data. A closed standard error changes nothing.
pub fn note(text: impl std::fmt::Display) {
    let _ = writeln!(io::stderr().lock(), "{text}");
}

fn checked(written: io::Result<()>) -> anyhow::Result<()> {
    written.map_err(|error| match error.kind() {
        io::ErrorKind::BrokenPipe => Closed.into(),
        _ => anyhow::Error::new(error).context("can't write to standard output"),
    })
}

/// A migration's phase, and its place in the queue while it waits.
pub fn phase(view: &godwit_types::MigrationView) -> String {
    match view.place {
        Some(place) => format!("{} ({place})", view.phase),
        None => view.phase.to_string(),
    }
}
