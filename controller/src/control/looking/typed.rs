//! What was typed and has not reached the container yet: said again to the next host.

use std::collections::VecDeque;

use godwit_proto::control::{SessionInput, TerminalSize, session_input::Input};

/// Bytes on their way before no more are taken.
const AHEAD: usize = 256 << 10;

/// See the module.
#[derive(Debug, Default)]
pub struct Typed {
    /// In order, the oldest first; what was taken is cut off.
    waiting: VecDeque<Piece>,
    bytes: usize,
    /// Bytes that the present host was sent and has taken.
    taken: u64,
    size: Option<TerminalSize>,
}

#[derive(Debug, Clone, PartialEq)]
enum Piece {
    Data(bytes::Bytes),
    End,
}

impl Typed {
    pub fn is_full(&self) -> bool {
        self.bytes >= AHEAD
    }

    /// Remembers what may have to be said again.
    pub fn note(&mut self, input: &SessionInput) {
        match &input.input {
            Some(Input::Data(data)) => {
                self.bytes += data.len();
                self.waiting.push_back(Piece::Data(data.clone()));
            }
            Some(Input::End(_)) => self.waiting.push_back(Piece::End),
            Some(Input::Size(size)) => self.size = Some(*size),
            _ => {}
        }
    }

    /// So many bytes of all that this host was sent have reached the container.
    pub fn taken(&mut self, all: u64) {
        let mut new = all.saturating_sub(self.taken) as usize;
        self.taken = self.taken.max(all);
        while new > 0 {
            match self.waiting.front_mut() {
                Some(Piece::Data(data)) if data.len() > new => {
                    let _ = data.split_to(new);
                    self.bytes -= new;
                    return;
                }
                Some(Piece::Data(data)) => {
                    new -= data.len();
                    self.bytes -= data.len();
                    self.waiting.pop_front();
                }
                // Bytes that were taken came before it.
                Some(Piece::End) | None => return,
            }
        }
    }

    /// What the next host has to hear first.
    pub fn again(&mut self) -> Vec<SessionInput> {
        self.taken = 0;
        let size = self.size.map(Input::Size);
        let pieces = self.waiting.iter().map(|piece| match piece {
            Piece::Data(data) => Input::Data(data.clone()),
            Piece::End => Input::End(true),
        });
        size.into_iter()
            .chain(pieces)
            .map(|input| SessionInput { input: Some(input) })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn data(text: &'static str) -> SessionInput {
        SessionInput {
            input: Some(Input::Data(bytes::Bytes::from_static(text.as_bytes()))),
        }
    }

    #[test]
    fn what_was_not_taken_is_said_again_and_no_byte_twice() {
        let mut typed = Typed::default();
        typed.note(&data("abc"));
        typed.note(&data("def"));
        typed.taken(4);
        assert_eq!(typed.again(), [data("ef")]);
        // The next host counts from its own beginning.
        typed.taken(1);
        let size = TerminalSize {
            rows: 1,
            columns: 2,
        };
        typed.note(&SessionInput {
            input: Some(Input::Size(size)),
        });
        let sized = SessionInput {
            input: Some(Input::Size(size)),
        };
        assert_eq!(typed.again(), [sized, data("f")]);
        typed.taken(9);
        assert_eq!(typed.again().len(), 1);
        assert!(!typed.is_full());
    }
}
