//! Whether a migration can start, as far as the leader knows. The rest of the checks is the
//! hosts', and the state's own are repeated when the command is applied.

use godwit_core::{Container, State, find_container};
use godwit_proto::control::MigrateRequest;
use godwit_types::{
    AgentReport, HostName, MAX_DOWNTIME_MS, MigrationOptions, OptionError, Refusal, Status,
    missing_cpu_flags,
};

use super::run::find_host;
use crate::leader::Leader;

/// A move that was understood.
pub struct Move<'a> {
    pub container: &'a Container,
    pub to: HostName,
    pub options: MigrationOptions,
    /// Every reason against it, the gravest first.
    pub against: Vec<Refusal>,
}

/// An error: it is not even known what should move whither, or how.
pub fn preflight<'a>(
    leader: &Leader,
    state: &'a State,
    request: &MigrateRequest,
) -> Result<Move<'a>, Refusal> {
    let container = find_container(state, &request.container)?;
    let to = find_host(state, &request.to)?;
    let options = options(request).map_err(|error| Refusal::Invalid {
        what: format!("{} {}", error.option, error.given),
        problem: error.problem,
    })?;
    let against = against(leader, state, container, &to);
    Ok(Move {
        container,
        to,
        options,
        against,
    })
}

fn options(request: &MigrateRequest) -> Result<MigrationOptions, OptionError> {
    let given = |value: u64| (value != 0).then_some(value);
    let options = MigrationOptions {
        mode: match request.mode.as_str() {
            "" => Default::default(),
            text => text.parse()?,
        },
        max_downtime_ms: given(request.max_downtime_ms).unwrap_or(MAX_DOWNTIME_MS),
        max_bandwidth: given(request.max_bandwidth),
        timeout_ms: given(request.timeout_ms),
        compress: match request.compress.as_str() {
            "" => Default::default(),
            text => text.parse()?,
        },
    };
    options.check()?;
    Ok(options)
}

fn against(leader: &Leader, state: &State, container: &Container, to: &HostName) -> Vec<Refusal> {
    let mut against = Vec::new();
    let name = || container.spec.name.clone();
    let under_way = container.migration.as_ref();
    if let Some(migration) = under_way.and_then(|id| state.migrations.get(id)) {
        against.push(Refusal::Migrating {
            name: name(),
            migration: migration.id.clone(),
            phase: migration.phase,
        });
    }
    if container.host == *to {
        against.push(Refusal::AlreadyThere {
            name: name(),
            host: to.clone(),
        });
    }
    if container.status != Status::Running {
        against.push(Refusal::NotRunning {
            name: name(),
            status: container.status.to_string(),
        });
    }
    let reports = leader.sessions.reports();
    let mut live = |host: &HostName| match reports.get(host) {
        Some((true, report)) => {
            if let Some(problem) = &report.facts.criu_problem {
                against.push(Refusal::NoCriu {
                    host: host.clone(),
                    problem: problem.clone(),
                });
            }
            Some(report)
        }
        _ => {
            against.push(Refusal::HostDown { host: host.clone() });
            None
        }
    };
    let (source, destination) = (live(&container.host), live(to));
    if let (Some(source), Some(there)) = (source, destination) {
        against.extend(other_machine(to, source, there));
    }
    if let Some(there) = destination {
        let image = &container.spec.image_id;
        if there.images.iter().all(|known| known.id != *image) {
            against.push(Refusal::ImageMissing {
                host: to.clone(),
                image: container.spec.image.to_string(),
            });
        }
    }
    against
}

fn other_machine(to: &HostName, source: &AgentReport, there: &AgentReport) -> Option<Refusal> {
    let (from, there) = (&source.facts, &there.facts);
    let problem = if from.arch != there.arch {
        let (from, there) = (&from.arch, &there.arch);
        format!("its processor is {there}, the container runs on {from}")
    } else {
        let missing = missing_cpu_flags(&from.cpu_flags, &there.cpu_flags);
        if missing.is_empty() {
            return None;
        }
        let missing = missing.join(" ");
        format!("its processor lacks `{missing}`, which the container may be using where it runs")
    };
    Some(Refusal::Invalid {
        what: to.to_string(),
        problem,
    })
}
