//! For tests of faults: commands of the leader come twice, or old ones come after newer ones, as
//! they may when sessions and leaders change. See [`pause`].
//!
//! | file | then every command is followed by |
//! |---|---|
//! | `twice` | itself |
//! | `late` | all that came before it, the newest first |
//!
//! The moment such a file is seen, the last command, or those before it, come at once.

use std::{collections::VecDeque, path::PathBuf, sync::Arc, time::Duration};

use godwit_proto::pause;
use godwit_types::AgentCommand;
use tokio::{
    sync::mpsc,
    time::{Instant, timeout_at},
};

use crate::{container, host::Host};

/// Fewer than a container's queue takes, or what is new would find no place in it.
const REMEMBERED: usize = 6;
const LOOK: Duration = Duration::from_millis(20);

/// Where commands go that a session has received.
#[derive(Debug, Clone)]
pub enum Delivery {
    Orderly,
    /// Somebody repeats them.
    Disorderly(mpsc::UnboundedSender<AgentCommand>),
}

impl Delivery {
    /// Disorderly only where a test may ask for it.
    pub fn of(host: &Arc<Host>) -> Self {
        let Some(directory) = pause::directory() else {
            return Self::Orderly;
        };
        let (sender, commands) = mpsc::unbounded_channel();
        tokio::spawn(repeat(host.clone(), directory, commands));
        Self::Disorderly(sender)
    }

    pub fn deliver(&self, host: &Arc<Host>, command: AgentCommand) {
        if let Self::Disorderly(sender) = self {
            // An error: the agent ends.
            drop(sender.send(command.clone()));
        }
        container::submit(host, command);
    }
}

async fn repeat(
    host: Arc<Host>,
    directory: PathBuf,
    mut commands: mpsc::UnboundedReceiver<AgentCommand>,
) {
    let mut seen: VecDeque<AgentCommand> = VecDeque::new();
    let (mut twice, mut late) = (false, false);
    let mut look = Instant::now();
    loop {
        let command = match timeout_at(look, commands.recv()).await {
            Ok(None) => return,
            Ok(Some(command)) => Some(command),
            Err(_) => {
                look = Instant::now() + LOOK;
                None
            }
        };
        let news = command.is_some();
        if let Some(command) = command {
            seen.push_back(command);
            if seen.len() > REMEMBERED {
                seen.pop_front();
            }
        }
        let before = (twice, late);
        twice = pause::wanted(&directory, "twice");
        late = pause::wanted(&directory, "late");
        let again = again(
            &seen,
            twice && (news || !before.0),
            late && (news || !before.1),
        );
        again
            .into_iter()
            .for_each(|command| container::submit(&host, command));
    }
}

/// What comes once more, in this order.
fn again(seen: &VecDeque<AgentCommand>, twice: bool, late: bool) -> Vec<AgentCommand> {
    let mut newest = seen.iter().rev().cloned();
    let last = newest.next().filter(|_| twice);
    let before = newest.filter(|_| late);
    last.into_iter().chain(before).collect()
}

#[cfg(test)]
mod tests {
    use godwit_types::{ContainerId, Generation, OperationId, Verb};

    use super::*;

    fn command(number: u8) -> AgentCommand {
        AgentCommand {
            operation: OperationId::from_bytes([number; 16]),
            verb: Verb::Remove {
                container: ContainerId::from_bytes([1; 32]),
                generation: Generation(1),
                force: false,
            },
        }
    }

    #[test]
    fn the_last_comes_twice_and_those_before_it_late() {
        let seen: VecDeque<_> = (1..=3).map(command).collect();
        let numbers = |twice, late| again(&seen, twice, late);
        assert_eq!(numbers(false, false), []);
        assert_eq!(numbers(true, false), [command(3)]);
        assert_eq!(numbers(false, true), [command(2), command(1)]);
        assert_eq!(numbers(true, true), [command(3), command(2), command(1)]);
        assert_eq!(again(&VecDeque::new(), true, true), []);
    }
}
