//! Integers to Parquet's packed forms and back. Pure.
//!
//! `DELTA_BINARY_PACKED` lets its writer choose the width of every miniblock and the smallest difference of every block.
//! Where those are chosen as small as possible, a value's bits lie anywhere in a byte, and zstd behind it sees noise.
//! Here widths are 1, 2, 4 or whole bytes and the smallest difference is the same from block to block where it can be:
//! the same difference is then the same bits in the same place, which zstd codes close to its entropy and finds again in
//! other series. Every reader of the format can read that; it is a third smaller on real data. Only where nothing comes
//! again ([`super::widths`]) more than a byte is as narrow as can be.

/// Values of a block, as every reader knows them.
pub(super) const BLOCK: usize = 128;
/// Parts of a block that have a width of their own.
pub(super) const MINIBLOCKS: usize = 4;
/// Values of such a part.
pub(super) const MINIBLOCK: usize = BLOCK / MINIBLOCKS;

/// What cannot be read.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("a page's bytes are not what was written: {0}")]
pub(crate) struct Unreadable(pub(crate) &'static str);

/// What of a byte a difference may leave free.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Widths {
    /// Differences stay in place within bytes.
    Whole,
    /// Beyond a byte, nothing.
    Exact,
}

impl Widths {
    /// The width that `bits` are written with.
    fn of(self, bits: u32) -> u32 {
        match bits {
            0..=2 => bits,
            3..=4 => 4,
            5..=8 => 8,
            _ if self == Self::Exact => bits,
            _ => bits.next_multiple_of(8),
        }
    }
}

fn bits_of(value: u64) -> u32 {
    u64::BITS - value.leading_zeros()
}

/// Appends a number, seven bits a byte.
pub(crate) fn put_varint(mut value: u64, out: &mut Vec<u8>) {
    while value >= 0x80 {
        out.push(value as u8 | 0x80);
        value >>= 7;
    }
    out.push(value as u8);
}

/// Takes a number off the beginning.
pub(crate) fn take_varint(bytes: &mut &[u8]) -> Result<u64, Unreadable> {
    let mut value = 0u64;
    for shift in (0..64).step_by(7) {
        let (byte, rest) = bytes.split_first().ok_or(Unreadable("it ends in a number"))?;
        *bytes = rest;
        value |= u64::from(byte & 0x7f).checked_shl(shift).unwrap_or(0);
        if byte & 0x80 == 0 {
            return Ok(value);
        }
    }
    Err(Unreadable("a number has too many bytes"))
}

fn zigzag(value: i64) -> u64 {
    ((value << 1) ^ (value >> 63)) as u64
}

pub(super) fn from_zigzag(value: u64) -> i64 {
    (value >> 1) as i64 ^ -((value & 1) as i64)
}

/// Appends the values as one `DELTA_BINARY_PACKED` page body.
pub(crate) fn put_deltas(values: &[i64], out: &mut Vec<u8>) {
    put_deltas_in([(values.len(), Widths::Whole)], values, out);
}

/// The same with widths for so many values each, which are all of them together; gives where the bytes of one kind end in
/// `out`. A block has the widths of its first value.
pub(super) fn put_deltas_in(
    parts: impl IntoIterator<Item = (usize, Widths)>,
    values: &[i64],
    out: &mut Vec<u8>,
) -> Vec<usize> {
    put_header(values.len(), values.first(), out);
    let (mut parts, mut ends) = (parts.into_iter(), Vec::new());
    let (mut part_end, mut widths) = parts.next().unwrap_or((0, Widths::Whole));
    let (mut at, mut previous, mut deltas) = (1, values.first().copied().unwrap_or(0), [0i64; BLOCK]);
    for block in values.get(1..).unwrap_or_default().chunks(BLOCK) {
        let before = widths;
        while at >= part_end
            && let Some((count, next)) = parts.next()
        {
            (part_end, widths) = (part_end + count, next);
        }
        if widths != before {
            ends.push(out.len());
        }
        for (delta, value) in deltas.iter_mut().zip(block) {
            *delta = value.wrapping_sub(previous);
            previous = *value;
        }
        put_block(&deltas[..block.len()], widths, out);
        at += block.len();
    }
    ends.push(out.len());
    ends
}

