//! What the agent and the members are beside their work: programs that are started, told to end or
//! to read their settings again, looked at, and reached from the machine itself.

pub mod health;
pub mod local;
pub mod log;
pub mod settings;
pub mod signals;
