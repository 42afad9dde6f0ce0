//! The log: lines on standard error, which systemd and container runtimes take with their time.

use std::io::{IsTerminal, stderr};

use tracing_subscriber::{
    EnvFilter, Registry, filter::ParseError, fmt, layer::SubscriberExt, reload,
    util::SubscriberInitExt,
};

/// Wins over every setting.
const VARIABLE: &str = "GODWIT_LOG";
const USUAL: &str = "info";

/// Changes what is logged while the daemon runs.
pub struct Log {
    filter: reload::Handle<EnvFilter, Registry>,
}

impl Log {
    /// To be called once, first of all. Until it is told otherwise it logs what is usual.
    pub fn start() -> Self {
        let (filter, handle) = reload::Layer::new(wanted(None).unwrap_or_else(|_| usual()));
        let lines = fmt::layer()
            .with_writer(stderr)
            .with_ansi(stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none());
        tracing_subscriber::registry()
            .with(filter)
            .with(lines)
            .init();
        Self { filter: handle }
    }

    /// `level` as in the settings: `warn`, or for a part of the program
    /// `info,godwit_agent::transfer=debug`.
    pub fn set(&self, level: Option<&str>) -> Result<(), ParseError> {
        let filter = wanted(level)?;
        // It is only ever gone at the program's end.
        let _ = self.filter.reload(filter);
        Ok(())
    }
}

/// Whether a level of the settings can be used.
pub fn check(level: &str) -> Result<(), ParseError> {
    EnvFilter::builder().parse(level).map(drop)
}

fn wanted(level: Option<&str>) -> Result<EnvFilter, ParseError> {
    if let Ok(filter) = EnvFilter::try_from_env(VARIABLE) {
        return Ok(filter);
    }
    EnvFilter::builder().parse(level.unwrap_or(USUAL))
}

fn usual() -> EnvFilter {
    EnvFilter::new(USUAL)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_level_that_is_none_is_refused() {
        check("info,godwit_agent::transfer=debug").unwrap();
        assert!(check("godwit_agent=loudly").is_err());
    }
}
