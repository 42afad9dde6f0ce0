//! `godwit system prune`.

use godwit_cli::{
    client::Control,
    images::{self, Where},
};
use godwit_proto::{control::RemoveRequest, v1::Empty};
use godwit_types::{ContainerView, ImageOrder, Status};

use super::{image_prune::freed, image_rm};
use crate::{
    options::{Format, Global},
    output::{self, confirm::confirmed, failure},
};

/// Remove containers that have ended, and images that nothing uses
#[derive(Debug, clap::Args)]
pub struct Args {
    /// All images that no container uses, not only those without a name
    #[arg(short, long)]
    all: bool,
    /// Do not ask
    #[arg(short, long)]
    force: bool,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let images = if args.all {
        "all images without a container on their host"
    } else {
        "all images without a name"
    };
    let what = format!("This removes all containers that have ended, and {images}.");
    if !args.force && !confirmed(&what)? {
        return Ok(1);
    }
    let mut cluster = global.cluster()?;
    let list = async |mut control: Control| control.list_containers(Empty {}).await;
    let documents = cluster.ask(list).await?;
    let containers: Vec<ContainerView> = cluster.read_all(&documents)?;
    let mut code = 0;
    let ended = containers
        .iter()
        .filter(|container| matches!(container.status, Status::Exited { .. }));
    for container in ended {
        let request = RemoveRequest {
            container: container.id.to_string(),
            force: false,
            // Those without a name, as Docker does.
            volumes: true,
        };
        let remove = async |mut control: Control| control.remove_container(request.clone()).await;
        match cluster.order(remove).await {
            Ok(_) if global.format == Format::Table => {
                output::line(format_args!("Deleted container: {}", container.id))?;
            }
            Ok(_) => {}
            Err(error) => {
                let error = anyhow::Error::new(error);
                failure::report(&error.context(format!("`{}` was not removed", container.name)));
                code = 1;
            }
        }
    }
    let order = ImageOrder::Prune { all: args.all };
    let ignore = |_: &_| Ok::<_, anyhow::Error>(());
    let results = images::order(&mut cluster, Where::default(), &order, ignore).await?;
    image_rm::print(global, &results)?;
    if global.format == Format::Table {
        output::line(format_args!("Total reclaimed space: {}", freed(&results)))?;
    }
    Ok(failure::of_hosts(&results).max(code))
}
