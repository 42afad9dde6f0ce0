//! `godwit commit`.

use anyhow::Context;
use clap::ArgAction;
use godwit_cli::author;
use godwit_types::{CommitRequest, ImageName};

use crate::{
    options::{Format, Global},
    output,
};

/// Make an image of what a container changed
///
/// The image is on the host where the container is. What is mounted into the container is no part
/// of it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Who made it, as in `Anna <anna@example.com>`
    #[arg(short, long, default_value = "", hide_default_value = true)]
    author: String,
    /// What changed
    #[arg(short, long, default_value = "", hide_default_value = true)]
    message: String,
    /// Apply a Dockerfile instruction, as in 'CMD ["x"]'; repeat for several
    #[arg(short, long, value_name = "INSTRUCTION")]
    change: Vec<String>,
    /// Let the container stand still while its files are read
    #[arg(
        short,
        long,
        value_name = "BOOL",
        action = ArgAction::Set,
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true"
    )]
    pause: bool,
    /// Name, id, or the beginning of an id
    container: String,
    /// What to call the image, as NAME[:TAG]
    name: Option<ImageName>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let request = CommitRequest {
        container: args.container,
        name: args.name,
        author: args.author,
        message: args.message,
        changes: args.change,
        pause: args.pause,
    };
    let mut cluster = global.cluster()?;
    let committed = author::commit(&mut cluster, &request).await;
    let (host, image) =
        committed.with_context(|| format!("`{}` was not committed", request.container))?;
    match global.format {
        Format::Json => output::json(&serde_json::json!({"host": host, "image": image}))?,
        Format::Table => output::line(&image.id)?,
    }
    Ok(0)
}
