//! `godwit top`.

use godwit_cli::observe;
use godwit_types::{Look, Process};

use crate::{
    options::{Format, Global},
    output::{self, table::table},
};

/// List the processes of a container that runs
///
/// They are numbered as the container numbers them, which is the same on every host.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Name, id, or the beginning of an id
    container: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let processes: Vec<Process> =
        observe::look(&mut cluster, &args.container, Look::Processes).await?;
    match global.format {
        Format::Json => output::json(&processes)?,
        Format::Table => {
            let rows: Vec<_> = processes.iter().map(row).collect();
            let header = ["UID", "PID", "PPID", "TTY", "ELAPSED", "TIME", "CMD"];
            output::text(&table(header, &rows))?;
        }
    }
    Ok(0)
}

fn row(process: &Process) -> [String; 7] {
    let terminal = match process.terminal.as_str() {
        "" => "?".to_owned(),
        name => name.to_owned(),
    };
    [
        process.uid.to_string(),
        process.pid.to_string(),
        process.parent.to_string(),
        terminal,
        clock(process.age_ms),
        clock(process.cpu_ms),
        process.command.clone(),
    ]
}

/// Hours, minutes and seconds.
fn clock(millis: u64) -> String {
    let seconds = millis / 1000;
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    format!("{hours:02}:{minutes:02}:{:02}", seconds % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_a_clock() {
        assert_eq!(clock(0), "00:00:00");
        assert_eq!(clock(3_723_999), "01:02:03");
        assert_eq!(clock(360_000_000), "100:00:00");
    }
}
