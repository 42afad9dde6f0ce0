//! The one history: what is at each index of the log, whoever applied it first. Every other
//! member must have exactly that.

use std::rc::Rc;

use godwit_core::{State, check};

/// One index of the log.
#[derive(Debug)]
struct Slot {
    term: u64,
    data: Vec<u8>,
    /// After it was applied.
    state: Rc<State>,
}

/// See the module.
#[derive(Debug)]
pub struct Truth {
    slots: Vec<Slot>,
    state: Rc<State>,
    /// The state has changed since somebody looked.
    pub news: bool,
}

impl Default for Truth {
    fn default() -> Self {
        Self {
            slots: Vec::new(),
            state: Rc::new(State::default()),
            news: false,
        }
    }
}

impl Truth {
    /// The index of the last entry that any member applied.
    pub fn last(&self) -> u64 {
        self.slots.len() as u64
    }

    /// The state there.
    pub fn state(&self) -> &Rc<State> {
        &self.state
    }

    /// A member applied an entry and came to `state`.
    pub fn applied(
        &mut self,
        index: u64,
        term: u64,
        data: &[u8],
        state: &Rc<State>,
    ) -> Result<(), String> {
        if index == self.last() + 1 {
            check(&self.state, state)?;
            self.slots.push(Slot {
                term,
                data: data.to_vec(),
                state: state.clone(),
            });
            self.news |= !Rc::ptr_eq(&self.state, state);
            self.state = state.clone();
            return Ok(());
        }
        let at = index.checked_sub(1).map(|at| at as usize);
        let Some(slot) = at.and_then(|at| self.slots.get(at)) else {
            return Err(format!(
                "entry {index} is applied before {}",
                self.last() + 1
            ));
        };
        if slot.term != term || slot.data != data {
            return Err(format!(
                "entry {index} is of term {term} here and was of term {} elsewhere",
                slot.term
            ));
        }
        if slot.state != *state {
            return Err(format!("entry {index} led to another state"));
        }
        Ok(())
    }

    /// A member took a snapshot for its state.
    pub fn installed(&self, index: u64, state: &State) -> Result<(), String> {
        let at = index.checked_sub(1).map(|at| at as usize);
        match at.and_then(|at| self.slots.get(at)) {
            Some(slot) if *slot.state == *state => Ok(()),
            Some(_) => Err(format!("the snapshot at {index} is of another state")),
            None => Err(format!("the snapshot at {index} is of the future")),
        }
    }
}
