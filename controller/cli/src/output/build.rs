//! What a build says, as `docker build --progress=plain` writes it: to standard error, a step's
//! lines with its number before them.

use godwit_types::BuildEvent;

use super::{failure::shown, json, note};
use crate::options::Format;

/// See the module.
pub struct Printer {
    format: Format,
    quiet: bool,
    /// The beginning of a line of the step's output.
    pending: String,
    /// The step was found, and its end says nothing new.
    cached: bool,
}

impl Printer {
    pub fn new(format: Format, quiet: bool) -> Self {
        Self {
            format,
            quiet,
            pending: String::new(),
            cached: false,
        }
    }

    pub fn print(&mut self, event: &BuildEvent) -> anyhow::Result<()> {
        if self.format == Format::Json {
            return json(event);
        }
        if !self.quiet {
            for line in self.lines(event) {
                note(line);
            }
        }
        Ok(())
    }

    fn lines(&mut self, event: &BuildEvent) -> Vec<String> {
        match event {
            BuildEvent::Context { host, bytes } => {
                let size = godwit_types::ByteSize(*bytes);
                vec![
                    format!("building on host {host}, context of {size}"),
                    String::new(),
                ]
            }
            BuildEvent::Step {
                number,
                place,
                text,
                ..
            } => {
                self.cached = false;
                vec![format!("#{number} [{place}] {}", shown(text))]
            }
            BuildEvent::Cached { number } => {
                self.cached = true;
                vec![format!("#{number} CACHED")]
            }
            BuildEvent::Output { number, text, .. } => {
                self.pending.push_str(text);
                let mut lines = Vec::new();
                while let Some(at) = self.pending.find('\n') {
                    let line: String = self.pending.drain(..=at).collect();
                    lines.push(format!(
                        "#{number} {}",
                        shown(line.trim_end_matches(['\n', '\r']))
                    ));
                }
                lines
            }
            BuildEvent::Done { number, millis } => {
                let mut lines = self.rest(*number);
                if !self.cached {
                    lines.push(format!("#{number} DONE {:.1}s", *millis as f64 / 1000.0));
                }
                lines.push(String::new());
                lines
            }
            BuildEvent::Warning { text } => vec![format!("warning: {}", shown(text))],
            BuildEvent::Built { image, .. } => {
                let names = image.names.iter();
                names.map(|name| format!("built {name}")).collect()
            }
        }
    }

    /// A line that has no end.
    fn rest(&mut self, number: u32) -> Vec<String> {
        if self.pending.is_empty() {
            return Vec::new();
        }
        let line = std::mem::take(&mut self.pending);
        vec![format!("#{number} {}", shown(&line))]
    }
}

#[cfg(test)]
mod tests {
    use godwit_types::BuildOutput;

    use super::*;

    #[test]
    fn lines_carry_the_number_of_their_step() {
        let mut printer = Printer::new(Format::Table, false);
        let mut all = Vec::new();
        let output = |text: &str| BuildEvent::Output {
            number: 2,
            stream: BuildOutput::Stdout,
            text: text.into(),
        };
        for event in [
            BuildEvent::Step {
                number: 2,
                place: "builder 2/3".into(),
                text: "RUN x".into(),
                line: 4,
            },
            output("a\nb"),
            output("c\nd\x1b[1m"),
            BuildEvent::Done {
                number: 2,
                millis: 1234,
            },
            BuildEvent::Cached { number: 3 },
            BuildEvent::Done {
                number: 3,
                millis: 0,
            },
        ] {
            all.extend(printer.lines(&event));
        }
        assert_eq!(
            all,
            [
                "#2 [builder 2/3] RUN x",
                "#2 a",
                "#2 bc",
                "#2 d\u{fffd}[1m",
                "#2 DONE 1.2s",
                "",
                "#3 CACHED",
                ""
            ]
        );
    }
}
