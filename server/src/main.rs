//! The `garboard` binary.
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    garboard::start::run(std::env::args_os().skip(1), std::env::vars_os())
}
