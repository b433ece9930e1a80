//! Fuzz targets: every input that is not trusted, as a function of bytes that must not panic, hang or grow.
//!
//! [`wal_record`] and [`wal_segments`] read a log, [`bolt_read`] a snapshot of etcd's, [`requests`] what clients send, [`config`] what
//! operators write. The programs in `targets/` hand them to libFuzzer (`cargo xtask fuzz`); the tests here replay seeds and kept inputs.
#![forbid(unsafe_code)]

pub mod bolt_read;
pub mod config;
mod input;
pub mod requests;
pub mod seeds;
mod state_machine;
pub mod wal_record;
pub mod wal_segments;

use std::alloc::System;

use cap::Cap;

/// libFuzzer's own limit counts memory that was touched; this one refuses what was only asked for, too.
const ALLOCATED_BYTES_MAX: usize = 512 << 20;

#[global_allocator]
static ALLOCATOR: Cap<System> = Cap::new(System, ALLOCATED_BYTES_MAX);

#[cfg(test)]
mod tests;
