//! `godwit create`.

use godwit_cli::{error::ClientError, exit_code};

use super::run as start;
use crate::{
    options::{Format, Global},
    output::{self, failure},
};

/// Create a container and leave its start to `godwit start`
#[derive(Debug, clap::Args)]
#[group(skip)]
pub struct Args {
    #[command(flatten)]
    run: start::Args,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let created = async {
        let mut cluster = global.cluster()?;
        start::create(global, &mut cluster, args.run).await
    };
    match created.await {
        Ok(view) => {
            match global.format {
                Format::Json => output::json(&view)?,
                Format::Table => output::line(&view.id)?,
            }
            Ok(0)
        }
        Err(error) => {
            failure::report(&error);
            let client = error.downcast_ref::<ClientError>();
            Ok(exit_code::of_start(client.and_then(ClientError::problem)))
        }
    }
}
