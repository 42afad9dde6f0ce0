//! `godwit stop`.

use godwit_cli::client::Control;
use godwit_proto::control::StopRequest;
use godwit_types::{ContainerName, ContainerView, Status};
use serde::Serialize;

use crate::{
    options::{Format, Global},
    output,
};

/// Stop containers and say how they ended
#[derive(Debug, clap::Args)]
pub struct Args {
    /// How long a container has for its end after the stop signal, before it is killed
    /// [default: its own, or 10]
    #[arg(short = 't', long = "time", value_name = "SECONDS")]
    seconds: Option<u32>,
    /// Names, ids, or beginnings of ids
    #[arg(value_name = "CONTAINER", required = true)]
    containers: Vec<String>,
}

#[derive(Debug, Serialize)]
struct Stopped {
    name: ContainerName,
    /// None: it could not be learned, see `status`.
    exit_code: Option<i32>,
    status: Status,
}

pub async fn run(global: &Global, args: Args) -> anyhow::Result<u8> {
    let mut cluster = global.cluster()?;
    let mut all = Vec::new();
    let mut code = 0;
    for container in args.containers {
        let request = StopRequest {
            container,
            grace_ms: u64::from(args.seconds.unwrap_or(0)) * 1000,
            own_grace: args.seconds.is_none(),
        };
        let call = async |mut control: Control| control.stop_container(request.clone()).await;
        let view = match cluster.ask(call).await {
            Ok(document) => cluster.read(&document),
            Err(error) => Err(error),
        };
        // One that can't be stopped must not keep the others.
        match view {
            Ok(view) => {
                let stopped = stopped(view);
                if global.format == Format::Table {
                    output::line(sentence(&stopped))?;
                }
                all.push(stopped);
            }
            Err(error) => code = output::failure::exit_code(&error.into()),
        }
    }
    if global.format == Format::Json {
        output::json(&all)?;
    }
    Ok(code)
}

fn stopped(view: ContainerView) -> Stopped {
    Stopped {
        exit_code: match view.status {
            Status::Exited { exit } => Some(exit.code),
            _ => None,
        },
        name: view.name,
        status: view.status,
    }
}

fn sentence(stopped: &Stopped) -> String {
    match (&stopped.status, stopped.exit_code) {
        (_, Some(code)) => format!("{} exited with code {code}", stopped.name),
        (Status::Failed { reason }, None) => {
            format!(
                "{} failed: {}",
                stopped.name,
                output::failure::shown(reason)
            )
        }
        (status, None) => format!("{} is {status}", stopped.name),
    }
}