/// As [`put_deltas`] of values that repeat: each so often, all of them together `count`.
pub(crate) fn put_repeated(count: usize, mut runs: impl Iterator<Item = (i64, usize)>, out: &mut Vec<u8>) {
    let first = runs.find(|(_, rows)| *rows > 0);
    put_header(count, first.as_ref().map(|(value, _)| value), out);
    let Some((first, mut left_of_run)) = first else { return };
    left_of_run -= 1;
    let (mut previous, mut left, mut deltas) = (first, count.saturating_sub(1), [0i64; BLOCK]);
    while left > 0 {
        let rows = left.min(BLOCK);
        left -= rows;
        if left_of_run >= rows {
            left_of_run -= rows;
            put_block(&[0; BLOCK][..rows], Widths::Whole, out);
            continue;
        }
        for delta in &mut deltas[..rows] {
            *delta = 0;
            if left_of_run == 0
                && let Some((value, rows)) = runs.find(|(_, rows)| *rows > 0)
            {
                *delta = value.wrapping_sub(previous);
                (previous, left_of_run) = (value, rows);
            }
            left_of_run = left_of_run.saturating_sub(1);
        }
        put_block(&deltas[..rows], Widths::Whole, out);
    }
}

fn put_header(count: usize, first: Option<&i64>, out: &mut Vec<u8>) {
    put_varint(BLOCK as u64, out);
    put_varint(MINIBLOCKS as u64, out);
    put_varint(count as u64, out);
    put_varint(first.map_or(0, |first| zigzag(*first)), out);
}

fn put_block(deltas: &[i64], of: Widths, out: &mut Vec<u8>) {
    // Within a series, and with steady steps, all are the same: there is nothing to write but which.
    if let Some(first) = deltas.first()
        && deltas.iter().fold(0, |other, delta| other | (delta ^ first)) == 0
    {
        put_varint(zigzag(*first), out);
        out.extend([0; MINIBLOCKS]);
        return;
    }
    let (mut smallest, mut largest) = (i64::MAX, i64::MIN);
    for delta in deltas {
        smallest = smallest.min(*delta);
        largest = largest.max(*delta);
    }
    let base = stable_base(smallest, largest, of);
    put_varint(zigzag(base), out);
    let mut widths = [0u32; MINIBLOCKS];
    for (width, part) in widths.iter_mut().zip(deltas.chunks(MINIBLOCK)) {
        let all = part.iter().fold(0, |bits, delta| bits | delta.wrapping_sub(base) as u64);
        *width = of.of(bits_of(all));
    }
    out.extend(widths.map(|width| width as u8));
    let mut offsets = [0u64; MINIBLOCK];
    for (width, part) in widths.into_iter().zip(deltas.chunks(MINIBLOCK)) {
        for (offset, delta) in offsets.iter_mut().zip(part) {
            *offset = delta.wrapping_sub(base) as u64;
        }
        offsets[part.len()..].fill(0);
        put_offsets(&offsets, width, out);
    }
}

/// A smallest difference that does not change the width and is the same for most blocks: the lowest number of the fewest
/// signed bits that say the smallest. A single step up, as to another series, leaves it as in the blocks around it.
fn stable_base(smallest: i64, largest: i64, widths: Widths) -> i64 {
    let width = widths.of(bits_of(largest.wrapping_sub(smallest) as u64));
    if width == 0 || width == 64 {
        return smallest;
    }
    let below_zero = if smallest < 0 { bits_of(!smallest as u64) + 1 } else { 0 };
    let lowest = match (widths, below_zero) {
        (Widths::Exact, 0) => 0,
        (Widths::Exact, bits) => -(1i128 << (bits - 1)),
        (Widths::Whole, bits) => -(1i128 << (widths.of(bits).max(width.min(4)) - 1)),
    };
    let is_wide_enough = lowest <= i128::from(smallest) && i128::from(largest) < lowest + (1i128 << width);
    if is_wide_enough { lowest as i64 } else { smallest }
}

