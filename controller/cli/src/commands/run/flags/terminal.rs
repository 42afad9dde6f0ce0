//! Terminal, standard input and log.

use anyhow::bail;
use godwit_cli::keys::DetachKeys;
use godwit_types::{ByteSize, LogOptions, TerminalOptions};

use crate::{commands::watch::Watch, terminal};

#[derive(Debug, clap::Args)]
// Its name is that of others, too.
#[group(skip)]
pub struct Flags {
    /// Keep standard input open, and pass it on
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal
    #[arg(short, long)]
    tty: bool,
    /// The keys that leave it to itself [default: ctrl-p,ctrl-q]
    #[arg(long, value_name = "KEYS")]
    detach_keys: Option<DetachKeys>,
    /// Pass signals on to the container
    #[arg(long, value_name = "BOOL", default_value_t = true, action = clap::ArgAction::Set,
          num_args = 0..=1, default_missing_value = "true", require_equals = true)]
    sig_proxy: bool,
    /// How its output is kept; `json-file` is the only one
    #[arg(long, value_name = "DRIVER", default_value = "json-file")]
    log_driver: String,
    /// `max-size=SIZE` after which a log file is rotated, `max-file=NUMBER` of files kept
    #[arg(long, value_name = "KEY=VALUE")]
    log_opt: Vec<String>,
}

impl Flags {
    pub fn options(&self, detach: bool) -> anyhow::Result<TerminalOptions> {
        if self.log_driver != "json-file" {
            bail!(
                "log driver `{}` is not supported: `json-file` is",
                self.log_driver.escape_debug()
            );
        }
        if self.tty && self.interactive && !detach && !terminal::is_terminal() {
            bail!("the input device is not a TTY: leave out `-t`");
        }
        Ok(TerminalOptions {
            tty: self.tty,
            stdin: self.interactive,
            stdin_once: self.interactive && !detach,
            size: terminal::size().filter(|_| self.tty && !detach),
            log: log(&self.log_opt)?,
        })
    }

    /// How `run` without `-d` has it in front of the user.
    pub fn watch(&self) -> Watch {
        Watch {
            removes: false,
            tty: self.tty,
            stdin: self.interactive,
            keys: self.detach_keys.clone().unwrap_or_default(),
            // A terminal's signals are typed.
            sig_proxy: self.sig_proxy && !self.tty,
        }
    }
}

fn log(options: &[String]) -> anyhow::Result<LogOptions> {
    let mut log = LogOptions::default();
    for option in options {
        let shown = option.escape_debug();
        match option.split_once('=') {
            Some(("max-size", "-1")) => log.max_size = None,
            Some(("max-size", size)) => match size.parse::<ByteSize>() {
                Ok(size) if size.0 >= 1024 => log.max_size = Some(size),
                Ok(_) => bail!("`--log-opt {shown}`: a log file is at least 1k"),
                Err(error) => bail!("`--log-opt {shown}`: {error}"),
            },
            Some(("max-file", count)) => match count.parse() {
                Ok(count @ 1..=100) => log.max_file = Some(count),
                _ => bail!("`--log-opt {shown}`: 1 to 100 files can be kept"),
            },
            _ => bail!("`--log-opt {shown}` is not supported: `max-size` and `max-file` are"),
        }
    }
    if log.max_file.is_some_and(|count| count > 1) && log.max_size.is_none() {
        bail!("`--log-opt max-file` needs `--log-opt max-size`: files are never rotated without");
    }
    Ok(log)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn log_options_are_checked() {
        let of =
            |options: &[&str]| log(&options.iter().map(|o| (*o).to_owned()).collect::<Vec<_>>());
        let log = of(&["max-size=10m", "max-file=3"]).unwrap();
        assert_eq!(log.max_size, Some(ByteSize(10 << 20)));
        assert_eq!(log.max_file, Some(3));
        for wrong in [
            "max-size=x",
            "max-size=1",
            "max-file=0",
            "tag=x",
            "max-file",
        ] {
            assert!(of(&[wrong]).is_err(), "{wrong}");
        }
        assert!(of(&["max-file=3"]).is_err());
    }
}
