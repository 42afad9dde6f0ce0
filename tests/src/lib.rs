//! Test hosts and clusters of them, workloads that check themselves, the demo and the benchmark.
//!
//! A *test host* is a network, mount and process namespace, a cgroup subtree and a data
//! directory on this machine; real agents, members, shims and CRIU run in it. Nothing here links
//! daemon code: the programs are started and spoken to as a user would.

pub mod archive;
pub mod bench;
pub mod command;
pub mod counterparts;
pub mod demo;
pub mod faults;
pub mod mover;
pub mod programs;
pub mod scene;
pub mod terminal;
pub mod testbed;
pub mod tree;
pub mod workload;
