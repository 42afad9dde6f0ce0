//! People at their terminals: what they ask, and what they were told. What they were told must
//! stay true.

use std::{
    collections::{BTreeMap, BTreeSet},
    rc::Rc,
};

use godwit_core::{Candidate, Command, Job, NewContainer, State, choose};
use godwit_types::{
    ContainerId, ContainerName, Digest, FailureKind, HostName, Limits, MigrationId, MigrationMode,
    MigrationOptions, NetworkName, Priority, Refusal, Status,
};

use crate::{
    HOSTS,
    context::Context,
    event::Event,
    host_name,
    leader::{
        Leader,
        proposal::{ProposeError, Waiter},
    },
};

/// More at once are not asked for.
const CONTAINERS: usize = 4;

#[derive(Debug, Clone)]
enum Wish {
    Run(Option<HostName>),
    Migrate(ContainerId, HostName, MigrationOptions),
    Cancel(MigrationId),
    Stop(ContainerId, u64),
    Remove(ContainerId, bool),
    List,
}

#[derive(Debug)]
struct Request {
    wish: Wish,
    /// The last entry that anybody was told of when this was asked.
    known: u64,
    /// What it made.
    container: Option<ContainerId>,
    migration: Option<MigrationId>,
}

/// What was asked and what was promised.
#[derive(Debug, Default)]
pub struct Clients {
    requests: BTreeMap<u64, Request>,
    next: u64,
    /// The last entry that anybody was told of.
    known: u64,
    ran: BTreeSet<ContainerId>,
    removing: BTreeSet<ContainerId>,
    removed: BTreeSet<ContainerId>,
    stopped: BTreeSet<ContainerId>,
    migrations: BTreeSet<MigrationId>,
    cancelled: BTreeSet<MigrationId>,
    pub acknowledged: u64,
}

impl Clients {
    /// Whether the state keeps every promise.
    pub fn check(&self, state: &State) -> Result<(), String> {
        let short = ContainerId::short;
        for id in &self.ran {
            if !state.containers.contains_key(id) && !self.removing.contains(id) {
                return Err(format!(
                    "{} runs, a client was told, and is not known",
                    short(id)
                ));
            }
        }
        for id in &self.removed {
            if state.containers.contains_key(id) {
                return Err(format!("{} was removed and is back", short(id)));
            }
        }
        for id in &self.stopped {
            let status = state.containers.get(id).map(|c| &c.status);
            if matches!(status, Some(Status::Running | Status::Creating)) {
                return Err(format!("{} was stopped and runs", short(id)));
            }
        }
        for id in &self.migrations {
            if !state.migrations.contains_key(id) {
                return Err(format!("migration {id} was accepted and is not known"));
            }
        }
        for id in &self.cancelled {
            if state
                .migrations
                .get(id)
                .is_some_and(|m| m.phase.is_committed())
            {
                return Err(format!("migration {id} was cancelled and is committed"));
            }
        }
        Ok(())
    }

    pub fn migrations(&self) -> usize {
        self.migrations.len()
    }
}

/// Somebody asks something of some member.
pub fn ask(context: &mut Context, members: usize) {
    let state = context.truth.state().clone();
    let rng = &mut context.rng;
    let all: Vec<_> = state.containers.values().collect();
    let active: Vec<_> = state.active_migrations().collect();
    let any = |rng: &mut crate::rng::Rng| all[rng.index(all.len())].id.clone();
    let wish = match rng.range(0, 100) {
        _ if all.is_empty() => Wish::Run(None),
        0..20 if all.len() < CONTAINERS => {
            let named = rng.chance(5000).then(|| host_name(rng.index(HOSTS)));
            Wish::Run(named)
        }
        0..65 => {
            let container = any(rng);
            let to = host_name(rng.index(HOSTS));
            let options = MigrationOptions {
                mode: MigrationMode::OFFERED[rng.index(3)],
                timeout_ms: rng.chance(2000).then(|| rng.range(200, 6000)),
                ..MigrationOptions::default()
            };
            Wish::Migrate(container, to, options)
        }
        65..75 if !active.is_empty() => Wish::Cancel(active[rng.index(active.len())].id.clone()),
        75..80 => Wish::Stop(any(rng), rng.range(0, 2000)),
        80..88 => Wish::Remove(any(rng), rng.chance(5000)),
        _ => Wish::List,
    };
    context.clients.next += 1;
    let request = context.clients.next;
    let member = context.rng.index(members);
    context.event(format_args!(
        "request {request} to member {member}: {wish:?}"
    ));
    let asked = Request {
        wish,
        known: context.clients.known,
        container: None,
        migration: None,
    };
    context.clients.requests.insert(request, asked);
    let delay = context.net.delay(&mut context.rng);
    context.after(delay, Event::Request { member, request });
}

/// It ended without an answer that says anything.
pub fn failed(context: &mut Context, request: u64, why: &str) {
    if context.clients.requests.remove(&request).is_some() {
        context.event(format_args!("request {request} fails: {why}"));
    }
}

/// The leader has the state that the request needs.
pub fn read(
    context: &mut Context,
    request: u64,
    leader: &mut Leader,
    state: &Rc<State>,
    applied: u64,
) {
    let Some(asked) = context.clients.requests.get(&request) else {
        return;
    };
    if applied < asked.known {
        let what = format!(
            "request {request} was answered from entry {applied}; entry {} was known when it came",
            asked.known
        );
        context.broke("a read sees what was acknowledged before it", what);
        return;
    }
    let wish = asked.wish.clone();
    let command = match command(context, request, &wish, leader, state) {
        Ok(Some(command)) => command,
        Ok(None) => {
            acknowledge(context, request, applied);
            return;
        }
        Err(why) => {
            failed(context, request, &why);
            return;
        }
    };
    leader.propose(vec![command], Some(Waiter::Request(request)));
}

