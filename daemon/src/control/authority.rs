//! Lets stock gRPC clients reach tonic over a Unix socket.
//!
//! gRPC's C core (Python, C++, Ruby, PHP) and grpc-java send the socket's path as `:authority`, percent-encoded or as
//! it is. `http::uri::Authority` has no place for `%` and `/`, so h2 answers with PROTOCOL_ERROR. [`FixAuthority`]
//! follows the client's HTTP/2 frames and, in the header blocks of HEADERS frames, writes `-` over those two bytes in
//! a plain (not Huffman-coded) literal `:authority`. Lengths never change: the framing stays right, and since client
//! and server enter the same lengths into their HPACK tables, those stay in step. What it does not understand passes
//! untouched, to be judged by h2.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

const PREFACE_LEN: usize = 24;
const FRAME_HEAD_LEN: usize = 9;
const FRAME_HEADERS: u8 = 1;
const FLAG_PADDED: u8 = 0x08;
const FLAG_PRIORITY: u8 = 0x20;
const PRIORITY_LEN: usize = 5;
/// The place of `:authority` in HPACK's static table (RFC 7541, appendix A).
const STATIC_AUTHORITY: usize = 1;
/// Bytes of a HEADERS frame that are looked at: HTTP/2's first and smallest frame limit, which the server keeps. A
/// longer frame passes untouched and is refused by h2.
const MAX_HEADERS_LEN: usize = 16_384;
const READ_SIZE: usize = 16_384;

/// A stream from a client whose `:authority` is made harmless.
#[derive(Debug)]
pub(super) struct FixAuthority<S> {
    inner: S,
    frames: Frames,
    chunk: Box<[u8]>,
}

impl<S> FixAuthority<S> {
    /// Wraps a stream at whose beginning the client's HTTP/2 preface stands.
    pub(super) fn new(inner: S) -> Self {
        Self {
            inner,
            frames: Frames::new(),
            chunk: vec![0; READ_SIZE].into_boxed_slice(),
        }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for FixAuthority<S> {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        loop {
            if this.frames.drain_into(buf) {
                return Poll::Ready(Ok(()));
            }
            let mut chunk = ReadBuf::new(&mut this.chunk);
            ready!(Pin::new(&mut this.inner).poll_read(cx, &mut chunk))?;
            if chunk.filled().is_empty() {
                // The end. A HEADERS frame cut short by it is of no use to h2 either.
                return Poll::Ready(Ok(()));
            }
            this.frames.push(chunk.filled());
        }
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for FixAuthority<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.inner).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.inner.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.inner).poll_shutdown(cx)
    }
}

/// Where in the client's bytes we are.
#[derive(Debug)]
enum Place {
    /// In bytes that pass untouched; so many are left.
    Passing(usize),
    /// In the 9 bytes before a frame's payload; `held` has those that came.
    Head,
    /// In the payload of a HEADERS frame of so many bytes; `held` has those that came.
    Headers { len: usize, flags: u8 },
}

/// Takes bytes as they come, cut anywhere, and gives them on with authorities made harmless.
#[derive(Debug)]
struct Frames {
    place: Place,
    held: Vec<u8>,
    ready: Vec<u8>,
    taken: usize,
}

impl Frames {
    fn new() -> Self {
        Self {
            place: Place::Passing(PREFACE_LEN),
            held: Vec::new(),
            ready: Vec::new(),
            taken: 0,
        }
    }

    fn push(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            match self.place {
                Place::Passing(0) => self.place = Place::Head,
                Place::Passing(left) => {
                    let n = left.min(bytes.len());
                    self.ready.extend_from_slice(&bytes[..n]);
                    bytes = &bytes[n..];
                    self.place = Place::Passing(left - n);
                }
                Place::Head => {
                    bytes = self.hold(bytes, FRAME_HEAD_LEN);
                    if self.held.len() == FRAME_HEAD_LEN {
                        self.begin_frame();
                    }
                }
                Place::Headers { len, flags } => {
                    bytes = self.hold(bytes, len);
                    if self.held.len() == len {
                        // A block that cannot be followed to its end is fixed as far as it was understood.
                        let _ = fix_header_block(&mut self.held, flags);
                        self.ready.append(&mut self.held);
                        self.place = Place::Head;
                    }
                }
            }
        }
    }

    /// Moves bytes to `held` until it has `len` of them; returns the rest.
    fn hold<'a>(&mut self, bytes: &'a [u8], len: usize) -> &'a [u8] {
        let (now, later) = bytes.split_at(bytes.len().min(len - self.held.len()));
        self.held.extend_from_slice(now);
        later
    }

    fn begin_frame(&mut self) {
        let len =
            usize::from(self.held[0]) << 16 | usize::from(self.held[1]) << 8 | usize::from(self.held[2]);
        let (kind, flags) = (self.held[3], self.held[4]);
        self.ready.append(&mut self.held);
        self.place = match kind {
            FRAME_HEADERS if (1..=MAX_HEADERS_LEN).contains(&len) => Place::Headers { len, flags },
            _ => Place::Passing(len),
        };
    }

    /// Gives bytes on; says whether there were any.
    fn drain_into(&mut self, buf: &mut ReadBuf<'_>) -> bool {
        let waiting = &self.ready[self.taken..];
        if waiting.is_empty() {
            return false;
        }
        let n = waiting.len().min(buf.remaining());
        buf.put_slice(&waiting[..n]);
        self.taken += n;
        if self.taken == self.ready.len() {
            self.ready.clear();
            self.taken = 0;
        }
        true
    }
}

