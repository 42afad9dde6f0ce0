//! Where answers go: to the session of the moment, whichever asked.

use std::sync::Mutex;

use godwit_types::OperationId;
use tokio::sync::mpsc;

use crate::ledger::Answer;

/// How many answers may wait for the session to send them.
const WAITING: usize = 64;

/// See the module.
#[derive(Debug, Default)]
pub struct Outbox {
    current: Mutex<Option<mpsc::Sender<(OperationId, Answer)>>>,
}

impl Outbox {
    /// A session takes over; the one before gets no more answers.
    pub fn open(&self) -> mpsc::Receiver<(OperationId, Answer)> {
        let (sender, receiver) = mpsc::channel(WAITING);
        *self.current.lock().expect("no holder panics") = Some(sender);
        receiver
    }

    /// An answer that finds no session is dropped here: the ledger has it, and the next leader
    /// asks again.
    pub async fn send(&self, operation: OperationId, answer: Answer) {
        let current = self.current.lock().expect("no holder panics").clone();
        if let Some(sender) = current {
            let _ = sender.send((operation, answer)).await;
        }
    }
}
