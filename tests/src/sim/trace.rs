//! What happened in a run, as lines; normally not even their hash is kept, for writing them down takes half of the time.

use std::fmt::{self, Write};

/// Takes the lines of a run.
#[derive(Debug)]
pub struct Trace {
    hash: u64,
    lines: u64,
    sink: Sink,
}

/// What becomes of the lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sink {
    /// They are only counted.
    Drop,
    /// They are hashed, so that two runs can be compared.
    Hash,
    /// They are hashed, and written to standard output as they come, so that they are there after a panic too.
    Print,
}

impl Trace {
    /// Makes an empty trace.
    #[must_use]
    pub const fn new(sink: Sink) -> Self {
        Self {
            hash: 0xcbf2_9ce4_8422_2325,
            lines: 0,
            sink,
        }
    }

    /// Adds a line.
    #[allow(clippy::print_stdout, reason = "a printed trace is what was asked for")]
    pub fn line(&mut self, line: fmt::Arguments<'_>) {
        self.lines += 1;
        if self.sink == Sink::Drop {
            return;
        }
        if self.sink == Sink::Print {
            println!("{line}");
        }
        // Writing to a hash never fails.
        let _ = Fnv(&mut self.hash).write_fmt(line);
    }

    /// Returns the hash of all lines so far.
    #[must_use]
    pub const fn hash(&self) -> u64 {
        self.hash
    }

    /// Returns the number of lines so far.
    #[must_use]
    pub const fn lines(&self) -> u64 {
        self.lines
    }
}

/// FNV-1a over 64 bits: quick, and enough to tell two runs apart.
struct Fnv<'a>(&'a mut u64);

impl Write for Fnv<'_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            *self.0 = (*self.0 ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
        Ok(())
    }
}
