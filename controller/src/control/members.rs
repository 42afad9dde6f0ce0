//! The members: who they are, and changes of who they are.

use std::{collections::BTreeSet, net::SocketAddr, sync::Arc, time::Duration};

use godwit_core::{Command, MemberChange, Roster};
use godwit_proto::{
    control::{AddMemberRequest, MemberRequest, RemoveMembersRequest},
    document, failure,
    v1::{Document, Documents},
};
use godwit_types::{MemberName, MemberRecord, MemberRole, MemberView, Membership, Refusal};
use tokio::time::{Instant, sleep, timeout};
use tonic::Status;

use super::{invalid, read, status_of};
use crate::{
    leader::{
        Leader,
        members::{group, known},
    },
    raft::{Kind, ProposeError, RaftStatus, TransferError},
};

/// How long a change waits for one that is under way.
const OTHERS: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(100);
/// How long a removal is waited for. It goes on afterwards.
const REMOVED: Duration = Duration::from_secs(20);
/// raft gives a transfer up after an election's time.
const TRANSFERRED: Duration = Duration::from_secs(3);

pub async fn list(leader: &Arc<Leader>) -> Result<Documents, Status> {
    let roster = read(leader).await?.members.clone();
    let status = status(leader).await?;
    let group = group(&status);
    let view = |record: MemberRecord| {
        let found = status.members.get(&record.id).copied();
        let (reachable, matched) = found.unwrap_or((false, 0));
        let leads = status.leader == Some(record.id);
        MemberView {
            note: roster.note(&group, record.id),
            name: record.name,
            address: record.address,
            leader: leads,
            reachable,
            term: status.term,
            applied: matched.min(status.applied),
            id: record.id,
            role: if leads {
                MemberRole::Leader
            } else if group.learners.contains(&record.id) {
                MemberRole::Learner
            } else {
                MemberRole::Follower
            },
            behind: status.commit.saturating_sub(matched),
        }
    };
    let members = known(&roster, &leader.configured).into_iter();
    Ok(document::write_all(members.map(view)))
}

pub async fn add(leader: &Arc<Leader>, request: AddMemberRequest) -> Result<Document, Status> {
    let name =
        MemberName::new(request.name.clone()).map_err(|reason| invalid(&request.name, reason))?;
    let address: SocketAddr = request
        .address
        .parse()
        .map_err(|_| invalid(&request.address, "it is not an IP address and a port"))?;
    let ip = address.ip();
    if ip.is_unspecified() || ip.is_multicast() || address.port() == 0 {
        return Err(invalid(
            &request.address,
            "it is not the address of one machine",
        ));
    }
    let deadline = Instant::now() + OTHERS;
    loop {
        let roster = founded(leader).await?;
        if let Ok(found) = roster.find(name.as_str())
            && found.address == address.to_string()
        {
            // Asked again.
            return Ok(answer(&roster));
        }
        let replaces = match request.replaces.as_str() {
            "" => None,
            old => Some(roster.find(old).map_err(failure::refused)?.id),
        };
        let member = MemberRecord {
            id: roster.last + 1,
            name: name.clone(),
            address: address.to_string(),
        };
        roster
            .may_add(&member, replaces)
            .map_err(failure::refused)?;
        let id = member.id;
        let change = MemberChange::Add { member, replaces };
        let command = Command::Members { change };
        let changes = vec![(id, Kind::Learner)];
        match leader.raft.change(changes, Some(&command)).await {
            Ok(_) => return Ok(answer(&leader.state().members)),
            Err(ProposeError::Refused(Refusal::MembersChanging { .. }))
                if Instant::now() < deadline =>
            {
                sleep(PAUSE).await;
            }
            Err(reason) => return Err(status_of(reason)),
        }
    }
}

pub async fn remove(
    leader: &Arc<Leader>,
    request: RemoveMembersRequest,
) -> Result<Document, Status> {
    let roster = founded(leader).await?;
    let mut ids = BTreeSet::new();
    for name in &request.names {
        match roster.find(name) {
            Ok(found) => drop(ids.insert(found.id)),
            // Asked again.
            Err(_) if roster.gone.values().any(|m| m.name.as_str() == name) => {}
            Err(refusal) => return Err(failure::refused(refusal)),
        }
    }
    let group = group(&status(leader).await?);
    roster.may_remove(&group, &ids).map_err(failure::refused)?;
    let change = MemberChange::Leave { ids: ids.clone() };
    let command = Command::Members { change };
    if !ids.is_empty() {
        leader.raft.propose(&command).await.map_err(status_of)?;
    }
    let mut published = leader.raft.published();
    let out = published.wait_for(|now| {
        let members = &now.state.members.members;
        !ids.iter()
            .any(|id| members.contains_key(id) || now.ids.contains(id))
    });
    match timeout(REMOVED, out).await {
        Ok(Ok(now)) => Ok(answer(&now.state.members)),
        Ok(Err(_)) => Err(super::lost()),
        Err(_) => Err(failure::refused(Refusal::MembersChanging {
            what: format!(
                "not out after {} s; it goes on as soon as enough members are up",
                REMOVED.as_secs()
            ),
        })),
    }
}

pub async fn transfer(leader: &Arc<Leader>, request: MemberRequest) -> Result<Document, Status> {
    let roster = founded(leader).await?;
    let member = roster.find(&request.name).map_err(failure::refused)?;
    let problem = |problem: String| {
        failure::refused(Refusal::CannotLead {
            member: member.name.clone(),
            problem,
        })
    };
    if member.id == leader.raft.id() {
        return Ok(answer(&roster));
    }
    if roster.leaving.contains(&member.id) {
        return Err(problem("it is leaving".into()));
    }
    match leader.raft.transfer(member.id).await {
        Ok(()) => {}
        Err(TransferError::NotLeader) => return Err(super::lost()),
        Err(reason) => return Err(problem(reason.to_string())),
    }
    let mut leadership = leader.raft.leadership();
    let there = leadership.wait_for(|now| now.leader == Some(member.id));
    match timeout(TRANSFERRED, there).await {
        Ok(Ok(_)) => Ok(answer(&roster)),
        Ok(Err(_)) => Err(super::lost()),
        Err(_) => Err(problem("it did not take the lead in time".into())),
    }
}

/// The members, once the first leader has written them down.
async fn founded(leader: &Arc<Leader>) -> Result<Roster, Status> {
    let roster = read(leader).await?.members.clone();
    if roster.is_empty() {
        return Err(Status::unavailable("the group has only just begun"));
    }
    Ok(roster)
}

async fn status(leader: &Arc<Leader>) -> Result<RaftStatus, Status> {
    let status = leader.raft.status().await;
    status.ok_or_else(|| Status::unavailable("this member is stopping"))
}

fn answer(roster: &Roster) -> Document {
    let count = roster.staying().count();
    let mut notes = Vec::new();
    if count.is_multiple_of(2) {
        notes.push(format!(
            "{count} members are no safer than {}: add one more",
            count - 1
        ));
    }
    document::write(&Membership {
        members: roster.members.values().cloned().collect(),
        founders: roster.founders.iter().copied().collect(),
        notes,
    })
}
