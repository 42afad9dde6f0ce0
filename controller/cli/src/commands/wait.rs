//! `godwit wait`.

use godwit_cli::client::Control;
use godwit_proto::control::ContainerRequest;
use godwit_types::Exit;

use crate::{
    options::{Format, Global},
    output,
};

/// Wait until containers have ended, and print their exit codes
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut codes = Vec::new();
    let mut code = 0;
    for container in args.containers {
        let request = ContainerRequest { container };
        let call = async |mut control: Control| control.wait_container(request.clone()).await;
        let exit = match cluster.ask(call).await {
            Ok(document) => cluster.read::<Exit>(&document),
            Err(error) => Err(error),
        };
        match exit {
            Ok(exit) => {
                if global.format == Format::Table {
                    output::line(exit.code)?;
                }
                codes.push(exit.code);
            }
            Err(error) => code = output::failure::exit_code(&error.into()),
        }
    }
    if global.format == Format::Json {
        output::json(&codes)?;
    }
    Ok(code)
}
