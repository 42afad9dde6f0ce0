//! `godwit image history`.

use godwit_types::{ByteSize, ImageDetail};
use serde::{Deserialize, Serialize};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

use super::image_inspect::detail;
use crate::{
    options::{Format, Global},
    output::{self, age, failure::shown, table::table},
};

/// Show how an image was made
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print commands in full
    #[arg(long)]
    no_trunc: bool,
    /// A name or an id
    #[arg(value_name = "IMAGE")]
    image: String,
}

#[derive(Default, Deserialize)]
struct Config {
    #[serde(default)]
    history: Vec<Entry>,
}

#[derive(Default, Deserialize)]
struct Entry {
    #[serde(default)]
    created: Option<String>,
    #[serde(default)]
    created_by: Option<String>,
    #[serde(default)]
    comment: Option<String>,
    #[serde(default)]
    empty_layer: Option<bool>,
}

#[derive(Debug, PartialEq, Serialize)]
struct Step {
    created: Option<String>,
    created_by: String,
    size: ByteSize,
    comment: String,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let detail = detail(global, &args.image, None).await?;
    let steps = steps(&detail);
    match global.format {
        Format::Json => output::json(&steps)?,
        Format::Table => {
            let rows: Vec<_> = steps.iter().map(|step| row(step, args.no_trunc)).collect();
            output::text(&table(["CREATED", "CREATED BY", "SIZE", "COMMENT"], &rows))?;
        }
    }
    Ok(0)
}

/// The last one first, as Docker prints them.
fn steps(detail: &ImageDetail) -> Vec<Step> {
    let config: Config = serde_json::from_str(&detail.config).unwrap_or_default();
    let mut layers = detail.layers.iter();
    let mut steps = Vec::new();
    for entry in config.history {
        let layer = match entry.empty_layer {
            Some(true) => None,
            _ => layers.next(),
        };
        steps.push(Step {
            created: entry.created,
            created_by: entry.created_by.unwrap_or_default(),
            size: layer.map_or(ByteSize(0), |layer| layer.size),
            comment: entry.comment.unwrap_or_default(),
        });
    }
    // Some tools write no history.
    steps.extend(layers.map(|layer| Step {
        created: None,
        created_by: String::new(),
        size: layer.size,
        comment: String::new(),
    }));
    steps.reverse();
    steps
}

fn row(step: &Step, whole: bool) -> [String; 4] {
    let created = step.created.as_deref();
    let created = created.and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
    let created = created.and_then(|at| u64::try_from(at.unix_timestamp()).ok());
    let mut by = shown(&step.created_by).replace('\n', " ");
    if !whole && by.chars().count() > 45 {
        by = by.chars().take(44).chain(['…']).collect();
    }
    [
        created.map_or("-".into(), |at| age::ago(age::now_ms(), at * 1000)),
        by,
        step.size.to_string(),
        shown(&step.comment).replace('\n', " "),
    ]
}

#[cfg(test)]
mod tests {
    use godwit_types::{Digest, ImageSummary, LayerDetail};

    use super::*;

    #[test]
    fn steps_without_a_layer_take_none() {
        let layer = |size: u64| LayerDetail {
            diff_id: Digest::from_sha256([1; 32]),
            blob: None,
            size: ByteSize(size),
            blob_size: ByteSize(0),
        };
        let detail = ImageDetail {
            summary: ImageSummary {
                id: Digest::from_sha256([1; 32]),
                names: vec![],
                size: ByteSize(3),
                created: 0,
                volumes: Vec::new(),
                exposed: Vec::new(),
            },
            repo_digests: vec![],
            manifest: None,
            config: r#"{"history":[{"created_by":"a"},{"created_by":"b","empty_layer":true}]}"#
                .into(),
            layers: vec![layer(1), layer(2)],
        };
        let sizes: Vec<_> = steps(&detail)
            .into_iter()
            .map(|step| (step.created_by, step.size.0))
            .collect();
        let expected = [("", 2), ("b", 0), ("a", 1)].map(|(by, size)| (by.to_owned(), size));
        assert_eq!(sizes, expected);
    }
}
