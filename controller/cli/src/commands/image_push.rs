//! `godwit push` and `godwit image push`.

use godwit_cli::{
    images::{self, Where},
    registries::Registries,
};
use godwit_types::{ImageNews, ImageOrder, ImageReference};

use crate::{
    options::{Format, Global},
    output::{
        self, failure,
        layers::{Layers, Way},
    },
};

/// Push an image to its registry
#[derive(Debug, clap::Args)]
pub struct Args {
    /// From this host [default: one that has it]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Say no more than the image's name
    #[arg(short, long)]
    quiet: bool,
    /// The image, by the name that it is to have in its registry: `godwit tag` gives it one
    #[arg(value_name = "IMAGE")]
    image: ImageReference,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let credentials = Registries::open(&global.config_dir()?)?.of(&args.image);
    let mut cluster = global.cluster()?;
    let order = ImageOrder::Push {
        image: args.image.to_string(),
        to: args.image.clone(),
        credentials,
    };
    let place = Where {
        hosts: args.host.into_iter().collect(),
        all_hosts: false,
    };
    let mut layers = Layers::new(Way::Push, global.format, args.quiet);
    let results = images::order(&mut cluster, place, &order, |news| layers.show(news)).await;
    layers.finish();
    let results: images::Results = results?;
    for result in &results {
        match &result.news {
            ImageNews::Pushed { digest, size, to } if global.format == Format::Table => {
                if args.quiet {
                    output::line(to)?;
                } else {
                    let tag = to.tag().unwrap_or_default();
                    output::line(format_args!("{tag}: digest: {digest} size: {size}"))?;
                }
            }
            ImageNews::Failed { failure: found } => {
                failure::report(&anyhow::Error::new(found.clone()));
                return Ok(1);
            }
            _ => {}
        }
    }
    Ok(0)
}
