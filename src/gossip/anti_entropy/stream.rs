//! chitchat's block streams: the framing of digests and deltas.
//!
//! A stream is a series of blocks and an end mark. A block has a type, a length, and content that is compressed by zstd if
//! that makes it shorter. chitchat decompresses a stream of any length before it reads an item, 64 KiB from 20 octets, so
//! this module reads each stream first, within bounds that chitchat's own writer keeps.

use thiserror::Error;
use zstd::{bulk, zstd_safe};

/// Longest block in octets, decompressed: chitchat's writer starts a new block here.
pub(super) const MAX_BLOCK: usize = 16_384;
/// Largest number of blocks in a stream, 1 MiB decompressed. A message has 64 KiB; repetitive state compresses more than
/// 16 to 1, so senders cut what exceeds this bound.
pub(super) const MAX_BLOCKS: usize = 64;
/// Octets before the content of a block: its type and its length.
pub(super) const HEADER: usize = 3;
/// First octets of a zstd frame. Older formats, which the library can also read, are refused.
const MAGIC: [u8; 4] = [0x28, 0xb5, 0x2f, 0xfd];

/// Level of compression: the library's default, as in chitchat.
const LEVEL: i32 = 0;

pub(super) const END: u8 = 0;
const COMPRESSED: u8 = 1;
const PLAIN: u8 = 2;

/// Reasons for refusing a stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
pub enum StreamError {
    /// The stream ends within a block or without an end mark.
    #[error("the stream is incomplete")]
    Truncated,
    /// The type of a block is unknown; holds the octet.
    #[error("unknown block type {0}")]
    BlockType(u8),
    /// The block is empty, or exceeds [`MAX_BLOCK`] octets.
    #[error("a block has no or more than {MAX_BLOCK} octets")]
    BlockLength,
    /// The stream has more than [`MAX_BLOCKS`] blocks.
    #[error("more than {MAX_BLOCKS} blocks in a stream")]
    Blocks,
    /// The content is not one zstd frame of a stated length.
    #[error("a block is not a zstd frame")]
    Frame,
}

/// Reads a stream. Returns its content and the octets behind the stream.
pub(super) fn read(octets: &[u8]) -> Result<(Vec<u8>, &[u8]), StreamError> {
    match read_part(octets)? {
        (content, Some(rest)) => Ok((content, rest)),
        (_, None) => Err(StreamError::Blocks),
    }
}

/// Reads the first [`MAX_BLOCKS`] blocks of a stream. Returns their content, and the octets behind the stream if it has no
/// more blocks.
pub(super) fn read_part(mut octets: &[u8]) -> Result<(Vec<u8>, Option<&[u8]>), StreamError> {
    let mut content = Vec::new();
    for blocks in 0.. {
        let (block, rest) = next_block(octets)?;
        match block {
            None => return Ok((content, Some(rest))),
            Some(_) if blocks == MAX_BLOCKS => break,
            Some((COMPRESSED, block)) => decompress(block, &mut content)?,
            Some((PLAIN, block)) if (1..=MAX_BLOCK).contains(&block.len()) => content.extend_from_slice(block),
            Some((PLAIN, _)) => return Err(StreamError::BlockLength),
            Some((other, _)) => return Err(StreamError::BlockType(other)),
        }
        octets = rest;
    }
    Ok((content, None))
}

/// Measures a stream without reading its content. Returns the number of blocks and the octets behind the stream.
pub(super) fn measure(mut octets: &[u8]) -> Result<(usize, &[u8]), StreamError> {
    let mut blocks = 0;
    loop {
        let (block, rest) = next_block(octets)?;
        if block.is_none() {
            return Ok((blocks, rest));
        }
        (blocks, octets) = (blocks + 1, rest);
    }
}

/// Type and content of a block.
type Block<'a> = (u8, &'a [u8]);

/// Returns the next block, `None` at the end of the stream, and the octets behind it.
fn next_block(octets: &[u8]) -> Result<(Option<Block<'_>>, &[u8]), StreamError> {
    let (kind, rest) = octets.split_first().ok_or(StreamError::Truncated)?;
    if *kind == END {
        return Ok((None, rest));
    }
    let (len, rest) = rest.split_first_chunk().ok_or(StreamError::Truncated)?;
    let (block, rest) = rest.split_at_checked(u16::from_le_bytes(*len).into()).ok_or(StreamError::Truncated)?;
    Ok((Some((*kind, block)), rest))
}

/// Appends the content of one frame. Allocates no more than the stated length, which is checked first.
fn decompress(frame: &[u8], content: &mut Vec<u8>) -> Result<(), StreamError> {
    if !frame.starts_with(&MAGIC) || zstd_safe::find_frame_compressed_size(frame) != Ok(frame.len()) {
        return Err(StreamError::Frame);
    }
    let stated = zstd_safe::get_frame_content_size(frame).ok().flatten().ok_or(StreamError::Frame)?;
    let len = usize::try_from(stated).ok().filter(|len| (1..=MAX_BLOCK).contains(len));
    let len = len.ok_or(StreamError::BlockLength)?;
    let start = content.len();
    content.resize(start + len, 0);
    match bulk::decompress_to_buffer(frame, &mut content[start..]) {
        Ok(written) if written == len => Ok(()),
        _ => Err(StreamError::Frame),
    }
}

/// Appends a stream with this content.
pub(super) fn write(content: &[u8], out: &mut Vec<u8>) {
    for block in content.chunks(MAX_BLOCK) {
        write_block(block, out);
    }
    out.push(END);
}

/// Appends a stream with this content, uncompressed: for messages that stay on this host.
pub(super) fn write_plain(content: &[u8], out: &mut Vec<u8>) {
    content.chunks(MAX_BLOCK).for_each(|block| write_as(PLAIN, block, out));
    out.push(END);
}

/// Appends one block of 1 to [`MAX_BLOCK`] octets. Adds at most [`HEADER`] octets to its length.
pub(super) fn write_block(block: &[u8], out: &mut Vec<u8>) {
    let mut buffer = [0; MAX_BLOCK];
    // A result that is not shorter does not fit, which is an error of the library.
    let compressed = bulk::compress_to_buffer(block, &mut buffer[..block.len()], LEVEL);
    let (kind, block) = compressed.map_or((PLAIN, block), |len| (COMPRESSED, &buffer[..len]));
    write_as(kind, block, out);
}

fn write_as(kind: u8, block: &[u8], out: &mut Vec<u8>) {
    out.reserve(HEADER + block.len() + 1);
    out.push(kind);
    // A block has at most `MAX_BLOCK` octets.
    out.extend_from_slice(&u16::try_from(block.len()).unwrap_or(u16::MAX).to_le_bytes());
    out.extend_from_slice(block);
}
