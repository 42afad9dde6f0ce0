//! Layers on their way: bars on a terminal, a line for every step elsewhere, JSON for programs.

use std::{collections::HashMap, io::IsTerminal};

use godwit_types::{HostImageNews, ImageNews, LayerStep};
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::{failure::shown, note};
use crate::options::Format;

/// Which way they go: the words differ.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Way {
    Pull,
    Push,
}

/// Shows what hosts say about one order.
pub struct Layers {
    way: Way,
    format: Format,
    quiet: bool,
    bars: Option<MultiProgress>,
    known: HashMap<String, (LayerStep, Option<ProgressBar>)>,
}

impl Layers {
    pub fn new(way: Way, format: Format, quiet: bool) -> Self {
        let terminal = std::io::stderr().is_terminal() && format == Format::Table && !quiet;
        Self {
            way,
            format,
            quiet,
            bars: terminal
                .then(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(10))),
            known: HashMap::new(),
        }
    }

    /// Shows one thing that was said. JSON is data; the rest is for people.
    pub fn show(&mut self, news: &HostImageNews) -> anyhow::Result<()> {
        if self.format == Format::Json {
            return super::json(news);
        }
        if self.quiet {
            return Ok(());
        }
        match &news.news {
            ImageNews::Resolved { digest, from } => {
                let (host, from) = (&news.host, shown(from));
                self.say(format!("{host}: {digest} from `{from}`"));
            }
            ImageNews::Layer {
                layer,
                step,
                done,
                total,
                from,
            } => {
                let key = format!("{}: {}", news.host, shown(layer));
                let from = from.as_ref().map(|host| format!(" from {host}"));
                let text = format!("{}{}", word(self.way, *step), from.unwrap_or_default());
                self.layer(key, *step, &text, *done, *total);
            }
            _ => {}
        }
        Ok(())
    }

    fn layer(&mut self, key: String, step: LayerStep, text: &str, done: u64, total: u64) {
        let before = self.known.get(&key).map(|(step, _)| *step);
        if let Some(bars) = &self.bars {
            let (last, bar) = self.known.entry(key.clone()).or_insert_with(|| {
                let bar = bars.add(ProgressBar::new(total.max(1)));
                bar.set_style(style());
                bar.set_prefix(key);
                (step, Some(bar))
            });
            *last = step;
            if let Some(bar) = bar {
                bar.set_position(done);
                bar.set_message(text.to_owned());
            }
            return;
        }
        if before != Some(step) {
            note(format_args!("{key}: {text}"));
            self.known.insert(key, (step, None));
        }
    }

    fn say(&self, line: String) {
        match &self.bars {
            Some(bars) => drop(bars.println(line)),
            None => note(line),
        }
    }

    /// Leaves the last state of everything on the terminal.
    pub fn finish(&self) {
        for (_, bar) in self.known.values() {
            if let Some(bar) = bar {
                bar.abandon();
            }
        }
    }
}

fn style() -> ProgressStyle {
    ProgressStyle::with_template("{prefix}: {msg:<20} [{bar:24}] {bytes}/{total_bytes}")
        .unwrap_or_else(|_| ProgressStyle::default_bar())
        .progress_chars("=> ")
}

/// Docker's.
fn word(way: Way, step: LayerStep) -> &'static str {
    match (step, way) {
        (LayerStep::Waiting, _) => "Waiting",
        (LayerStep::Exists, Way::Pull) => "Already exists",
        (LayerStep::Exists, Way::Push) => "Layer already exists",
        (LayerStep::Downloading, _) => "Downloading",
        (LayerStep::Downloaded, _) => "Download complete",
        (LayerStep::Unpacking, _) => "Extracting",
        (LayerStep::Unpacked, _) => "Pull complete",
        (LayerStep::Uploading, _) => "Pushing",
        (LayerStep::Uploaded, _) => "Pushed",
        (LayerStep::Mounted, _) => "Mounted",
    }
}
