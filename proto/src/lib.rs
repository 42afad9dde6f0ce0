//! The wire between the parts of Godwit: gRPC services, the documents they carry, and the
//! TLS identities that open them.
//!
//! There is no plaintext mode. Every connection is TLS 1.3 with a certificate on both sides;
//! who the peer is and what it may call comes from its certificate alone ([`tls`], [`authz`]).
//! Generated structs stop here and in the gRPC handlers of each daemon: the domain's types are
//! `godwit-types`, carried as versioned [`document`]s.

pub mod authz;
pub mod config;
pub mod document;
pub mod failure;
pub mod limits;
pub mod pause;
pub mod tls;

pub use generated::{
    agent::v1 as agent, control::v1 as control, raft::v1 as raft, transfer::v1 as transfer, v1,
};

/// Modules nested as the packages are, since the generated code refers to its neighbours so.
#[allow(clippy::all, rust_2018_idioms)]
mod generated {
    pub mod v1 {
        tonic::include_proto!("godwit.v1");
    }
    pub mod agent {
        pub mod v1 {
            tonic::include_proto!("godwit.agent.v1");
        }
    }
    pub mod control {
        pub mod v1 {
            tonic::include_proto!("godwit.control.v1");
        }
    }
    pub mod raft {
        pub mod v1 {
            tonic::include_proto!("godwit.raft.v1");
        }
    }
    pub mod transfer {
        pub mod v1 {
            tonic::include_proto!("godwit.transfer.v1");
        }
    }
}
