//! raft speaks to slog: its words go to tracing, one level quieter, since an election is news
//! of ours to tell.

use std::fmt::{self, Write};

use slog::{Drain, KV, Key, Level, Logger, Never, OwnedKVList, Record, Serializer, o};

pub fn logger() -> Logger {
    Logger::root(Bridge, o!())
}

struct Bridge;

impl Drain for Bridge {
    type Ok = ();
    type Err = Never;

    fn log(&self, record: &Record<'_>, _: &OwnedKVList) -> Result<(), Never> {
        let text = || {
            let mut text = Text(record.msg().to_string());
            // A value that can't be written is left out.
            let _ = record.kv().serialize(record, &mut text);
            text.0
        };
        match record.level() {
            Level::Critical | Level::Error => tracing::warn!(target: "raft", "{}", text()),
            Level::Warning | Level::Info => {
                if tracing::enabled!(target: "raft", tracing::Level::DEBUG) {
                    tracing::debug!(target: "raft", "{}", text());
                }
            }
            Level::Debug | Level::Trace => {
                if tracing::enabled!(target: "raft", tracing::Level::TRACE) {
                    tracing::trace!(target: "raft", "{}", text());
                }
            }
        }
        Ok(())
    }
}

struct Text(String);

impl Serializer for Text {
    fn emit_arguments(&mut self, key: Key, value: &fmt::Arguments<'_>) -> slog::Result {
        write!(self.0, " {key}={value}").map_err(slog::Error::Fmt)
    }
}
