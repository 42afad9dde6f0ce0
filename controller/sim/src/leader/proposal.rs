//! Commands on their way into the log, and who waits for what applying them said.

use godwit_core::{Command, Job};
use godwit_types::{HostName, InstanceReport, Refusal};

use crate::network::LinkId;

/// Why a command has no result.
#[derive(Debug, Clone)]
pub enum ProposeError {
    Refused(Refusal),
    NotLeader,
    /// It may have been committed or not.
    Lost,
}

/// Who waits.
#[derive(Debug, Clone)]
pub enum Waiter {
    /// A session that begins once its host is known.
    Hello(LinkId, HostName, Vec<InstanceReport>),
    Job(Job),
    Request(u64),
}

/// In this order and in one write; the answer is the last one's.
#[derive(Debug)]
pub struct Proposal {
    pub commands: Vec<Command>,
    pub waiter: Option<Waiter>,
}
