//! Randomness, from the operating system.

/// Eight random bytes as a number.
///
/// # Errors
/// The operating system's source cannot be read.
pub fn u64() -> Result<u64, getrandom::Error> {
    getrandom::u64()
}

/// A random number below `bound`; 0 for a bound of 0. For jitter, not for secrets: the bias of the remainder stays.
pub fn jitter(bound: u64) -> u64 {
    match u64() {
        Ok(n) if bound > 0 => n % bound,
        _ => 0,
    }
}
