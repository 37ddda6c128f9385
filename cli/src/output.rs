//! Writing: one place for broken pipes, and for text that may hold anything.

use std::fmt::Write as _;
use std::io::{self, Write};
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use serde::{Serialize, Serializer};

use crate::exit::{Exit, Failure};

/// Where a command's answer goes.
pub(crate) struct Output<'a> {
    pub(crate) writer: &'a mut dyn Write,
    pub(crate) json: bool,
    /// Whether somebody looks at it.
    pub(crate) is_terminal: bool,
    /// What `writer` writes to, if that can lose its reader.
    pub(crate) pipe: Option<BorrowedFd<'a>>,
}

/// Why a command ended early.
#[derive(Debug)]
pub(crate) enum Stop {
    /// The reader has seen enough; that is success.
    ReaderGone,
    Failed(Failure),
}

impl From<Failure> for Stop {
    fn from(failure: Failure) -> Self {
        Self::Failed(failure)
    }
}

impl From<tonic::Status> for Stop {
    fn from(status: tonic::Status) -> Self {
        Self::Failed(status.into())
    }
}

impl Output<'_> {
    /// Writes the one that was asked for: a line of JSON or text.
    pub(crate) fn answer(
        &mut self,
        json: &impl Serialize,
        text: impl FnOnce() -> String,
    ) -> Result<(), Stop> {
        let mut out = if self.json {
            serde_json::to_string(json)
                .map_err(|e| Failure::new(Exit::Software, "INTERNAL", format!("Cannot write JSON: {e}")))?
        } else {
            text()
        };
        if !out.ends_with('\n') {
            out.push('\n');
        }
        self.bytes(out.as_bytes())
    }

    /// Says whether the reader has closed the pipe, without writing: `watch | head -1` must end though nothing
    /// more happens.
    pub(crate) fn reader_gone(&self) -> bool {
        let Some(pipe) = &self.pipe else {
            return false;
        };
        let mut fds = [PollFd::new(pipe, PollFlags::empty())];
        poll(&mut fds, Some(&Timespec::default())).is_ok() && fds[0].revents().contains(PollFlags::ERR)
    }

    /// Writes bytes as they are.
    pub(crate) fn bytes(&mut self, bytes: &[u8]) -> Result<(), Stop> {
        let result = self.writer.write_all(bytes).and_then(|()| self.writer.flush());
        result.map_err(|e| match e.kind() {
            io::ErrorKind::BrokenPipe => Stop::ReaderGone,
            _ => Failure::new(Exit::Software, "IO", format!("Cannot write: {e}")).into(),
        })
    }
}

/// Returns bytes as hexadecimal digits.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}");
        hex
    })
}

/// A path for JSON: readable, and exact beside it where it is not UTF-8.
#[derive(Debug, Serialize)]
pub(crate) struct JsonPath {
    path: String,
    path_hex: Option<String>,
}

impl JsonPath {
    pub(crate) fn new(bytes: &[u8]) -> Self {
        let path_hex = std::str::from_utf8(bytes).is_err().then(|| hex(bytes));
        Self {
            path: String::from_utf8_lossy(bytes).into_owned(),
            path_hex,
        }
    }
}

/// Serializes an empty string as null.
pub(crate) fn or_null<S: Serializer>(text: &str, to: S) -> Result<S::Ok, S::Error> {
    if text.is_empty() {
        to.serialize_none()
    } else {
        to.serialize_some(text)
    }
}

/// Returns bytes as text for a terminal: UTF-8 as it is, control characters, `\` and other bytes as `\xNN`.
pub(crate) fn escape(bytes: &[u8]) -> String {
    let mut text = String::new();
    for chunk in bytes.utf8_chunks() {
        for c in chunk.valid().chars() {
            if c.is_control() || c == '\\' {
                let mut buffer = [0; 4];
                for byte in c.encode_utf8(&mut buffer).bytes() {
                    let _ = write!(text, "\\x{byte:02x}");
                }
            } else {
                text.push(c);
            }
        }
        for byte in chunk.invalid() {
            let _ = write!(text, "\\x{byte:02x}");
        }
    }
    text
}

