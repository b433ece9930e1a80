//! The one seam for time, randomness and spawning.
//!
//! Every other crate of the server reads the clock, draws random numbers and starts tasks or threads here and nowhere else
//! (clippy's `disallowed-methods` holds them to it), so that a simulator can run the same code on its own clock, seed and scheduler.
#![forbid(unsafe_code)]

pub mod clock;
pub mod executor;
pub mod random;
pub mod spawn;
pub mod wake;
