//! What peers send each other. Of the daemon only the module that reads messages is built.

#![no_main]

#[path = "../../daemon/src/network"]
mod network {
    #[allow(dead_code, reason = "the daemon uses the rest")]
    mod convert;

    pub(crate) fn check(bytes: &[u8]) {
        convert::fuzzing::check(bytes);
    }
}

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| network::check(bytes));
