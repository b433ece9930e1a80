//! `garboard-operator`: see [`garboard_operator`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

fn main() -> ExitCode {
    garboard_operator::main()
}
