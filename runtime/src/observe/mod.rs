//! What can be seen of a container from its host: its processes, what it uses, and what it changed
//! of its image. Nothing here changes anything.

mod changes;
mod processes;
mod usage;

pub(crate) use changes::changes;
pub(crate) use processes::processes;
pub(crate) use usage::usage;
