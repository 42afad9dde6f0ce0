//! `godwit image ls`.

use godwit_cli::client::Control;
use godwit_proto::v1::Empty;
use godwit_types::ImageView;

use crate::{
    options::{Format, Global},
    output::{self, age, table::table},
};

/// List the images and the hosts that have them
#[derive(Debug, clap::Args)]
pub struct Args {}

pub async fn run(global: &Global, _: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let call = async |mut control: Control| control.list_images(Empty {}).await;
    let documents = cluster.ask(call).await?;
    let images: Vec<ImageView> = cluster.read_all(&documents)?;
    match global.format {
        Format::Json => output::json(&images)?,
        Format::Table => {
            let now = age::now_ms();
            let rows: Vec<_> = images.iter().map(|image| row(image, now)).collect();
            output::text(&table(
                ["NAME", "IMAGE ID", "SIZE", "CREATED", "HOSTS"],
                &rows,
            ))?;
        }
    }
    Ok(0)
}

fn row(image: &ImageView, now_ms: u64) -> [String; 5] {
    let created = match u64::try_from(image.created) {
        Ok(0) | Err(_) => "-".to_owned(),
        Ok(seconds) => age::ago(now_ms, seconds.saturating_mul(1000)),
    };
    let hosts: Vec<_> = image.hosts.iter().map(|host| host.as_str()).collect();
    [
        image.name.to_string(),
        image.id.short().to_owned(),
        image.size.to_string(),
        created,
        hosts.join(", "),
    ]
}