fn put_offsets(offsets: &[u64; MINIBLOCK], width: u32, out: &mut Vec<u8>) {
    match width {
        0 => {}
        1 | 2 | 4 => {
            let per_byte = 8 / width as usize;
            out.extend(offsets.chunks(per_byte).map(|part| {
                part.iter().enumerate().fold(0u8, |byte, (at, offset)| byte | ((*offset as u8) << (at as u32 * width)))
            }));
        }
        8 => out.extend(offsets.map(|offset| offset as u8)),
        _ if !width.is_multiple_of(8) => {
            let (mut held, mut bits) = (0u128, 0);
            for offset in offsets {
                held |= u128::from(*offset) << bits;
                bits += width;
                while bits >= 32 {
                    out.extend_from_slice(&(held as u32).to_le_bytes());
                    held >>= 32;
                    bits -= 32;
                }
            }
        }
        _ => {
            let bytes = width as usize / 8;
            for offset in offsets {
                out.extend_from_slice(&offset.to_le_bytes()[..bytes]);
            }
        }
    }
}

/// Appends levels or indices of one byte as runs: how often, and what.
pub(crate) fn put_runs(runs: impl IntoIterator<Item = (usize, u8)>, out: &mut Vec<u8>) {
    for (length, value) in runs {
        put_varint((length as u64) << 1, out);
        out.push(value);
    }
}

/// Reads runs until they make `count` values.
pub(crate) fn take_runs(mut bytes: &[u8], count: usize) -> Result<Vec<(usize, u8)>, Unreadable> {
    let (mut runs, mut missing) = (Vec::new(), count);
    while missing > 0 {
        let header = take_varint(&mut bytes)?;
        let (value, rest) = bytes.split_first().ok_or(Unreadable("it ends in a run"))?;
        bytes = rest;
        let length = (header >> 1) as usize;
        if header & 1 == 1 || length == 0 || length > missing {
            return Err(Unreadable("a run that is never written"));
        }
        runs.push((length, *value));
        missing -= length;
    }
    Ok(runs)
}

/// Bytes of an index into a dictionary of this many entries.
pub(crate) fn index_bytes(entries: usize) -> usize {
    match entries {
        0..=0x100 => 1,
        0x101..=0x1_0000 => 2,
        _ => 4,
    }
}

/// The index at one place of such a body as [`put_indices`] makes; `None` if it has none there.
pub(crate) fn index_at(body: &[u8], place: usize) -> Option<u32> {
    let (width, rest) = packed_indices(body)?;
    match (width, usize::from(width) / 8 * place) {
        (8, at) => rest.get(at).map(|byte| u32::from(*byte)),
        (16, at) => rest.get(at..at + 2).map(|two| u32::from(u16::from_le_bytes([two[0], two[1]]))),
        (32, at) => rest.get(at..at + 4).map(|four| u32::from_le_bytes([four[0], four[1], four[2], four[3]])),
        _ => None,
    }
}

/// The width in bits and the bytes of indices in such a body.
pub(crate) fn packed_indices(body: &[u8]) -> Option<(u8, &[u8])> {
    let (width, mut rest) = body.split_first()?;
    take_varint(&mut rest).ok()?;
    Some((*width, rest))
}

/// Appends so many indices as a dictionary page body: the width, then one packed run of whole bytes.
pub(crate) fn put_indices(count: usize, indices: impl Iterator<Item = u32>, bytes: usize, out: &mut Vec<u8>) {
    let groups = count.div_ceil(8);
    // All at once: a page of them is large, and growing would copy it again and again.
    out.reserve(groups * 8 * bytes + 16);
    out.push(bytes as u8 * 8);
    put_varint((groups as u64) << 1 | 1, out);
    match bytes {
        1 => out.extend(indices.map(|index| index as u8)),
        2 => indices.for_each(|index| out.extend_from_slice(&(index as u16).to_le_bytes())),
        _ => indices.for_each(|index| out.extend_from_slice(&index.to_le_bytes())),
    }
    out.extend(std::iter::repeat_n(0, (groups * 8 - count) * bytes));
}

/// Reads the entries at places `from .. to` of such a body, which rise from place to place.
pub(crate) fn take_entries(
    body: &[u8],
    from: usize,
    to: usize,
    entries: &[i64],
    out: &mut Vec<i64>,
) -> Result<(), Unreadable> {
    const MISSING: Unreadable = Unreadable("indices are missing");
    const TOO_HIGH: Unreadable = Unreadable("an index is too high");
    let Some(last) = to.checked_sub(1).filter(|last| from <= *last) else { return Ok(()) };
    let (low, high) = (index_at(body, from).ok_or(MISSING)? as usize, index_at(body, last).ok_or(MISSING)? as usize);
    // Whoever misses no poll has one entry after the other.
    if high.checked_sub(low) == Some(last - from) {
        out.extend_from_slice(entries.get(low..=high).ok_or(TOO_HIGH)?);
        return Ok(());
    }
    out.reserve(to - from);
    for place in from..to {
        let index = index_at(body, place).ok_or(MISSING)?;
        out.push(*entries.get(index as usize).ok_or(TOO_HIGH)?);
    }
    Ok(())
}

