//! event_loop: not written yet.
