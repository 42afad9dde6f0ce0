//! `godwit tag` and `godwit image tag`.

use godwit_cli::images::{self, Where};
use godwit_types::{ImageName, ImageOrder};

use crate::{options::Global, output::failure};

/// Give an image one more name
///
/// Every host that is up and has the image has it under that name then.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The image, by its name or id
    #[arg(value_name = "IMAGE")]
    image: String,
    /// Its new name
    #[arg(value_name = "NAME[:TAG]")]
    name: ImageName,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let order = ImageOrder::Tag {
        image: args.image,
        name: args.name,
    };
    let ignore = |_: &_| Ok::<_, anyhow::Error>(());
    let results = images::order(&mut cluster, Where::default(), &order, ignore).await?;
    Ok(failure::of_hosts(&results))
}
