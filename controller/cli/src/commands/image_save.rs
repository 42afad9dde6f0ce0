//! `godwit save` and `godwit image save`.

use std::io::{self, IsTerminal};

use anyhow::{Context, bail};
use godwit_cli::images;

use crate::options::Global;

/// Write images to an archive that Docker and Podman load
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The file to write [default: standard output]
    #[arg(short, long, value_name = "FILE")]
    output: Option<String>,
    /// From this host [default: one that has all of them]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let host = args.host.unwrap_or_default();
    let Some(path) = args.output.filter(|path| path != "-") else {
        if io::stdout().is_terminal() {
            bail!("standard output is a terminal: give a file with `-o FILE`");
        }
        images::save(&mut cluster, args.images, host, tokio::io::stdout()).await?;
        return Ok(0);
    };
    // What was there stays until all of the new one is.
    let beside = format!("{path}.{}.new", std::process::id());
    let file = tokio::fs::File::create_new(&beside)
        .await
        .with_context(|| format!("can't make `{beside}`"))?;
    let saved = images::save(&mut cluster, args.images, host, file).await;
    let renamed = match saved {
        Ok(_) => std::fs::rename(&beside, &path).with_context(|| format!("can't make `{path}`")),
        Err(error) => Err(error.into()),
    };
    if renamed.is_err() {
        let _ = std::fs::remove_file(&beside);
    }
    renamed.map(|()| 0)
}
