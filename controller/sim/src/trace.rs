//! What happened, in two forms: a hash of every event, and, when somebody reads it, a line each.

use std::fmt::{self, Write};

use crate::event::Micros;

/// See the module. The text of an event is its identity: what is not in it is not compared.
#[derive(Debug)]
pub struct Trace {
    hash: Fnv,
    pub events: u64,
    print: bool,
}

/// FNV-1a, 64 bits, fed by the formatter: no text is kept.
#[derive(Debug)]
struct Fnv(u64);

impl Write for Fnv {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            self.0 = (self.0 ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3);
        }
        Ok(())
    }
}

impl Trace {
    pub fn new(print: bool) -> Self {
        Self {
            hash: Fnv(0xcbf2_9ce4_8422_2325),
            events: 0,
            print,
        }
    }

    /// An event that is part of the run's identity.
    pub fn event(&mut self, now: Micros, what: fmt::Arguments<'_>) {
        self.events += 1;
        // Writing to a hash can't fail.
        let _ = write!(self.hash, "{now} {what}");
        if self.print {
            println!("{:>10.6} {what}", now as f64 / 1e6);
        }
    }

    /// Numbers alone: for what happens too often to be worth a line.
    pub fn quiet(&mut self, numbers: &[u64]) {
        self.events += 1;
        for number in numbers {
            self.hash.0 = crate::rng::mix(self.hash.0 ^ number);
        }
    }

    pub fn hash(&self) -> u64 {
        self.hash.0
    }
}
