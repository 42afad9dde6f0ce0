//! Everything that is printed. Standard output is for data; notes and errors go to standard
//! error.

pub mod age;
pub mod build;
pub mod confirm;
pub mod drain;
pub mod failure;
pub mod layers;
pub mod progress;
pub mod table;

use std::{
    io::{self, Write},
    sync::OnceLock,
};

use godwit_cli::template::Template;
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

/// How `--format` wants what would be JSON, if it has more to say than that.
static TEMPLATE: OnceLock<Template> = OnceLock::new();

/// From now on.
pub fn set_template(template: Template) {
    // The arguments are read once.
    let _ = TEMPLATE.set(template);
}

pub fn template() -> Option<&'static Template> {
    TEMPLATE.get()
}

/// Writes a value as JSON on one line, or as the template makes it: a list line by line.
pub fn json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    if let Some(template) = template() {
        return match serde_json::to_value(value)? {
            serde_json::Value::Array(items) => items
                .iter()
                .try_for_each(|item| line(template.render(item)?)),
            value => line(template.render(&value)?),
        };
    }
    line(serde_json::to_string(value)?)
}

/// Writes a value as JSON for people to read.
pub fn pretty_json<T: Serialize + ?Sized>(value: &T) -> anyhow::Result<()> {
    if template().is_some() {
        return json(value);
    }
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
