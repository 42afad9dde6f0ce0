//! What every part acts with: time, chance, the network, and the checkers that watch.

use std::fmt;

use crate::{
    bug::Bug,
    client::Clients,
    event::{Event, FromAgent, MILLI, Micros, Queue, ToAgent},
    network::{LinkId, Network},
    rng::Rng,
    trace::Trace,
    truth::Truth,
};

/// A rule that did not hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Broken {
    pub at: Micros,
    pub rule: &'static str,
    pub what: String,
}

impl fmt::Display for Broken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.at as f64 / 1e6;
        write!(f, "{}: {} (at {seconds:.6} s)", self.rule, self.what)
    }
}

/// See the module.
#[derive(Debug)]
pub struct Context {
    pub now: Micros,
    pub queue: Queue,
    pub rng: Rng,
    pub net: Network,
    pub trace: Trace,
    pub truth: Truth,
    pub clients: Clients,
    pub bug: Option<Bug>,
    /// How far each machine's clock is ahead: members first, then hosts.
    pub ahead: Vec<Micros>,
    /// The first rule that did not hold.
    pub broken: Option<Broken>,
}

impl Context {
    /// What the clock of this machine shows.
    pub fn local(&self, node: usize) -> Micros {
        self.now + self.ahead[node]
    }

    pub fn after(&mut self, delay: Micros, event: Event) {
        self.queue.put(self.now + delay, event);
    }

    pub fn event(&mut self, what: fmt::Arguments<'_>) {
        self.trace.event(self.now, what);
    }

    /// Writes down that a rule does not hold; the first one counts.
    pub fn broke(&mut self, rule: &'static str, what: String) {
        self.event(format_args!("BROKEN {rule}: {what}"));
        let at = self.now;
        self.broken.get_or_insert(Broken { at, rule, what });
    }

    pub fn require(&mut self, rule: &'static str, result: Result<(), String>) {
        if let Err(what) = result {
            self.broke(rule, what);
        }
    }

    pub fn tell_agent(&mut self, link: LinkId, message: ToAgent) {
        if let Some(at) = self.net.on_link(link, false, self.now, &mut self.rng) {
            // As when it is sent again at the next session.
            let again = matches!(message, ToAgent::Command(_))
                && self.rng.chance(self.net.weather.duplicate);
            if again {
                let later = at + self.rng.range(1, 2000 * MILLI);
                let message = message.clone();
                self.queue.put(later, Event::ToAgent { link, message });
            }
            self.queue.put(at, Event::ToAgent { link, message });
        }
    }

    pub fn tell_member(&mut self, link: LinkId, message: FromAgent) {
        if let Some(at) = self.net.on_link(link, true, self.now, &mut self.rng) {
            self.queue.put(at, Event::ToMember { link, message });
        }
    }
}
