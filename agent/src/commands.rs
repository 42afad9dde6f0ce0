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
    failures,
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
    let _had = match verb.container() {
        Some(container) => Some(host.exclusive.take(container).await),
        None => None,
    };
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
            let sampled = precopy::sample(host, container, watch_for, options).await;
            return match sampled {
                Ok(Outcome::Sampled { mut estimate }) => {
                    let stay = runtime.stay_behind(container).await;
                    let stay = stay.map_err(|error| failures::of_runtime(&error))?;
                    if stay > 0 {
                        let text = staying(stay);
                        estimate.note = Some(match estimate.note {
                            Some(note) => format!("{note}; {text}"),
                            None => text,
                        });
                    }
                    Ok(Outcome::Sampled { estimate })
                }
                other => other,
            };
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
            let moving = host.flows.take_layer(container, migration);
            runtime.freeze(container, migration, carried, moving).await
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
                .stage(container, arrived.memory, arrived.layers)
                .await
                .map(|steps| Outcome::Staged { steps })
        }
        Verb::Resume { container, .. } => {
            host.doors.close(container).await;
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
                Some(_) => runtime.remove_with_volumes(container).await,
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
        Verb::SyncNetwork { .. }
        | Verb::RemoveNetwork { .. }
        | Verb::RemoveVolume { .. }
        | Verb::BringImage { .. } => {
            return of_host(host, verb).await;
        }
        Verb::Start {
            container, spec, ..
        } => runtime
            .start(container, spec)
            .await
            .map(|pid| Outcome::Running { pid }),
        Verb::Pause { container, .. } => done(runtime.pause(container, true).await),
        Verb::Unpause { container, .. } => done(runtime.pause(container, false).await),
        Verb::Signal {
            container, signal, ..
        } => done(runtime.signal(container, *signal).await),
        Verb::Update {
            container, spec, ..
        } => done(runtime.update(container, spec).await),
    };
    if let Verb::Run { spec, .. } | Verb::Prepare { spec, .. } = verb {
        host.images.made(&spec.image_id);
    }
    result.map_err(|error| failures::of_runtime(&error))
}

fn done<E>(result: Result<(), E>) -> Result<Outcome, E> {
    result.map(|()| Outcome::Done)
}

fn checked(need: Need) -> Outcome {
    Outcome::Checked {
        need: need.disk,
        memory: need.memory,
    }
}

/// Of what does not move.
fn staying(processes: usize) -> String {
    format!("what `exec` started ends when the container is frozen ({processes} processes)")
}

/// Does a network's command, or a volume's.
pub async fn of_host(host: &Host, verb: &Verb) -> Answer {
    let table = match verb {
        Verb::SyncNetwork { table } => table,
        Verb::RemoveNetwork { network } => {
            let removed = host.runtime.networks().leave(network).await;
            let removed = removed.map(|()| Outcome::Done);
            return removed.map_err(|error| failures::internal(&error));
        }
        Verb::RemoveVolume { volume } => {
            let removed = host.runtime.remove_volume(volume).await;
            let removed = removed.map(|()| Outcome::Done);
            return removed.map_err(|error| failures::of_runtime(&error));
        }
        _ => {
            let text = format!("{} is a container's command", verb.name());
            return Err(CommandFailure::new(FailureKind::Internal, text));
        }
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
