//! `godwit import`.

use std::{
    fs::File,
    io::{self, IsTerminal, Read, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use anyhow::{Context, bail};
use godwit_cli::author::{self, Produce};
use godwit_types::{ImageName, ImportRequest};

use crate::{
    options::{Format, Global},
    output,
};

/// Make an image of a root file system
///
/// The file is a tar, compressed with gzip or zstd or not at all. To bring an image as
/// `docker save` writes it, use `godwit image load`.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Apply a Dockerfile instruction, as in 'CMD ["x"]'; repeat for several
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// What it is
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Make it on this host only; repeat for several [default: every host that is up]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// The tar; `-` is standard input
    file: String,
    /// What to call the image, as NAME[:TAG]
    name: Option<ImageName>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let root = open(&args.file)?;
    let created = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(0, |time| time.as_secs() as i64);
    let request = ImportRequest {
        name: args.name,
        message: args.message,
        changes: args.change,
        created,
    };
    let mut cluster = global.cluster()?;
    let hosts = author::import(&mut cluster, &request, args.hosts, root).await;
    let hosts = hosts.with_context(|| format!("`{}` was not imported", args.file))?;
    match global.format {
        Format::Json => output::json(&hosts)?,
        Format::Table => {
            // The same everywhere.
            if let Some(image) = hosts.iter().find_map(|host| host.images.first()) {
                output::line(&image.id)?;
            }
        }
    }
    let mut code = 0;
    for host in &hosts {
        if let Some(error) = &host.error {
            let error = output::failure::shown(error);
            output::note(format_args!("error: `{}`: {error}", args.file));
            code = 1;
        }
    }
    Ok(code)
}

fn open(file: &str) -> anyhow::Result<Produce> {
    let input: Box<dyn Read + Send> = if file == "-" {
        if io::stdin().is_terminal() {
            bail!("standard input is a terminal: give a tar, as in `godwit import - < FILE`");
        }
        Box::new(io::stdin())
    } else {
        if file.contains("://") {
            bail!("`{file}` is no file: fetch it first");
        }
        Box::new(File::open(file).with_context(|| format!("can't open `{file}`"))?)
    };
    Ok(Box::new(move |out: &mut dyn Write| {
        let mut input = input;
        io::copy(&mut input, out).map(drop)
    }))
}
