//! `godwit version`.

use serde_json::json;

use crate::{
    options::{Format, Global},
    output,
};

/// Print this program's version
#[derive(Debug, clap::Args)]
pub struct Args {}

pub fn run(global: &Global, _: Args) -> anyhow::Result<u8> {
    let version = env!("CARGO_PKG_VERSION");
    match global.format {
        Format::Json => output::json(&json!({ "version": version }))?,
        Format::Table => output::line(format_args!("godwit {version}"))?,
    }
    Ok(0)
}
