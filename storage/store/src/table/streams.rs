//! Values split into their bytes, each position of a byte packed by itself.
//!
//! Comes in: the parts of a page's body (levels, then all first bytes, all second bytes ...). Goes out: one zstd frame, in
//! which each part is a block of its own, or several: bytes of one position are like each other and unlike all others, and a
//! block has one code for all its bytes. Any reader of zstd reads it.

use std::io;

use zstd::{
    stream::raw::{Encoder, Operation},
    zstd_safe::{InBuffer, OutBuffer, compress_bound},
};

/// A part of fewer bytes is not worth a code of its own.
const PART_BYTES_MIN: usize = 512;
/// A block's head, and what ends a frame.
const BLOCK_BYTES: usize = 16;

/// Packs one page after the other.
pub(super) struct StreamPacker(Encoder<'static>);

impl StreamPacker {
    pub(super) fn new(level: i32) -> io::Result<Self> {
        Encoder::new(level).map(Self)
    }

    /// Packs a body whose parts end at these places, the last of them at its end.
    pub(super) fn pack(&mut self, body: &[u8], ends: impl IntoIterator<Item = usize>) -> io::Result<Vec<u8>> {
        self.0.reinit()?;
        self.0.set_pledged_src_size(Some(body.len() as u64))?;
        let blocks = body.len() / PART_BYTES_MIN + 1;
        let mut packed = Vec::with_capacity(compress_bound(body.len()) + blocks * BLOCK_BYTES);
        let mut out = OutBuffer::around(&mut packed);
        let mut begun = 0;
        for end in ends {
            if end < begun + PART_BYTES_MIN && end < body.len() {
                continue;
            }
            let mut part = InBuffer::around(&body[begun..end]);
            while part.pos() < end - begun {
                self.0.run(&mut part, &mut out)?;
            }
            while self.0.flush(&mut out)? > 0 {}
            begun = end;
        }
        while self.0.finish(&mut out, true)? > 0 {}
        Ok(packed)
    }
}

/// Where the eight parts of a body end whose first `levels` bytes are no values.
pub(super) fn ends(levels: usize, values: usize) -> impl Iterator<Item = usize> {
    (0..=8).map(move |part| levels + part * values)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_any_length_come_back() {
        let mut packer = StreamPacker::new(1).expect("memory");
        for values in [0usize, 1, 60, 511, 512, 513, 9000, 70_000] {
            let body: Vec<u8> = (0..5 + values * 8).map(|at| (at * at / 7 % 251) as u8).collect();
            let packed = packer.pack(&body, ends(5, values)).expect("packed");
            let plain = zstd::bulk::decompress(&packed, body.len()).expect("a frame");
            assert_eq!(plain, body, "{values}");
            let told = zstd::zstd_safe::get_frame_content_size(&packed).ok().flatten();
            assert_eq!(told, Some(body.len() as u64), "readers are told the length");
        }
    }

    #[test]
    fn parts_unlike_each_other_are_smaller_than_one_block() {
        let mut state = 1u64;
        let mut next = || {
            state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            state >> 33
        };
        // A random byte, one of two values, and zeros.
        let mut body: Vec<u8> = (0..4000).map(|_| next() as u8).collect();
        body.extend((0..4000).map(|_| 7 + (next() % 2) as u8));
        body.extend([0; 4000 * 6]);
        let whole = zstd::bulk::compress(&body, 1).expect("packed").len();
        let parts =
            StreamPacker::new(1).and_then(|mut packer| packer.pack(&body, ends(0, 4000))).expect("packed").len();
        assert!(parts + 100 < whole && parts < 4000 + 900, "{parts} of {whole}");
    }
}