/// What is to be written for it; None: nothing.
fn command(
    context: &mut Context,
    request: u64,
    wish: &Wish,
    leader: &mut Leader,
    state: &State,
) -> Result<Option<Command>, String> {
    let up =
        |leader: &Leader, host: &HostName| leader.hands.sessions.is_up(host, leader.hands.local);
    let found = |id: &ContainerId| {
        let found = state.containers.get(id);
        found.ok_or_else(|| "no such container".to_owned())
    };
    let down = |host: &HostName| format!("host {host} is down");
    let now_ms = leader.hands.local / 1000;
    Ok(Some(match wish {
        Wish::Run(host) => {
            let candidates: Vec<_> = (0..HOSTS)
                .map(|number| {
                    let host = host_name(number);
                    let up = state.hosts.contains_key(&host) && up(leader, &host);
                    Candidate {
                        host,
                        up,
                        has_image: true,
                    }
                })
                .collect();
            let host = match host {
                Some(host) if !up(leader, host) => return Err(down(host)),
                Some(host) => host.clone(),
                None => choose(state, &candidates).ok_or("no host is up")?,
            };
            let id = ContainerId::from_bytes(context.rng.bytes());
            if let Some(asked) = context.clients.requests.get_mut(&request) {
                asked.container = Some(id.clone());
            }
            leader.wait(Job::Run(id.clone()), request);
            let text = |what: &str| what.parse().map_err(|_| what.to_owned());
            Command::CreateContainer(Box::new(NewContainer {
                id,
                name: ContainerName::new(format!("c{request}")).map_err(|e| e.to_string())?,
                image: text("redis")?,
                image_id: Digest::from_sha256([7; 32]),
                command: vec!["serve".to_owned()],
                env: Vec::new(),
                limits: Limits::default(),
                hostname: String::new(),
                options: godwit_types::Options::default(),
                network: Some(NetworkName::new("default").map_err(|e| e.to_string())?),
                host,
                created_ms: now_ms,
                only_create: false,
            }))
        }
        Wish::Migrate(id, to, options) => {
            let container = found(id)?;
            for host in [&container.host, to] {
                if !up(leader, host) {
                    return Err(down(host));
                }
            }
            let migration = MigrationId::from_bytes(context.rng.bytes());
            if let Some(asked) = context.clients.requests.get_mut(&request) {
                asked.migration = Some(migration.clone());
            }
            Command::StartMigration {
                id: migration,
                container: id.clone(),
                to: to.clone(),
                started_ms: now_ms,
                options: options.clone(),
                priority: Priority::Normal,
                drain: false,
            }
        }
        Wish::Cancel(id) => Command::Abort {
            migration: id.clone(),
            error: "cancelled by the operator".to_owned(),
            failure: None,
        },
        Wish::Stop(id, grace_ms) => {
            let container = found(id)?;
            let ended = matches!(
                container.status,
                Status::Exited { .. } | Status::Failed { .. }
            );
            if ended && container.migration.is_none() {
                return Ok(None);
            }
            if !up(leader, &container.host) {
                return Err(down(&container.host));
            }
            leader.wait(Job::Stop(id.clone()), request);
            Command::BeginStop {
                container: id.clone(),
                grace_ms: *grace_ms,
            }
        }
        Wish::Remove(id, force) => {
            let container = found(id)?;
            if !up(leader, &container.host) {
                return Err(down(&container.host));
            }
            context.clients.removing.insert(id.clone());
            leader.wait(Job::Remove(id.clone()), request);
            Command::BeginRemove {
                container: id.clone(),
                force: *force,
                volumes: false,
            }
        }
        Wish::List => return Ok(None),
    }))
}

/// What applying its command said.
pub fn applied(context: &mut Context, request: u64, result: Result<(), ProposeError>, index: u64) {
    let Some(asked) = context.clients.requests.get(&request) else {
        return;
    };
    match result {
        Ok(()) => {
            // The others wait for their job.
            let now = matches!(asked.wish, Wish::Migrate(..) | Wish::Cancel(_));
            if now || context.bug == Some(crate::bug::Bug::EarlyAnswer) {
                acknowledge(context, request, index);
            }
        }
        Err(ProposeError::Refused(Refusal::NotRunning { .. })) => {
            failed(context, request, "not running");
        }
        Err(ProposeError::Refused(refusal)) => failed(context, request, &refusal.to_string()),
        Err(ProposeError::NotLeader) => failed(context, request, "not written"),
        Err(ProposeError::Lost) => failed(context, request, "the lead was lost"),
    }
}

/// What became of its job.
pub fn job_done(context: &mut Context, request: u64, result: Result<(), FailureKind>, index: u64) {
    match result {
        Ok(()) => acknowledge(context, request, index),
        Err(kind) => failed(context, request, &format!("{kind:?}")),
    }
}

fn acknowledge(context: &mut Context, request: u64, index: u64) {
    let Some(asked) = context.clients.requests.remove(&request) else {
        return;
    };
    context.event(format_args!("request {request} is acknowledged at {index}"));
    let clients = &mut context.clients;
    clients.known = clients.known.max(index);
    clients.acknowledged += 1;
    match asked.wish {
        Wish::Run(_) => clients.ran.extend(asked.container),
        Wish::Migrate(..) => clients.migrations.extend(asked.migration),
        Wish::Cancel(id) => drop(clients.cancelled.insert(id)),
        Wish::Stop(id, _) => drop(clients.stopped.insert(id)),
        Wish::Remove(id, _) => drop(clients.removed.insert(id)),
        Wish::List => {}
    }
    let kept = clients.check(&context.truth.state().clone());
    context.require("what was acknowledged is not lost", kept);
}
