//! Fuzzes [`garboard_fuzz::requests`].
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(init: garboard_fuzz::seeds::write("requests"), |input: &[u8]| {
    let _ = garboard_fuzz::requests::run(input);
});
