//! Whether a container can move to a host, as far as the leader knows. The rest of the checks is
//! the hosts', and the state's own are repeated when the command is applied.

use std::collections::BTreeMap;

use godwit_core::{Container, State, kept_with, no_place};
use godwit_types::{AgentReport, HostName, Refusal, Status, missing_cpu_flags};

use super::images::has;

/// Every reason against a move, the gravest first. `reports`: what each host said last, and whether
/// it is up.
pub fn against(
    reports: &BTreeMap<HostName, (bool, AgentReport)>,
    state: &State,
    container: &Container,
    to: &HostName,
) -> Vec<Refusal> {
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
    against.extend(kept_with(state, container));
    against.extend(no_place(state, container, to));
    if state.is_draining(to) {
        against.push(Refusal::HostDraining { host: to.clone() });
    }
    let constraints = &container.spec.options.policy.constraints;
    if let Some(there) = state.hosts.get(to)
        && let Some(constraint) = constraints.iter().find(|c| !c.holds(&there.labels))
    {
        against.push(Refusal::Constrained {
            host: to.clone(),
            name: name(),
            constraint: constraint.to_string(),
        });
    }
    if container.status != Status::Running {
        against.push(Refusal::NotRunning {
            name: name(),
            status: container.status.to_string(),
        });
    }
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
        // What one host has is brought before the freeze.
        let somewhere = reports
            .values()
            .any(|(up, report)| *up && has(report, image));
        if !somewhere && !has(there, image) {
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
