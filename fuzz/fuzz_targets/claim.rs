#![no_main]

libfuzzer_sys::fuzz_target!(|input: &[u8]| (tasker_bad_input::Target::named("claim").run)(input));
