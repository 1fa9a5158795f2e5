//! Snappy blocks (the raw format, as remote write uses it). The size that a block claims is looked at first.

use super::{DECODED_BYTES_MAX, IngestError};

/// The bytes that a block will take, if that is not too much.
pub(crate) fn claimed_bytes(block: &[u8]) -> Result<usize, IngestError> {
    match snap::raw::decompress_len(block) {
        Ok(claimed) if claimed > DECODED_BYTES_MAX => Err(IngestError::ClaimsTooMuch { claimed }),
        Ok(claimed) => Ok(claimed),
        Err(snap::Error::TooBig { given, .. }) => {
            Err(IngestError::ClaimsTooMuch { claimed: usize::try_from(given).unwrap_or(usize::MAX) })
        }
        Err(error) => Err(not_snappy(&error)),
    }
}

fn not_snappy(error: &snap::Error) -> IngestError {
    IngestError::NotSnappy { reason: error.to_string() }
}

/// Decompresses a block into `out`, which is emptied first and keeps its memory.
pub(crate) fn decode_into(block: &[u8], out: &mut Vec<u8>) -> Result<(), IngestError> {
    let claimed = claimed_bytes(block)?;
    // Only what is new is set to zero: the decoder writes all of it or fails.
    if out.len() < claimed {
        out.resize(claimed, 0);
    }
    let written =
        snap::raw::Decoder::new().decompress(block, &mut out[..claimed]).map_err(|error| not_snappy(&error))?;
    out.truncate(written);
    Ok(())
}

/// As [`decode_into`], into new memory.
pub(crate) fn decode(block: &[u8]) -> Result<Vec<u8>, IngestError> {
    let mut out = Vec::new();
    decode_into(block, &mut out)?;
    Ok(out)
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn what_a_block_claims_is_refused_before_memory_is_taken() {
        // A claim of 10 GB, of 4 GB and of just too much, each with nothing behind it.
        for claim in [10u64 << 30, u64::from(u32::MAX), DECODED_BYTES_MAX as u64 + 1] {
            let mut block = Vec::new();
            let mut rest = claim;
            while rest >= 0x80 {
                block.push(rest as u8 | 0x80);
                rest >>= 7;
            }
            block.push(rest as u8);
            let mut out = Vec::new();
            let error = decode_into(&block, &mut out).expect_err("too much");
            assert_eq!(error.status(), StatusCode::PAYLOAD_TOO_LARGE, "{error}");
            assert_eq!(out.capacity(), 0);
        }
    }

    #[test]
    fn blocks_come_back_and_cut_ones_are_refused() {
        let text: Vec<u8> = b"label".iter().copied().cycle().take(5000).collect();
        let block = snap::raw::Encoder::new().compress_vec(&text).expect("compressed");
        assert_eq!(decode(&block).expect("whole"), text);
        for end in 0..block.len() {
            assert!(decode(&block[..end]).is_err(), "{end}");
        }
        // Memory of a longer block before is used again.
        let mut out = vec![7; 9000];
        decode_into(&block, &mut out).expect("whole");
        assert_eq!(out, text);
    }
}
