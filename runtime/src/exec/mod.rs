//! A program started in a container that runs already.
//!
//! [`prepare`](crate::Runtime::exec), in the agent, writes down what is to be started and starts
//! [`keeper`], a process with one thread: it joins the container, keeps the program's standard
//! streams or its terminal, and says how it ended. It outlives the agent, and the program goes on
//! with it. Who looks at it speaks [`frames`](crate::frames).
//!
//! The program's parent is not in the container, so it can't move with it: the shim ends it right
//! before a dump ([`ended`]).

pub(crate) mod ended;
pub mod keeper;
mod plan;
mod prepare;
mod terminal;

pub(crate) use plan::Plan;
pub use prepare::{Receiver, Sender, Talk};
pub(crate) use terminal::Console;
