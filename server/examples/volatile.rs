//! The server on a disk whose unsynced bytes die with the process, for tests that kill it: what it acknowledged must have been synced.
#![forbid(unsafe_code)]

use std::process::ExitCode;
use std::sync::Arc;

use garboard_node::Release;
use garboard_storage::disk::memory::MemoryDisk;

fn main() -> ExitCode {
    garboard::start::run_as(
        Arc::new(MemoryDisk::mirrored()),
        Release::default(),
        std::env::args_os().skip(1),
        std::env::vars_os(),
    )
}
