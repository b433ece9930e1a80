//! The `garboard` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

use tikv_jemallocator::Jemalloc;

/// The system's allocator keeps what one thread allocated and another freed, which here is most of it: docs/adr/0008.
#[global_allocator]
static ALLOCATOR: Jemalloc = Jemalloc;

fn main() -> ExitCode {
    garboard::start::run(std::env::args_os().skip(1), std::env::vars_os())
}
