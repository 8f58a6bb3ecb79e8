//! Replaces the header `:authority` of HTTP/2 requests before the HTTP library reads it.
//!
//! etcd's clients of 3.4 and 3.5.0 send one that is no authority (`http://127.0.0.1:2379`, `#initially=[…]`). The library resets
//! such requests, and etcd serves them. The server has no use for the header: a value of the same length takes its place, so
//! that the table of header fields, which client and library keep in step, has the same size for both.

use std::{
    future::poll_fn,
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// First octets of an HTTP/2 connection (RFC 9113 §3.4).
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";
/// Length of the head of a frame (RFC 9113 §4.1).
const HEAD: usize = 9;
/// Largest frame that the server takes, the default of HTTP/2. The library refuses larger ones.
const MAX_FRAME: usize = 16 * 1024;
/// Type of a frame with headers, and its flags (RFC 9113 §6.2).
const HEADERS: u8 = 1;
const END_HEADERS: u8 = 0x4;
const PADDED: u8 = 0x8;
const PRIORITY: u8 = 0x20;
/// Index of `:authority` in the static table (RFC 7541 §A).
const AUTHORITY: usize = 1;
/// Octets that are read at a time.
const CHUNK: usize = 16 * 1024;
/// Numbers of symbols of each length in bits from 1 on, in the code of strings (RFC 7541 §B), without the end of a
/// string. The code is canonical.
const SYMBOLS: [u32; 30] =
    [0, 0, 0, 0, 10, 26, 32, 6, 0, 5, 3, 2, 6, 2, 3, 0, 0, 0, 3, 8, 13, 26, 29, 12, 4, 15, 19, 29, 0, 3];

/// A connection whose requests have a valid authority.
pub(super) struct Authority<S> {
    stream: S,
    part: Part,
    /// Octets that were read and are incomplete.
    raw: BytesMut,
    /// Octets for the reader.
    ready: BytesMut,
}

/// Part of the connection that the next octets belong to.
#[derive(Clone, Copy)]
enum Part {
    Preface,
    /// A frame that stays as it is, with the number of octets that are left of it; then the head of another.
    Frame(usize),
    /// A connection that is not HTTP/2.
    Other,
}

impl<S: AsyncRead + Unpin> Authority<S> {
    /// Waits until a client has begun to speak HTTP/1 or HTTP/2, or has closed the connection.
    pub(super) async fn begin(stream: S) -> io::Result<Self> {
        let mut connection = Self { stream, part: Part::Preface, raw: BytesMut::new(), ready: BytesMut::new() };
        while matches!(connection.part, Part::Preface) && poll_fn(|context| connection.poll_fill(context)).await? {}
        Ok(connection)
    }

    /// Reads octets of the client, and moves complete ones to the reader. Returns false at the end of the connection.
    fn poll_fill(&mut self, context: &mut Context<'_>) -> Poll<io::Result<bool>> {
        let mut octets = [MaybeUninit::uninit(); CHUNK];
        let mut read = ReadBuf::uninit(&mut octets);
        ready!(Pin::new(&mut self.stream).poll_read(context, &mut read))?;
        let is_open = !read.filled().is_empty();
        if is_open {
            self.raw.extend_from_slice(read.filled());
            self.advance();
        } else {
            // What is incomplete stays so.
            self.ready.unsplit(self.raw.split());
        }
        Poll::Ready(Ok(is_open))
    }
}

impl<S> Authority<S> {
    /// Moves all complete octets to the reader.
    fn advance(&mut self) {
        loop {
            match self.part {
                Part::Other => return self.ready.extend_from_slice(&self.raw.split()),
                Part::Preface => {
                    let len = self.raw.len().min(PREFACE.len());
                    if self.raw[..len] != PREFACE[..len] {
                        self.part = Part::Other;
                    } else if len < PREFACE.len() {
                        return;
                    } else {
                        self.part = Part::Frame(len);
                    }
                }
                Part::Frame(left) => {
                    let len = left.min(self.raw.len());
                    self.ready.extend_from_slice(&self.raw.split_to(len));
                    self.part = Part::Frame(left - len);
                    if left > len || self.raw.len() < HEAD {
                        return;
                    }
                    let len = HEAD + payload_len(&self.raw);
                    let is_whole = self.raw[3] == HEADERS && self.raw[4] & END_HEADERS != 0 && len <= HEAD + MAX_FRAME;
                    if !is_whole {
                        self.part = Part::Frame(len);
                    } else if self.raw.len() < len {
                        return;
                    } else {
                        let frame = self.raw.split_to(len);
                        let replaced = replace_in_frame(&frame);
                        self.ready.extend_from_slice(replaced.as_deref().unwrap_or(&frame));
                    }
                }
            }
        }
    }
}

fn payload_len(head: &[u8]) -> usize {
    usize::from(head[0]) << 16 | usize::from(head[1]) << 8 | usize::from(head[2])
}

/// Returns the frame with another authority; `None` if the frame is damaged: the library refuses it.
fn replace_in_frame(frame: &[u8]) -> Option<Vec<u8>> {
    let (head, payload) = frame.split_at(HEAD);
    let flags = head[4];
    let (before, padding) = if flags & PADDED == 0 { (0, 0) } else { (1, usize::from(*payload.first()?)) };
    let before = before + if flags & PRIORITY == 0 { 0 } else { 5 };
    let end = payload.len().checked_sub(padding)?;
    let mut replaced = head.to_vec();
    replaced.extend_from_slice(payload.get(..before)?);
    replace_in_fields(payload.get(before..end)?, &mut replaced)?;
    replaced.extend_from_slice(&payload[end..]);
    let len = u32::try_from(replaced.len() - HEAD).ok().filter(|len| *len as usize <= MAX_FRAME)?;
    replaced[..3].copy_from_slice(&len.to_be_bytes()[1..]);
    Some(replaced)
}

/// Copies header fields (RFC 7541 §6), with another authority.
fn replace_in_fields(fields: &[u8], to: &mut Vec<u8>) -> Option<()> {
    let mut rest = fields;
    while let Some(first) = rest.first() {
        let field = rest;
        let bits = match first {
            0x80.. => 7,
            0x40.. => 6,
            0x20.. => 5,
            _ => 4,
        };
        let index = take_integer(&mut rest, bits)?;
        let mut copied = field.len() - rest.len();
        if bits == 6 || bits == 4 {
            if index == 0 {
                take_string(&mut rest)?;
                copied = field.len() - rest.len();
            }
            let value_len = take_string(&mut rest)?;
            if index == AUTHORITY {
                to.extend_from_slice(&field[..copied]);
                put_string(value_len, to);
                continue;
            }
        }
        to.extend_from_slice(&field[..field.len() - rest.len()]);
    }
    Some(())
}

/// Takes an integer with a prefix of this number of bits (RFC 7541 §5.1).
fn take_integer(from: &mut &[u8], bits: u32) -> Option<usize> {
    let most = (1 << bits) - 1;
    let mut value = usize::from(from.first()? & most);
    from.advance(1);
    if value < usize::from(most) {
        return Some(value);
    }
    // No length or index within a frame needs more octets.
    for shift in [0, 7, 14] {
        let octet = *from.first()?;
        from.advance(1);
        value += usize::from(octet & 0x7f) << shift;
        if octet & 0x80 == 0 {
            return Some(value);
        }
    }
    None
}

/// Takes a string (RFC 7541 §5.2) and returns its length when decoded.
fn take_string(from: &mut &[u8]) -> Option<usize> {
    let is_coded = from.first()? & 0x80 != 0;
    let len = take_integer(from, 7)?;
    let octets = from.get(..len)?;
    let decoded = if is_coded { symbols(octets)? } else { len };
    from.advance(len);
    Some(decoded)
}

/// Appends a string of this length that is a valid authority.
fn put_string(len: usize, to: &mut Vec<u8>) {
    match u8::try_from(len) {
        Ok(short) if short < 0x7f => to.push(short),
        _ => {
            to.push(0x7f);
            let mut rest = len - 0x7f;
            while rest >= 0x80 {
                to.push((rest % 0x80) as u8 | 0x80);
                rest /= 0x80;
            }
            to.push(rest as u8);
        }
    }
    to.resize(to.len() + len, b'a');
}

/// Returns the number of symbols of a coded string.
fn symbols(coded: &[u8]) -> Option<usize> {
    let (mut found, mut code, mut first, mut len) = (0, 0_u32, 0_u32, 0);
    for octet in coded {
        for bit in (0..8).rev() {
            code = code << 1 | u32::from(octet >> bit & 1);
            first <<= 1;
            let count = *SYMBOLS.get(len)?;
            len += 1;
            if code - first < count {
                found += 1;
                (code, first, len) = (0, 0, 0);
            } else {
                first += count;
            }
        }
    }
    Some(found)
}

impl<S: AsyncRead + Unpin> AsyncRead for Authority<S> {
    fn poll_read(mut self: Pin<&mut Self>, context: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let connection = &mut *self;
        while connection.ready.is_empty() && ready!(connection.poll_fill(context))? {}
        let len = connection.ready.len().min(to.remaining());
        to.put_slice(&connection.ready.split_to(len));
        Poll::Ready(Ok(()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Authority<S> {
    fn poll_write(mut self: Pin<&mut Self>, context: &mut Context<'_>, from: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(context, from)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        from: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(context, from)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(context)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt;

    use super::*;

    /// `www.example.com`, coded (RFC 7541 §C.4.1).
    const CODED: [u8; 12] = [0xf1, 0xe3, 0xc2, 0xe5, 0xf2, 0x3a, 0x6b, 0xa0, 0xab, 0x90, 0xf4, 0xff];

    fn frame(flags: u8, payload: &[u8]) -> Vec<u8> {
        let len = u8::try_from(payload.len()).unwrap();
        [&[0, 0, len, HEADERS, flags, 0, 0, 0, 1], payload].concat()
    }

    #[test]
    fn coded_strings_are_counted() {
        assert_eq!(symbols(&CODED), Some(15));
        assert_eq!(symbols(&[]), Some(0));
        assert_eq!(symbols(&[0xff; 8]), None);
        assert_eq!(SYMBOLS.iter().sum::<u32>(), 256);
    }

    #[tokio::test]
    async fn authority_is_replaced_by_one_of_the_same_length() {
        let plain = [&[0x82, 0x41, 7][..], b"http://", &[0x84]].concat();
        let coded = [&[0x41, 0x80 | 12], &CODED[..], &[0x40, 1, b'x', 1, b'y']].concat();
        let expected_plain = [&[0x82, 0x41, 7][..], b"aaaaaaa", &[0x84]].concat();
        let expected_coded = [&[0x41, 15][..], &[b'a'; 15], &[0x40, 1, b'x', 1, b'y']].concat();
        let padded = [&[2][..], &plain, &[0, 0]].concat();
        let expected_padded = [&[2][..], &expected_plain, &[0, 0]].concat();
        let data = [0, 0, 3, 0, 0, 0, 0, 0, 1, 0x41, 1, b'/'];
        let parts = |plain: &[u8], coded: &[u8], padded: &[u8]| {
            [
                PREFACE,
                &frame(END_HEADERS, plain),
                &data,
                &frame(END_HEADERS, coded),
                &frame(END_HEADERS | PADDED, padded),
                // Damaged: longer than its frame.
                &frame(END_HEADERS, &[0x41, 9]),
            ]
            .concat()
        };
        let (sent, expected) =
            (parts(&plain, &coded, &padded), parts(&expected_plain, &expected_coded, &expected_padded));
        for chunk in [1, 7, sent.len()] {
            let stream = in_chunks(&sent, chunk);
            let mut read = vec![];
            Authority::begin(stream).await.unwrap().read_to_end(&mut read).await.unwrap();
            assert_eq!(read, expected, "{chunk}");
        }
        let http1 = b"POST /v3/kv/range HTTP/1.1\r\n\r\n";
        for octets in [&http1[..], &PREFACE[..9], b""] {
            let mut read = vec![];
            Authority::begin(octets).await.unwrap().read_to_end(&mut read).await.unwrap();
            assert_eq!(read, octets);
        }
    }

    /// A reader that yields this number of octets at a time.
    fn in_chunks(octets: &[u8], chunk: usize) -> impl AsyncRead + Unpin {
        struct Chunks(BytesMut, usize);
        impl AsyncRead for Chunks {
            fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, to: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
                let len = self.1.min(self.0.len()).min(to.remaining());
                to.put_slice(&self.0.split_to(len));
                Poll::Ready(Ok(()))
            }
        }
        Chunks(BytesMut::from(octets), chunk)
    }
}
