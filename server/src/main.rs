//! The `garboard` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

/// The system's allocator keeps what one thread allocated and another freed, which here is most of it: docs/adr/0008.
#[cfg(feature = "jemalloc")]
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> ExitCode {
    garboard::start::run(std::env::args_os().skip(1), std::env::vars_os())
}