/// Reads what [`escape`] wrote; a `\` that does not begin `\xNN` stays.
pub(crate) fn unescape(text: &[u8]) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((first, after)) = rest.split_first() {
        let hex = after
            .strip_prefix(b"x")
            .and_then(|a| a.get(..2))
            .and_then(|h| std::str::from_utf8(h).ok());
        let hex = hex.filter(|h| h.bytes().all(|b| b.is_ascii_hexdigit()));
        match hex.and_then(|h| u8::from_str_radix(h, 16).ok()) {
            Some(byte) if *first == b'\\' => {
                bytes.push(byte);
                rest = &after[3..];
            }
            _ => {
                bytes.push(*first);
                rest = after;
            }
        }
    }
    bytes
}

/// Returns the first 8 digits of an id, enough for people.
pub(crate) fn short(id: &str) -> &str {
    id.get(..8).unwrap_or(id)
}

/// Returns a number with commas.
pub(crate) fn number(n: u64) -> String {
    let digits = n.to_string();
    let mut text = String::new();
    for (i, c) in digits.chars().enumerate() {
        if i > 0 && (digits.len() - i).is_multiple_of(3) {
            text.push(',');
        }
        text.push(c);
    }
    text
}

/// Returns a size in binary units with one decimal.
pub(crate) fn size(bytes: u64) -> String {
    let units = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let power = (bytes.ilog2() / 10) as usize;
    let tenths = (u128::from(bytes) * 10) >> (10 * power);
    format!("{}.{} {}", tenths / 10, tenths % 10, units[power - 1])
}

/// Returns a time span in its two greatest units.
pub(crate) fn span(seconds: u64) -> String {
    let (d, h, m, s) = (
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60,
    );
    match (d, h, m) {
        (0, 0, 0) => format!("{s}s"),
        (0, 0, _) => format!("{m}m {s}s"),
        (0, _, _) => format!("{h}h {m}m"),
        _ => format!("{d}d {h}h"),
    }
}

/// Lays out rows in columns, the first row being the heading.
pub(crate) fn table(rows: &[Vec<String>]) -> String {
    let width = |column: usize| {
        rows.iter()
            .filter_map(|r| r.get(column))
            .map(|c| c.chars().count())
            .max()
    };
    let mut text = String::new();
    for row in rows {
        let mut line = String::new();
        for (column, cell) in row.iter().enumerate() {
            let _ = write!(line, "{cell:<width$}  ", width = width(column).unwrap_or(0));
        }
        text.push_str(line.trim_end());
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd as _;

    use super::*;

    #[test]
    fn odd_bytes_are_escaped_and_read_back() {
        let bytes = b"caf\xc3\xa9 \x1b[31m\xff\\x41".to_vec();
        let text = escape(&bytes);
        assert_eq!(text, "caf\u{e9} \\x1b[31m\\xff\\x5cx41");
        assert_eq!(unescape(text.as_bytes()), bytes);
        assert_eq!(unescape(b"a\\b\\x"), b"a\\b\\x");
    }

    #[test]
    fn a_path_that_is_not_utf_8_has_its_bytes_beside_it() {
        let json = |bytes| serde_json::to_string(&JsonPath::new(bytes)).unwrap();
        assert_eq!(json(b"a"), r#"{"path":"a","path_hex":null}"#);
        assert_eq!(json(b"a\xff"), "{\"path\":\"a\u{fffd}\",\"path_hex\":\"61ff\"}");
    }

    #[test]
    fn a_closed_pipe_is_noticed_without_writing() {
        let (reader, mut writer) = io::pipe().unwrap();
        let fd = writer.try_clone().unwrap();
        let output = Output {
            writer: &mut writer,
            json: false,
            is_terminal: false,
            pipe: Some(fd.as_fd()),
        };
        assert!(!output.reader_gone());
        drop(reader);
        assert!(output.reader_gone());
    }

    #[test]
    fn numbers_sizes_and_spans_are_for_people() {
        assert_eq!(
            ["0", "999", "1,000", "12,345,678"],
            [0, 999, 1000, 12_345_678].map(number).each_ref().map(|s| &**s)
        );
        assert_eq!(size(1023), "1023 B");
        assert_eq!(size(1536), "1.5 KiB");
        assert_eq!(size(u64::MAX), "15.9 EiB");
        assert_eq!(
            [span(59), span(61), span(3_660), span(90_000)],
            ["59s", "1m 1s", "1h 1m", "1d 1h"]
        );
    }
}
