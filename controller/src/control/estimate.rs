//! A migration that is not made: both hosts are asked, the container is watched for a while, and
//! nothing changes.

use std::{sync::Arc, time::Duration};

use godwit_core::stopped_only;
use godwit_proto::{control::MigrateRequest, failure};
use godwit_types::{AgentCommand, Estimate, HostName, MigrationMode, Need, Outcome, Status, Verb};
use tokio::time::timeout;
use tonic::Status as Refused;

use super::{preflight::preflight, read};
use crate::{ids, leader::Leader};

/// How long the container is watched.
const WATCH_MS: u64 = 3000;
/// A host that takes longer has failed.
const PATIENCE: Duration = Duration::from_secs(60);

pub async fn estimate(leader: &Arc<Leader>, request: MigrateRequest) -> Result<Estimate, Refused> {
    let state = read(leader).await?;
    let found = preflight(leader, &state, &request).map_err(failure::refused)?;
    let (container, to, options) = (found.container, &found.to, &found.options);
    let mut against: Vec<_> = found.against.iter().map(ToString::to_string).collect();
    let mut estimate = Estimate::default();
    let mut need = Need::default();
    let from = &container.host;
    let it = || container.id.clone();
    let generation = container.generation;
    // What is known already must not be said again by the host, and one that is being moved
    // answers nothing else for a while.
    let idle = container.migration.is_none();
    if idle && container.status == Status::Running && leader.sessions.is_up(from) {
        let check = Verb::CheckSource {
            container: it(),
            generation,
            options: options.clone(),
        };
        let sample = Verb::Sample {
            container: it(),
            generation,
            millis: WATCH_MS,
            options: options.clone(),
        };
        match ask(leader, from, check).await {
            Ok(Outcome::Checked { need: disk, memory }) => need = Need { disk, memory },
            Ok(_) => {}
            Err(reason) => against.push(reason),
        }
        match ask(leader, from, sample).await {
            Ok(Outcome::Sampled { estimate: said }) => estimate = said,
            Ok(_) => {}
            Err(reason) => against.push(reason),
        }
    }
    if idle && from != to && leader.sessions.is_up(to) {
        let check = Verb::CheckDestination {
            container: it(),
            spec: Box::new(container.spec.clone()),
            need: need.disk,
            memory: need.memory,
        };
        if let Err(reason) = ask(leader, to, check).await {
            against.push(reason);
        }
    }
    if options.mode == MigrationMode::Auto {
        let problem = leader.sessions.precopy_problem(from);
        let stopped = problem.map(|problem| stopped_only(from, &problem));
        let notes: Vec<_> = stopped.into_iter().chain(estimate.note.take()).collect();
        estimate.note = (!notes.is_empty()).then(|| notes.join("; "));
    }
    let freeze_ms = estimate.predicted_freeze_us.div_ceil(1000);
    if options.mode != MigrationMode::Stop && freeze_ms > options.max_downtime_ms {
        against.push(format!(
            "the freeze would take {freeze_ms} ms, more than the {} ms allowed",
            options.max_downtime_ms
        ));
    }
    against.append(&mut estimate.against);
    let mut said = std::collections::BTreeSet::new();
    against.retain(|reason| said.insert(reason.clone()));
    Ok(Estimate {
        against,
        ..estimate
    })
}

async fn ask(leader: &Leader, host: &HostName, verb: Verb) -> Result<Outcome, String> {
    let what = verb.name();
    let command = AgentCommand {
        operation: ids::operation_id(),
        verb,
    };
    match timeout(PATIENCE, leader.sessions.ask(host, command)).await {
        Ok(Ok(outcome)) => Ok(outcome),
        // A host names itself in what it says.
        Ok(Err(error)) => Err(format!("{what}: {error}")),
        Err(_) => {
            let seconds = PATIENCE.as_secs();
            Err(format!("{what} on host `{host}`: no answer in {seconds} s"))
        }
    }
}