/// Appends doubles with their first bytes together, then their second ... (`BYTE_STREAM_SPLIT`).
pub(crate) fn put_split(values: &[f64], out: &mut Vec<u8>) {
    for byte in 0..8 {
        out.extend(values.iter().map(|value| value.to_bits().to_le_bytes()[byte]));
    }
}

/// The same of whole numbers.
pub(crate) fn put_split_numbers(numbers: &[i64], out: &mut Vec<u8>) {
    for byte in 0..8 {
        out.extend(numbers.iter().map(|number| number.to_le_bytes()[byte]));
    }
}

/// Reads numbers of such a body of `count`, from place `from` on, as many as `out` has room for.
pub(crate) fn take_split_numbers(body: &[u8], count: usize, from: usize, out: &mut [i64]) -> Result<(), Unreadable> {
    if body.len() != count * 8 || from + out.len() > count {
        return Err(Unreadable("split numbers have another length"));
    }
    out.fill(0);
    for (byte, bytes) in body.chunks_exact(count.max(1)).enumerate() {
        for (number, byte_of_it) in out.iter_mut().zip(&bytes[from..]) {
            *number |= i64::from(*byte_of_it) << (byte * 8);
        }
    }
    Ok(())
}

/// Reads the doubles `from .. to` of such a body of `count`.
pub(crate) fn take_split(
    body: &[u8],
    count: usize,
    from: usize,
    to: usize,
    out: &mut Vec<f64>,
) -> Result<(), Unreadable> {
    if body.len() != count * 8 || to > count {
        return Err(Unreadable("split values have another length"));
    }
    out.extend(
        (from..to).map(|at| f64::from_bits(u64::from_le_bytes(std::array::from_fn(|byte| body[byte * count + at])))),
    );
    Ok(())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::deltas::take_deltas, *};

    fn check(values: &[i64]) {
        let mut bytes = Vec::new();
        put_deltas(values, &mut bytes);
        let mut read = Vec::new();
        take_deltas(&bytes, usize::MAX, &mut read).expect("what was written");
        assert_eq!(read, values);
        let mut half = Vec::new();
        take_deltas(&bytes, values.len() / 2, &mut half).expect("what was written");
        assert_eq!(half, values[..values.len() / 2]);
    }

    #[test]
    fn the_ends_of_the_numbers_come_back() {
        check(&[]);
        check(&[i64::MIN]);
        check(&[i64::MIN, i64::MAX, i64::MIN, 0, -1, i64::MAX]);
        check(&(0..1000).collect::<Vec<_>>());
        check(&(0..1000).map(|at| if at % 300 == 0 { 1 << 60 } else { at % 7 }).collect::<Vec<_>>());
    }

    #[test]
    fn the_same_differences_are_the_same_bytes_in_every_block() {
        // A walk of small steps: the smallest step of a block varies, what is written for it does not.
        let steps = [1i64, -2, 0, 3, -1, 2, -3, 0];
        let mut values = vec![0];
        for at in 0..1280usize {
            let step = if at / 128 % 2 == 0 { steps[at % 8] } else { steps[at % 4].abs() };
            values.push(values[at] + step);
        }
        let mut bytes = Vec::new();
        put_deltas(&values, &mut bytes);
        let bases = bytes.iter().filter(|byte| **byte == zigzag(-8) as u8).count();
        assert!(bases >= 5, "{bases}");
    }

    #[test]
    fn a_step_up_to_another_series_widens_only_its_own_part() {
        // 96 steps of four bits in 48 bytes, and 32 of eight: 69 bytes of each other block are 16 more.
        let steps = [1i64, -2, 0, 3, -1, 2, -3, 0];
        let mut values = vec![0];
        for at in 0..1280usize {
            values.push(values[at] + steps[at % 8] + if at == 700 { 90 } else { 0 });
        }
        let (mut even, mut stepped) = (Vec::new(), Vec::new());
        put_deltas(&values[..600], &mut even);
        put_deltas(&values, &mut stepped);
        assert_eq!(stepped.len(), 6 + 10 * 69 + 16);
        assert_eq!(even[6..75], stepped[6..75]);
        check(&values);
    }

    proptest! {
        #[test]
        fn runs_are_written_as_their_values_are(runs in proptest::collection::vec((-3i64..1 << 40, 0usize..400), 0..12)) {
            let values: Vec<i64> = runs.iter().flat_map(|(value, rows)| std::iter::repeat_n(*value, *rows)).collect();
            let (mut expected, mut bytes) = (Vec::new(), Vec::new());
            put_deltas(&values, &mut expected);
            put_repeated(values.len(), runs.into_iter(), &mut bytes);
            assert_eq!(bytes, expected);
        }

        #[test]
        fn any_numbers_come_back(values in proptest::collection::vec(prop_oneof![any::<i64>(), -9i64..9, 0i64..70_000], 0..700)) {
            check(&values);
        }

        #[test]
        fn numbers_of_any_widths_come_back(
            parts in proptest::collection::vec((0usize..400, 0u32..65, any::<bool>()), 0..6), seed in any::<u64>()
        ) {
            let (mut values, mut value, mut state, mut of_parts) = (Vec::new(), 0i64, seed, Vec::new());
            for (count, bits, is_exact) in parts {
                of_parts.push((count, if is_exact { Widths::Exact } else { Widths::Whole }));
                for at in 0..count {
                    state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
                    let step = (state ^ state >> 31).checked_shr(64 - bits).unwrap_or(0) as i64;
                    value = if at % 5 == 0 && seed % 2 == 0 { value.wrapping_sub(step) } else { value.wrapping_add(step) };
                    values.push(value);
                }
            }
            let (mut bytes, mut whole, mut read) = (vec![7; 3], Vec::new(), Vec::new());
            let ends = put_deltas_in(of_parts, &values, &mut bytes);
            prop_assert!(ends.is_sorted() && ends.last() == Some(&bytes.len()), "{:?}", ends);
            put_deltas(&values, &mut whole);
            prop_assert!(bytes.len() - 3 <= whole.len());
            take_deltas(&bytes[3..], usize::MAX, &mut read).expect("what was written");
            prop_assert_eq!(read, values);
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = take_deltas(&bytes, 1000, &mut Vec::new());
            let _ = take_runs(&bytes, 1000);
            let _ = take_entries(&bytes, 3, 9, &[1, 2, 3], &mut Vec::new());
        }

        #[test]
        fn indices_and_doubles_come_back(values in proptest::collection::vec(any::<f64>(), 1..100), at in 0usize..100) {
            let at = at % values.len();
            let mut bytes = Vec::new();
            put_split(&values, &mut bytes);
            let mut read = Vec::new();
            take_split(&bytes, values.len(), at, values.len(), &mut read).expect("what was written");
            assert!(read.iter().zip(&values[at..]).all(|(a, b)| a.to_bits() == b.to_bits()));
            let numbers: Vec<i64> = values.iter().map(|value| value.to_bits() as i64).collect();
            bytes.clear();
            put_split_numbers(&numbers, &mut bytes);
            let mut read = vec![0; values.len() - at];
            take_split_numbers(&bytes, values.len(), at, &mut read).expect("what was written");
            assert_eq!(read, numbers[at..]);
            let mut one_more = vec![0; values.len() - at + 1];
            assert!(take_split_numbers(&bytes, values.len(), at, &mut one_more).is_err());
            let entries: Vec<i64> = (0..200).map(|index| index * 7).collect();
            for (width, step, gap) in [(1, 1, 0), (1, 1, 5), (2, 1, 0), (2, 2, 0), (4, 1, 3), (4, 1, 0)] {
                // Places that rise, one after the other but for a gap.
                let indices: Vec<u32> =
                    (0..values.len() as u32).map(|index| (index + if index > 40 { gap } else { 0 }) * step).collect();
                let indices: Vec<u32> = indices.into_iter().take_while(|index| *index < 200).collect();
                let at = at.min(indices.len());
                let mut bytes = Vec::new();
                put_indices(indices.len(), indices.iter().copied(), width, &mut bytes);
                let mut read = Vec::new();
                take_entries(&bytes, at, indices.len(), &entries, &mut read).expect("what was written");
                assert_eq!(read, indices[at..].iter().map(|index| entries[*index as usize]).collect::<Vec<_>>());
            }
        }
    }
}
