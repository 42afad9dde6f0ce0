//! Programs that run in containers and prove by themselves that nothing was lost: each checks
//! every answer it gets and says so in a last line of JSON.

pub mod append;
pub mod churn;
pub mod count;
pub mod echo;
pub mod exit;
pub mod family;
pub mod files;
pub mod hold;
pub mod load;
pub mod memory;
mod page;
pub mod redis;
mod sys;
mod term;
pub mod witness;
