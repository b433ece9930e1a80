//! The program around [`garboard_e2e`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    garboard_e2e::main()
}
