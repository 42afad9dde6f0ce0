//! `godwit pull` and `godwit image pull`.

use anyhow::bail;
use godwit_cli::{
    images::{self, Where},
    registries::Registries,
};
use godwit_types::{ImageNews, ImageOrder, ImagePlatform, ImageReference};

use crate::{
    options::{Format, Global},
    output::{
        self, failure,
        layers::{Layers, Way},
    },
};

/// Pull an image from its registry
///
/// The image belongs to the cluster: it is pulled onto one host, and others get it from there when
/// they need it.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Onto this host; repeat for several [default: the cluster chooses one]
    #[arg(long = "host", value_name = "HOST")]
    hosts: Vec<String>,
    /// Onto every host that is up
    #[arg(long, conflicts_with = "hosts")]
    all_hosts: bool,
    /// For another platform than the host's, as in linux/arm64
    #[arg(long, value_name = "OS/ARCH")]
    platform: Option<ImagePlatform>,
    /// Say no more than the image's name
    #[arg(short, long)]
    quiet: bool,
    /// [HOST[:PORT]/]NAME[:TAG] or …@DIGEST
    #[arg(value_name = "IMAGE")]
    image: ImageReference,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let credentials = Registries::open(&global.config_dir()?)?.of(&args.image);
    let mut cluster = global.cluster()?;
    let order = ImageOrder::Pull {
        reference: args.image.clone(),
        platform: args.platform,
        credentials,
        peers: Vec::new(),
    };
    let place = Where {
        hosts: args.hosts,
        all_hosts: args.all_hosts,
    };
    let mut layers = Layers::new(Way::Pull, global.format, args.quiet);
    let results = images::order(&mut cluster, place, &order, |news| layers.show(news)).await;
    layers.finish();
    let results: images::Results = results?;
    if results.is_empty() {
        bail!("no host said anything");
    }
    let mut code = 0;
    for result in &results {
        match &result.news {
            ImageNews::Pulled { digest, fresh, .. }
                if global.format == Format::Table && !args.quiet =>
            {
                let what = if *fresh {
                    "Downloaded newer image for"
                } else {
                    "Image is up to date for"
                };
                output::note(format_args!("{}: Digest: {digest}", result.host));
                output::note(format_args!(
                    "{}: Status: {what} {}",
                    result.host, args.image
                ));
            }
            ImageNews::Failed { failure: found } => {
                failure::report(&anyhow::Error::new(found.clone()));
                code = 1;
            }
            _ => {}
        }
    }
    if code == 0 && global.format == Format::Table {
        output::line(&args.image)?;
    }
    Ok(code)
}
