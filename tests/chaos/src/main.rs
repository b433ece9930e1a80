//! `chaos`: see [`garboard_chaos::options::USAGE`].
#![forbid(unsafe_code)]

use std::process::ExitCode;

use garboard_chaos::Options;

fn main() -> ExitCode {
    match Options::parse(std::env::args().skip(1)).and_then(|options| garboard_chaos::main(&options)) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("chaos: {error:#}");
            ExitCode::from(2)
        }
    }
}
