//! etcd's wire types and the log's own, generated from `proto/*.proto`. A compile-time wall: nothing else lives here.
#![forbid(unsafe_code)]
#![allow(clippy::all, clippy::pedantic, missing_docs)]

/// Keys, values, events.
pub mod mvccpb {
    tonic::include_proto!("mvccpb");
}

/// Users, roles, permissions.
pub mod authpb {
    tonic::include_proto!("authpb");
}

/// Requests, responses and services of the client API.
pub mod etcdserverpb {
    tonic::include_proto!("etcdserverpb");
}

/// What the replicated log carries.
pub mod raft {
    tonic::include_proto!("garboardraft");
}

/// What members say to each other.
pub mod peers {
    include!(concat!(env!("OUT_DIR"), "/peers/garboardpeers.rs"));
}
