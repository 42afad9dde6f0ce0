//! Verbs as calls of the runtime. Whether a verb may be done was decided before.

use std::{
    sync::Arc,
    time::{Duration, Instant},
};

use godwit_proto::{failure::chain, pause};
use godwit_types::{
    CommandFailure, ContainerId, FailureKind, FreezeStep, Generation, HostName, MigrationId, Need,
    Outcome, PostCopyTo, Verb,
};

use crate::{
    delay, failures,
    host::Host,
    ledger::Answer,
    postcopy::Tail,
    precopy::{self, Flow, Leaves},
    transfer::{Expected, protocol::Passage, source},
};

/// Does a container's command. What an earlier try of `run` or `prepare` left, the runtime
/// clears away by itself.
pub async fn execute(host: &Arc<Host>, verb: &Verb) -> Answer {
    pause::at(verb.name()).await;
    let runtime = &host.runtime;
    let result = match verb {
        Verb::Run {
            container, spec, ..
        } => runtime
            .run(container, spec)
            .await
            .map(|pid| Outcome::Running { pid }),
        Verb::Stop {
            container,
            grace_ms,
            ..
        } => runtime
            .stop(container, Duration::from_millis(*grace_ms))
            .await
            .map(|exit| Outcome::Stopped { exit }),
        Verb::Remove {
            container, force, ..
        } => runtime
            .remove(container, *force)
            .await
            .map(|()| Outcome::Done),
        Verb::CheckSource {
            container, options, ..
        } => runtime
            .check_source(container, precopy::carries(host, options))
            .await
            .map(checked),
        Verb::CheckDestination {
            container,
            spec,
            need,
            memory,
        } => {
            let need = Need {
                disk: *need,
                memory: *memory,
            };
            let done = runtime.check_destination(container, spec, need).await;
            done.map(|()| checked(need))
        }
        Verb::Sample {
            container,
            millis,
            options,
            ..
        } => {
            let watch_for = Duration::from_millis(*millis);
            return precopy::sample(host, container, watch_for, options).await;
        }
        Verb::Prepare {
            migration,
            container,
            generation,
            spec,
            from,
            ..
        } => {
            // One that an agent before this one had prepared awaits a push: not where the runtime
            // clears away, and not when this fails.
            host.doors.close(container).await;
            let prepared = runtime.prepare(container, spec, migration).await;
            match &prepared {
                Ok(()) => {
                    host.arrivals
                        .keep(container, migration.clone(), from.clone());
                    host.doors.open(
                        container,
                        runtime.memory_free(),
                        Expected {
                            migration: migration.clone(),
                            generation: *generation,
                            from: from.clone(),
                        },
                    )
                }
                // The first failure is the one to tell.
                Err(_) => drop(runtime.discard(container).await),
            }
            prepared.map(|()| Outcome::Done)
        }
        Verb::PreCopy {
            migration,
            container,
            generation,
            to,
            address,
            options,
        } => {
            let generation = *generation;
            let answer =
                precopy::run(host, migration, container, generation, to, address, options).await;
            host.progress.forget(migration);
            return answer;
        }
        Verb::Freeze {
            migration,
            container,
            ..
        } => {
            let carried = host.flows.has(container, migration);
            let layer = host.flows.take_layer(container, migration);
            runtime.freeze(container, migration, carried, layer).await
        }
        .map(|steps| Outcome::Frozen { steps }),
        Verb::Transfer {
            migration,
            container,
            generation,
            to,
            address,
        } => {
            return transfer(host, migration, container, *generation, to, address).await;
        }
        Verb::Stage {
            migration,
            container,
            ..
        } => {
            let arrived = host.doors.shut_complete(container, migration)?;
            runtime
                .stage(container, arrived.memory, arrived.layer)
                .await
                .map(|steps| Outcome::Staged { steps })
        }
        Verb::Resume { container, .. } => {
            host.doors.close(container).await;
            delay::before_resume().await;
            match runtime.resume(container).await {
                Ok((pid, steps)) => Ok(Outcome::Resumed { pid, steps }),
                Err(error) if runtime.never_resumed(container).await => {
                    let text = format!("it is lost and never ran here: {}", chain(&error));
                    return Err(CommandFailure::new(FailureKind::NeverResumed, text));
                }
                Err(error) => Err(error),
            }
        }
        Verb::Discard {
            container,
            generation,
            ..
        } => {
            // Nothing may be written any more where the runtime clears away.
            host.arrivals.forget(container);
            host.doors.close(container).await;
            let discarded = match generation {
                // It may run: the container is elsewhere by a newer generation.
                Some(_) => runtime.remove(container, true).await,
                None => runtime.discard(container).await,
            };
            discarded.map(|()| Outcome::Done)
        }
        Verb::Thaw { container, .. } => {
            host.tails.forget(container);
            host.flows.forget(container);
            let thawed = runtime.thaw(container).await;
            host.throttled.release(runtime, container).await;
            thawed.map(|()| Outcome::Done)
        }
        Verb::Release {
            migration,
            container,
            generation,
            after,
        } => {
            let released = match after {
                Some(after) => {
                    // Whoever waits for the container waits for these.
                    runtime.deliver_remote(container).await;
                    let tail = Tail::new(migration, container, *generation, after.clone());
                    let delivered = host.tails.finish(host, tail).await;
                    host.progress.forget(migration);
                    delivered?
                }
                None => Outcome::Done,
            };
            host.flows.forget(container);
            host.throttled.forget(container);
            runtime.release(container).await.map(|()| released)
        }
        Verb::SyncNetwork { .. } | Verb::BringImage { .. } => return network(host, verb).await,
    };
    if let Verb::Run { spec, .. } | Verb::Prepare { spec, .. } = verb {
        host.images.made(&spec.image_id);
    }
    result.map_err(|error| failures::of_runtime(&error))
}

