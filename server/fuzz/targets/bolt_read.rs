//! Fuzzes [`garboard_fuzz::bolt_read`].
#![no_main]
#![forbid(unsafe_code)]

libfuzzer_sys::fuzz_target!(init: garboard_fuzz::seeds::write("bolt_read"), |input: &[u8]| {
    let _ = garboard_fuzz::bolt_read::run(input);
});
