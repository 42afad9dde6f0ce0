//! A container as `docker inspect` shows it, for templates that were written for that. What Docker
//! has and we have not is not there, so that a template which asks for it is refused.

use godwit_types::{ContainerView, Status};
use serde_json::{Value, json};
use time::{OffsetDateTime, format_description::well_known::Rfc3339};

/// Docker's names, and all of ours besides.
pub fn docker_view(view: &ContainerView) -> Value {
    let mut all = serde_json::to_value(view).unwrap_or_default();
    let spec = &view.spec;
    let network = spec.network.as_ref();
    let address = network.map(|network| network.address.to_string());
    let docker = json!({
        "Id": view.id,
        "Name": format!("/{}", view.name),
        "Created": rfc3339(view.created_ms),
        "Image": spec.image_id,
        "Path": spec.command.first(),
        "Args": spec.command.get(1..).unwrap_or_default(),
        "State": state(view),
        "Node": {"Name": view.host},
        "Config": {
            "Image": spec.image,
            "Hostname": match spec.hostname.as_str() {
                "" => view.id.short(),
                name => name,
            },
            "Cmd": spec.command,
            "Env": spec.env,
            "Tty": spec.options.terminal.tty,
            "OpenStdin": spec.options.terminal.stdin,
            "StdinOnce": spec.options.terminal.stdin_once,
        },
        "HostConfig": {
            "Memory": spec.limits.memory.map_or(0, |memory| memory.0),
            "NanoCpus": spec.limits.cpus.map_or(0, |cpus| u64::from(cpus.0) * 1_000_000),
            "PidsLimit": spec.limits.pids,
            "NetworkMode": network.map_or("none", |network| network.network.name.as_str()),
            "LogConfig": {"Type": "json-file"},
        },
        "NetworkSettings": {
            "IPAddress": address.clone().unwrap_or_default(),
            "MacAddress": network.map(|network| network.mac().to_string()),
            "Networks": network.map(|network| json!({
                network.network.name.as_str(): {"IPAddress": address}
            })),
        },
    });
    if let (Value::Object(all), Value::Object(docker)) = (&mut all, docker) {
        all.extend(docker);
    }
    all
}

fn state(view: &ContainerView) -> Value {
    let word = match &view.status {
        Status::Creating | Status::Created | Status::Starting { .. } => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Restarting { .. } => "restarting",
        Status::Exited { .. } => "exited",
        Status::Failed { .. } => "dead",
        Status::Removing => "removing",
    };
    let (exit, error) = match &view.status {
        Status::Exited { exit } | Status::Restarting { exit } => (Some(exit), ""),
        Status::Failed { reason } => (None, reason.as_str()),
        _ => (None, ""),
    };
    json!({
        "Status": word,
        // A paused one runs too, as Docker says it.
        "Running": matches!(view.status, Status::Running | Status::Paused),
        "Paused": view.status == Status::Paused,
        "Restarting": matches!(view.status, Status::Restarting { .. }),
        "OOMKilled": view.details.oom_killed,
        "Pid": view.pid.unwrap_or(0),
        "ExitCode": exit.map_or(0, |exit| exit.code),
        "Error": error,
        "FinishedAt": exit.map_or_else(|| rfc3339(0), |exit| rfc3339(exit.at_ms)),
    })
}

fn rfc3339(millis: u64) -> String {
    OffsetDateTime::from_unix_timestamp_nanos(i128::from(millis) * 1_000_000)
        .ok()
        .and_then(|time| time.format(&Rfc3339).ok())
        .unwrap_or_default()
}