fn checked(need: Need) -> Outcome {
    Outcome::Checked {
        need: need.disk,
        memory: need.memory,
    }
}

/// Does a network's command.
pub async fn network(host: &Host, verb: &Verb) -> Answer {
    let Verb::SyncNetwork { table } = verb else {
        let text = format!("{} is not a network's command", verb.name());
        return Err(CommandFailure::new(FailureKind::Internal, text));
    };
    let _one = host.networks.lock().await;
    match host.runtime.networks().apply(&host.name, table).await {
        Ok(()) => Ok(Outcome::Done),
        Err(error) => Err(failures::internal(&error)),
    }
}

async fn transfer(
    host: &Arc<Host>,
    migration: &MigrationId,
    container: &ContainerId,
    generation: Generation,
    to: &HostName,
    address: &str,
) -> Answer {
    let started = Instant::now();
    let flow = host.flows.take(container, migration);
    let carried = flow.is_some();
    let leaves = flow.as_ref().and_then(Flow::leaves);
    let files = host
        .runtime
        .outgoing(container, carried)
        .await
        .map_err(|e| failures::of_runtime(&e))?;
    let channel = match &flow {
        Some(flow) => flow.channel(),
        None => {
            let target = host.peer(godwit_proto::tls::Role::Host, Some(to.as_str()), address);
            godwit_proto::tls::channel(host.tls.clone(), target)
        }
    };
    let passage = Passage {
        migration: migration.clone(),
        container: container.clone(),
        // The destination expects the generation after the commit.
        generation: generation.next(),
        carried,
    };
    let push = async {
        let pushed = source::push(channel, &passage, files).await;
        pushed.map_err(|error| {
            CommandFailure::new(
                error.kind(),
                format!("transfer to host `{to}` failed: {}", chain(&error)),
            )
        })
    };
    let memory = async {
        match flow {
            Some(flow) => flow.finish(host).await,
            None => Ok(0),
        }
    };
    let (pushed, carried) = futures::try_join!(push, memory)?;
    let bytes = pushed + carried;
    if let Some(Leaves { max_bandwidth }) = leaves {
        let after = PostCopyTo {
            to: to.clone(),
            address: address.to_owned(),
            max_bandwidth,
        };
        // From now on: already the restore may touch what was left behind.
        let tail = Tail::new(migration, container, generation, after);
        host.tails.begin(host, tail);
    }
    let steps = vec![FreezeStep::new("transfer", started.elapsed())];
    Ok(Outcome::Transferred { bytes, steps })
}