/// Walks the HPACK representations of a HEADERS payload (RFC 7541, 6); `None` if it ends before it should.
fn fix_header_block(payload: &mut [u8], flags: u8) -> Option<()> {
    let mut at = 0;
    let mut end = payload.len();
    if flags & FLAG_PADDED != 0 {
        end = end.checked_sub(usize::from(*payload.first()?))?;
        at += 1;
    }
    if flags & FLAG_PRIORITY != 0 {
        at += PRIORITY_LEN;
    }
    let block = payload.get_mut(at..end)?;
    let mut at = 0;
    while at < block.len() {
        let first = block[at];
        if first & 0x80 != 0 {
            read_int(block, &mut at, 7)?; // an indexed field
            continue;
        }
        if first & 0xe0 == 0x20 {
            read_int(block, &mut at, 5)?; // a new size of the dynamic table
            continue;
        }
        let index_bits = if first & 0xc0 == 0x40 { 6 } else { 4 };
        let is_authority = match read_int(block, &mut at, index_bits)? {
            0 => {
                let (huffman, name) = read_string(block, &mut at)?;
                !huffman && &block[name] == b":authority"
            }
            index => index == STATIC_AUTHORITY,
        };
        let (huffman, value) = read_string(block, &mut at)?;
        if is_authority && !huffman {
            for byte in &mut block[value] {
                if matches!(*byte, b'%' | b'/') {
                    *byte = b'-';
                }
            }
        }
    }
    Some(())
}

/// Reads a string's Huffman flag and the range of its bytes (RFC 7541, 5.2).
fn read_string(block: &[u8], at: &mut usize) -> Option<(bool, std::ops::Range<usize>)> {
    let huffman = block.get(*at)? & 0x80 != 0;
    let len = read_int(block, at, 7)?;
    let end = at.checked_add(len).filter(|end| *end <= block.len())?;
    let range = *at..end;
    *at = end;
    Some((huffman, range))
}

/// Reads an integer with a prefix of `bits` bits (RFC 7541, 5.1); none in a frame needs more than four further bytes.
fn read_int(block: &[u8], at: &mut usize, bits: u32) -> Option<usize> {
    let mask = (1_usize << bits) - 1;
    let mut value = usize::from(*block.get(*at)?) & mask;
    *at += 1;
    if value < mask {
        return Some(value);
    }
    for shift in [0, 7, 14, 21] {
        let byte = usize::from(*block.get(*at)?);
        *at += 1;
        value += (byte & 0x7f) << shift;
        if byte & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

    fn frame(kind: u8, flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u32::try_from(payload.len()).unwrap().to_be_bytes();
        [&len[1..], &[kind, flags, 0, 0, 0, 1], payload].concat()
    }

    fn literal(first: u8, value: &[u8]) -> Vec<u8> {
        [&[first, u8::try_from(value.len()).unwrap()], value].concat()
    }

    fn through(bytes: &[u8], step: usize) -> Vec<u8> {
        let mut frames = Frames::new();
        bytes.chunks(step).for_each(|chunk| frames.push(chunk));
        frames.ready
    }

    /// `:method POST`, then `:authority` in the given form, then `:path`, whose slashes must stay.
    fn request(authority: &[u8]) -> Vec<u8> {
        let block = [&[0x83][..], authority, &literal(0x44, b"/a/b%2F")].concat();
        [
            PREFACE,
            &frame(4, 0, &[]),
            &frame(FRAME_HEADERS, 4, &block),
            &frame(0, 1, b"a/b%"),
        ]
        .concat()
    }

    #[test]
    fn a_path_authority_loses_its_odd_bytes_however_the_stream_is_cut() {
        let client = request(&literal(0x41, b"%2Frun%2Fp2p/x"));
        let server = request(&literal(0x41, b"-2Frun-2Fp2p-x"));
        for step in 1..=client.len() {
            assert_eq!(through(&client, step), server, "{step}");
        }
    }

    #[test]
    fn every_literal_form_of_authority_is_found() {
        for first in [0x41, 0x01, 0x11] {
            assert_eq!(
                through(&request(&literal(first, b"/x")), 7),
                request(&literal(first, b"-x"))
            );
        }
        for first in [0x40, 0x00, 0x10] {
            let named = |value: &[u8]| [&[first, 10][..], b":authority", &literal(0, value)[1..]].concat();
            assert_eq!(through(&request(&named(b"/x")), 7), request(&named(b"-x")));
        }
        let long = |c: &str| [&[0x41, 0x7f, 73][..], c.repeat(200).as_bytes()].concat();
        assert_eq!(through(&request(&long("/")), 11), request(&long("-")));
    }

    #[test]
    fn padding_and_priority_are_stepped_over() {
        let payload = |value: &[u8]| [&[3, 0, 0, 0, 0, 9][..], &literal(0x41, value), &[0; 3]].concat();
        let bytes = |value| {
            [
                PREFACE,
                &frame(FRAME_HEADERS, FLAG_PADDED | FLAG_PRIORITY, &payload(value)),
            ]
            .concat()
        };
        assert_eq!(through(&bytes(b"/x"), 5), bytes(b"-x"));
    }

    #[test]
    fn ordinary_authorities_and_nonsense_pass_untouched() {
        let plain = request(&literal(0x41, b"localhost"));
        assert_eq!(through(&plain, 9), plain);
        let huffman = request(&[0x41, 0x82, b'%', b'/']);
        assert_eq!(through(&huffman, 9), huffman);
        for payload in [
            &[0x41][..],
            &[0x41, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff],
            &[0x41, 9, b'/'],
            &[0x3f],
        ] {
            for flags in [0, FLAG_PADDED, FLAG_PRIORITY] {
                let bytes = [PREFACE, &frame(FRAME_HEADERS, flags, payload), &frame(6, 0, b"/")].concat();
                assert_eq!(through(&bytes, 3), bytes);
            }
        }
    }
}
