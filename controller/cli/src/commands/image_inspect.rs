//! `godwit image inspect`.

use anyhow::Context;
use godwit_cli::images::{self, Where};
use godwit_types::{ImageDetail, ImageNews, ImageOrder};
use serde_json::{Value, json};

use crate::{
    options::Global,
    output::{self, failure},
};

/// Print everything that is known of images, as JSON
#[derive(Debug, clap::Args)]
pub struct Args {
    /// On this host [default: one that has it]
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
    /// Names or ids
    #[arg(value_name = "IMAGE", required = true)]
    images: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let (mut found, mut code) = (Vec::new(), 0);
    for image in args.images {
        match detail(global, &image, args.host.clone()).await {
            Ok(detail) => found.push(shape(&detail)),
            // The others are printed.
            Err(error) => {
                failure::report(&error);
                code = 1;
            }
        }
    }
    output::pretty_json(&found)?;
    Ok(code)
}

/// What a host that has the image says of it.
pub async fn detail(
    global: &Global,
    image: &str,
    host: Option<String>,
) -> anyhow::Result<ImageDetail> {
    let mut cluster = global.cluster()?;
    let order = ImageOrder::Inspect {
        image: image.to_owned(),
    };
    let place = Where {
        hosts: host.into_iter().collect(),
        all_hosts: false,
    };
    let ignore = |_: &_| Ok::<_, anyhow::Error>(());
    let results = images::order(&mut cluster, place, &order, ignore).await?;
    for result in results {
        match result.news {
            ImageNews::Inspected { image } => return Ok(*image),
            ImageNews::Failed { failure } => return Err(failure.into()),
            _ => {}
        }
    }
    None.with_context(|| format!("no host said anything of `{image}`"))
}

/// Docker's form.
fn shape(detail: &ImageDetail) -> Value {
    let config: Value = serde_json::from_str(&detail.config).unwrap_or_default();
    let layers: Vec<_> = detail.layers.iter().map(|layer| &layer.diff_id).collect();
    json!({
        "Id": detail.summary.id,
        "RepoTags": detail.summary.names,
        "RepoDigests": detail.repo_digests,
        "Comment": config["comment"].as_str().unwrap_or_default(),
        "Created": config["created"],
        "Author": config["author"].as_str().unwrap_or_default(),
        "Architecture": config["architecture"],
        "Variant": config["variant"],
        "Os": config["os"],
        "Size": detail.summary.size,
        "Config": config["config"],
        "RootFS": {"Type": "layers", "Layers": layers},
        "Descriptor": {"digest": detail.manifest},
    })
}

#[cfg(test)]
mod tests {
    use godwit_types::{ByteSize, Digest, ImageSummary, LayerDetail};

    use super::*;

    #[test]
    fn what_is_printed_has_dockers_form() {
        let digest = Digest::from_sha256([1; 32]);
        let detail = ImageDetail {
            summary: ImageSummary {
                id: digest.clone(),
                names: vec!["redis:7".parse().unwrap()],
                size: ByteSize(42),
                created: 0,
                volumes: Vec::new(),
                exposed: Vec::new(),
            },
            repo_digests: vec![],
            manifest: None,
            config: r#"{"os":"linux","config":{"Cmd":["x"]}}"#.into(),
            layers: vec![LayerDetail {
                diff_id: digest.clone(),
                blob: None,
                size: ByteSize(42),
                blob_size: ByteSize(0),
            }],
        };
        let value = shape(&detail);
        assert_eq!(value["RepoTags"][0], "redis:7");
        assert_eq!(value["Config"]["Cmd"][0], "x");
        assert_eq!(value["RootFS"]["Layers"][0], digest.as_str());
    }
}
