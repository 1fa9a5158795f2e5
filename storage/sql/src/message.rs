//! What goes over the socket between a query's process and this one: frames, bounded, each a message or a block of bytes.
//!
//! A frame is its kind (one byte), its length (four, little-endian) and so many bytes. Messages are JSON; names, points and
//! answers are bytes.

use std::{
    io::{self, Read, Write},
    time::Duration,
};

use serde::{Deserialize, Serialize};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::{answer::Form, error::SqlError, tables::Wanted};

/// Names of a thousand series with labels of some KiB each, and their points.
pub(crate) const FRAME_BYTES_MAX: usize = 64 << 20;
/// Frames of one scan that may be under way: enough to keep both sides busy, some MiB at most.
pub(crate) const FRAMES_UNDER_WAY: usize = 4;
const HEAD_BYTES: usize = 5;
const MESSAGE: u8 = 1;
const BLOCK: u8 = 2;

/// A frame.
#[derive(Debug)]
pub(crate) enum Frame<M> {
    /// A message.
    Message(M),
    /// Bytes: rows of a scan, or a part of the answer.
    Block(Vec<u8>),
}

/// What the process of a query is told.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Told {
    /// The first of all.
    Begin(Begin),
    /// A scan has no more rows.
    End { scan: u32 },
    /// A scan failed.
    Failed { scan: u32, reason: String },
}

/// A query and how far it may go.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Begin {
    pub(crate) query: String,
    pub(crate) form: Form,
    pub(crate) deadline: Duration,
    pub(crate) memory_bytes_max: u64,
    pub(crate) rows_max: u64,
    pub(crate) answer_bytes_max: u64,
    pub(crate) operators_max: usize,
    pub(crate) threads: usize,
}

/// What it asks and answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum Asked {
    /// Rows of a table; [`FRAMES_UNDER_WAY`] frames may come before it asks for more.
    Scan { scan: u32, wanted: Wanted },
    /// One more frame of this scan may come.
    More { scan: u32 },
    /// Nothing more of this scan.
    Stop { scan: u32 },
    /// The answer is whole: so many rows.
    Done { rows: u64 },
    /// There is none.
    Failed(SqlError),
}

fn too_long(length: usize) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("a frame of {length} bytes"))
}

fn head_of(head: [u8; HEAD_BYTES]) -> io::Result<(u8, usize)> {
    let length = u32::from_le_bytes([head[1], head[2], head[3], head[4]]) as usize;
    if length > FRAME_BYTES_MAX { Err(too_long(length)) } else { Ok((head[0], length)) }
}

fn frame_of<M: for<'de> Deserialize<'de>>(kind: u8, bytes: Vec<u8>) -> io::Result<Frame<M>> {
    match kind {
        MESSAGE => Ok(Frame::Message(serde_json::from_slice(&bytes)?)),
        BLOCK => Ok(Frame::Block(bytes)),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, format!("a frame of kind {kind}"))),
    }
}

/// A message as a frame's bytes.
pub(crate) fn message<M: Serialize>(message: &M) -> io::Result<Vec<u8>> {
    framed(MESSAGE, &[&serde_json::to_vec(message)?])
}

/// Bytes as a frame's bytes, from parts.
pub(crate) fn block(parts: &[&[u8]]) -> io::Result<Vec<u8>> {
    framed(BLOCK, parts)
}

fn framed(kind: u8, parts: &[&[u8]]) -> io::Result<Vec<u8>> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let declared = u32::try_from(length).ok().filter(|_| length <= FRAME_BYTES_MAX).ok_or_else(|| too_long(length))?;
    let mut frame = Vec::with_capacity(HEAD_BYTES + length);
    frame.push(kind);
    frame.extend(declared.to_le_bytes());
    parts.iter().for_each(|part| frame.extend_from_slice(part));
    Ok(frame)
}

/// The next frame; `None` at the end.
pub(crate) fn read<M: for<'de> Deserialize<'de>>(from: &mut impl Read) -> io::Result<Option<Frame<M>>> {
    let mut head = [0; HEAD_BYTES];
    match from.read_exact(&mut head) {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    }
    let (kind, length) = head_of(head)?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes)?;
    frame_of(kind, bytes).map(Some)
}

/// The next frame, waited for; `None` at the end.
pub(crate) async fn receive<M: for<'de> Deserialize<'de>>(
    from: &mut (impl AsyncRead + Unpin),
) -> io::Result<Option<Frame<M>>> {
    let mut head = [0; HEAD_BYTES];
    match from.read_exact(&mut head).await {
        Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(None),
        other => other?,
    };
    let (kind, length) = head_of(head)?;
    let mut bytes = vec![0; length];
    from.read_exact(&mut bytes).await?;
    frame_of(kind, bytes).map(Some)
}

/// Writes a frame's bytes.
pub(crate) fn write(to: &mut impl Write, frame: &[u8]) -> io::Result<()> {
    to.write_all(frame)
}

/// Sends a frame's bytes.
pub(crate) async fn send(to: &mut (impl AsyncWrite + Unpin), frame: &[u8]) -> io::Result<()> {
    to.write_all(frame).await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_come_back_as_they_went_and_long_ones_are_refused_before_memory_is_taken() {
        let mut bytes = message(&Asked::More { scan: 7 }).expect("a frame");
        bytes.extend(block(&[b"ab", b"c"]).expect("a frame"));
        let mut from = bytes.as_slice();
        assert!(matches!(read(&mut from), Ok(Some(Frame::Message(Asked::More { scan: 7 })))));
        assert!(matches!(read::<Asked>(&mut from), Ok(Some(Frame::Block(block))) if block == b"abc"));
        assert!(matches!(read::<Asked>(&mut from), Ok(None)));
        let claim = [BLOCK, 0xff, 0xff, 0xff, 0xff];
        assert!(read::<Asked>(&mut claim.as_slice()).expect_err("refused").to_string().contains("4294967295 bytes"));
        assert!(read::<Asked>(&mut [9, 0, 0, 0, 0].as_slice()).expect_err("refused").to_string().contains("kind 9"));
    }
}
