//! The engine: inputs in, outputs out; no IO, no clock (overview.md 4).

mod io;
mod message;

pub use io::*;
pub use message::*;

/// Keeps one folder of one group in step with its peers.
#[derive(Debug)]
pub struct SyncEngine {}

impl SyncEngine {
    /// Takes up the durable state.
    #[must_use]
    pub fn new(_config: EngineConfig, _recovered: Recovered) -> Self {
        Self {}
    }

    /// Takes one input. It cannot fail: a bad message is an input too.
    pub fn handle_input(&mut self, _input: Input, _now: crate::time::Now, _view: &impl StateView) {}

    /// Does what is due by now.
    pub fn handle_timeout(&mut self, _now: crate::time::Now, _view: &impl StateView) {}

    /// Returns the next thing to do; to be called until it returns `None`.
    pub fn poll_output(&mut self) -> Option<Output> {
        None
    }

    /// Returns the next deadline and its reason.
    #[must_use]
    pub fn poll_timeout(&self) -> Option<(crate::time::BootInstant, &'static str)> {
        None
    }

    /// Returns a snapshot for people.
    #[must_use]
    pub fn status(&self) -> Status {
        Status::default()
    }
}
