//! An event's body.

#![no_main]

libfuzzer_sys::fuzz_target!(|bytes: &[u8]| p2p_sync_core::ledger::fuzzing::check_body(bytes));
