//! Whether everything has come to rest, and is where the state says it is.

use godwit_agent::ledger::Role;
use godwit_core::due;
use godwit_types::Status;

use crate::{
    agent::{Agent, runtime::Doing},
    host_name,
    member::{Member, raft_id},
    truth::Truth,
};

/// An error: what has not, or is not.
pub fn look(truth: &Truth, members: &[Member], agents: &[Agent]) -> Result<(), String> {
    let roster = &truth.state().members;
    if !(roster.leaving.is_empty() && roster.replaces.is_empty()) {
        return Err(format!("the group is still to change: {roster:?}"));
    }
    let part = |member: &&Member| {
        let id = raft_id(member.index);
        roster.members.contains_key(&id)
    };
    for member in members.iter().filter(part) {
        if member.applied() != Some(truth.last()) {
            return Err(format!("member {} is behind", member.index));
        }
        if member.state() != Some(truth.state()) {
            return Err(format!("member {} has another state", member.index));
        }
    }
    if !members.iter().any(Member::leads) {
        return Err("nobody leads".to_owned());
    }
    let state = truth.state();
    let due = due(state);
    if !due.is_empty() {
        return Err(format!("still to be done: {due:?}"));
    }
    for agent in agents {
        if !agent.is_quiet() {
            return Err(format!("agent {} is at something", agent.index));
        }
        let host = host_name(agent.index);
        for (id, instance) in &agent.runtime.instances {
            let owned = state.containers.get(id).filter(|c| c.host == host);
            let fits = match owned.map(|c| &c.status) {
                Some(Status::Running) => matches!(instance.doing, Doing::Running { .. }),
                Some(Status::Exited { .. }) => matches!(instance.doing, Doing::Exited(_)),
                _ => false,
            };
            if !fits {
                let (short, doing) = (id.short(), &instance.doing);
                return Err(format!("{host} has {short}, {doing:?}, for no reason"));
            }
        }
        for (id, record) in &agent.ledger {
            // Nobody will ask for it again: what could not be written of its end is no harm.
            let forgotten = !state.containers.contains_key(id);
            if forgotten && !agent.runtime.instances.contains_key(id) {
                continue;
            }
            let owned = state.containers.get(id).filter(|c| c.host == host);
            let fits = match &record.role {
                Role::None { .. } => owned.is_none(),
                Role::Owner { generation, .. } => {
                    owned.is_some_and(|c| c.generation == *generation)
                }
                Role::Incoming { .. } => false,
            };
            if !fits {
                return Err(format!(
                    "{host} takes itself for {:?} of {}",
                    record.role,
                    id.short()
                ));
            }
        }
    }
    for container in state.containers.values() {
        let mut agents = agents.iter();
        let owner = agents.find(|agent| host_name(agent.index) == container.host);
        if owner.is_none_or(|o| !o.runtime.instances.contains_key(&container.id)) {
            return Err(format!("{} is not where it belongs", container.id.short()));
        }
    }
    Ok(())
}
