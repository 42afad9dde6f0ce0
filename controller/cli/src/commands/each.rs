//! One thing for each of several containers: what fails for one does not keep the others.

use godwit_cli::{client::Cluster, error::ClientError};

use crate::{
    options::{Format, Global},
    output,
};

/// Prints each as it was named once it is done, as Docker does.
pub async fn each(
    global: &Global,
    containers: Vec<String>,
    order: impl AsyncFn(&mut Cluster, &str) -> Result<(), ClientError>,
) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut done = Vec::new();
    let mut code = 0;
    for container in containers {
        match order(&mut cluster, &container).await {
            Ok(()) => {
                if global.format == Format::Table {
                    output::line(&container)?;
                }
                done.push(container);
            }
            Err(error) => code = output::failure::exit_code(&error.into()),
        }
    }
    if global.format == Format::Json {
        output::json(&done)?;
    }
    Ok(code)
}
