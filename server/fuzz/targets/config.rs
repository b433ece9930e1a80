//! Fuzzes [`garboard_fuzz::config`].
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(init: garboard_fuzz::seeds::write("config"), |input: &[u8]| {
    let _ = garboard_fuzz::config::run(input);
});
