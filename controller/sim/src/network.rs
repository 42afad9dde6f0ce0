//! The network between members and hosts: who can't reach whom, what gets lost, how long things
//! take, and the agents' sessions, which keep order until they break.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    event::{MILLI, Micros},
    rng::Rng,
};

pub type LinkId = u64;

/// A machine by number: members first, then hosts.
pub type Node = usize;

/// One session's connection. A message that is lost breaks it: nothing comes after a gap.
#[derive(Debug, Clone)]
pub struct Link {
    pub host: usize,
    pub member: usize,
    /// The incarnations that hold its two ends.
    pub agent_life: u64,
    pub member_life: u64,
    /// Since when nothing gets through any more, though nobody was told.
    pub broken: Option<Micros>,
    pub closed_by_agent: bool,
    pub closed_by_member: bool,
    last_up: Micros,
    last_down: Micros,
}

/// How bad it is. Chances are of 10,000.
#[derive(Debug, Clone, Copy, Default)]
pub struct Weather {
    pub drop: u64,
    pub duplicate: u64,
    pub slow: u64,
}

#[derive(Debug)]
pub struct Network {
    members: usize,
    /// From, to.
    blocked: BTreeSet<(Node, Node)>,
    pub weather: Weather,
    links: BTreeMap<LinkId, Link>,
    next: LinkId,
}

impl Network {
    pub fn new(members: usize, weather: Weather) -> Self {
        Self {
            members,
            blocked: BTreeSet::new(),
            weather,
            links: BTreeMap::new(),
            next: 0,
        }
    }

    pub fn host(&self, host: usize) -> Node {
        self.members + host
    }

    pub fn block(&mut self, from: Node, to: Node) {
        self.blocked.insert((from, to));
    }

    pub fn unblock(&mut self, from: Node, to: Node) {
        self.blocked.remove(&(from, to));
    }

    /// No partition, no loss.
    pub fn heal(&mut self) {
        self.blocked.clear();
        self.weather = Weather::default();
    }

    pub fn reaches(&self, from: Node, to: Node) -> bool {
        !self.blocked.contains(&(from, to))
    }

    pub fn delay(&self, rng: &mut Rng) -> Micros {
        if rng.chance(self.weather.slow) {
            rng.range(5 * MILLI, 400 * MILLI)
        } else {
            rng.range(100, 1500)
        }
    }

    /// When the copies of a message without a connection arrive: none, one, or two.
    pub fn send(&self, from: Node, to: Node, now: Micros, rng: &mut Rng) -> Vec<Micros> {
        if !self.reaches(from, to) || rng.chance(self.weather.drop) {
            return Vec::new();
        }
        let copies = 1 + u64::from(rng.chance(self.weather.duplicate));
        (0..copies).map(|_| now + self.delay(rng)).collect()
    }

    pub fn connect(
        &mut self,
        host: usize,
        agent_life: u64,
        member: usize,
        member_life: u64,
    ) -> LinkId {
        self.next += 1;
        let link = Link {
            host,
            member,
            agent_life,
            member_life,
            broken: None,
            closed_by_agent: false,
            closed_by_member: false,
            last_up: 0,
            last_down: 0,
        };
        self.links.insert(self.next, link);
        self.next
    }

    pub fn link(&self, id: LinkId) -> Option<&Link> {
        self.links.get(&id)
    }

    pub fn close_by_agent(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.closed_by_agent = true;
        }
        self.forget(id);
    }

    pub fn close_by_member(&mut self, id: LinkId) {
        if let Some(link) = self.links.get_mut(&id) {
            link.closed_by_member = true;
        }
        self.forget(id);
    }

    fn forget(&mut self, id: LinkId) {
        let over = |link: &Link| link.closed_by_agent && link.closed_by_member;
        if self.links.get(&id).is_some_and(over) {
            self.links.remove(&id);
        }
    }

    /// Everything of a process that is gone is closed by its system.
    pub fn close_all(&mut self, ends: impl Fn(&Link) -> bool, by_agent: bool) {
        for link in self.links.values_mut().filter(|link| ends(link)) {
            if by_agent {
                link.closed_by_agent = true;
            } else {
                link.closed_by_member = true;
            }
        }
        self.links
            .retain(|_, link| !(link.closed_by_agent && link.closed_by_member));
    }

    /// When a message on this session arrives; None: never, and nothing after it.
    pub fn on_link(&mut self, id: LinkId, up: bool, now: Micros, rng: &mut Rng) -> Option<Micros> {
        let link = self.links.get(&id)?;
        let (host, member) = (self.members + link.host, link.member);
        let (from, to) = if up { (host, member) } else { (member, host) };
        // A connection makes up for most of what the network loses.
        let lost = !self.reaches(from, to) || rng.chance(self.weather.drop / 20);
        let delay = self.delay(rng);
        let link = self.links.get_mut(&id)?;
        if link.broken.is_some() || link.closed_by_agent || link.closed_by_member {
            return None;
        }
        if lost {
            link.broken = Some(now);
            return None;
        }
        let last = if up {
            &mut link.last_up
        } else {
            &mut link.last_down
        };
        *last = (now + delay).max(*last + 1);
        Some(*last)
    }

    /// Whether this end is told that the other one is gone: at once when the network carries it,
    /// after `patience` by its own probing when it does not.
    pub fn is_over(&self, id: LinkId, agent: bool, now: Micros, patience: Micros) -> bool {
        let Some(link) = self.links.get(&id) else {
            return true;
        };
        let host = self.members + link.host;
        let (closed, carried) = if agent {
            (link.closed_by_member, self.reaches(link.member, host))
        } else {
            (link.closed_by_agent, self.reaches(host, link.member))
        };
        (closed && carried) || link.broken.is_some_and(|since| now > since + patience)
    }

    /// A partition breaks what was under way; called at every partition.
    pub fn break_blocked(&mut self, now: Micros) {
        let (blocked, members) = (&self.blocked, self.members);
        for link in self.links.values_mut() {
            let (host, member) = (members + link.host, link.member);
            if blocked.contains(&(host, member)) || blocked.contains(&(member, host)) {
                link.broken.get_or_insert(now);
            }
        }
    }
}
