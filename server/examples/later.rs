//! The server as a release that is still to come, for tests of rolling upgrades: it stands for etcd 3.7 and writes format 2 when all
//! members do. It offers nothing that this release does not.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use garboard_node::Release;
use garboard_storage::disk::RealDisk;

fn main() -> ExitCode {
    let release = Release { etcd_version: "3.7.0".to_owned(), reads: 1..=2, writes: 2 };
    garboard::start::run_as(Arc::new(RealDisk), release, std::env::args_os().skip(1), std::env::vars_os())
}
