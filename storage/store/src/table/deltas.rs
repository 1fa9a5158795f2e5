//! Reading `DELTA_BINARY_PACKED` bodies as [`super::packing`] writes them: what is not wanted is added up a miniblock at a
//! time, which costs a tenth of taking it apart, or jumped over by marks that an earlier reader left. Pure.

use super::packing::{BLOCK, MINIBLOCK, MINIBLOCKS, Unreadable, from_zigzag, take_varint};

/// Where a block begins in a body, and the value before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Mark {
    at: u32,
    value: i64,
}

/// A mark for each block of a body: with them any value is as near as any other.
#[derive(Debug, Default)]
pub(crate) struct Marks(Vec<Mark>);

impl Marks {
    /// Goes through a body once; where it cannot be read, the marks end.
    pub(crate) fn of(body: &[u8]) -> Self {
        let mut marks = Vec::new();
        if let Ok(mut deltas) = Deltas::new(body) {
            // Whatever it claims, a block has a head of five bytes at least.
            marks.reserve((deltas.total / BLOCK).min(body.len() / 5) + 1);
            while deltas.decoded < deltas.total {
                let (Ok(at), value) = (u32::try_from(deltas.at), deltas.value) else { break };
                marks.push(Mark { at, value });
                // Adding up all but the last goes through whole miniblocks; of the last block nothing stands behind.
                let left = deltas.total - deltas.decoded;
                if left <= BLOCK || (0..MINIBLOCKS).any(|_| deltas.add_up(body).is_err()) {
                    break;
                }
            }
        }
        Self(marks)
    }

    /// Memory that the marks of so many values take.
    pub(crate) fn memory_bytes(values: usize) -> usize {
        (values / BLOCK + 1) * size_of::<Mark>()
    }
}

/// How far a body was read. The body itself is the caller's, and the same for every call.
pub(crate) struct Deltas {
    /// Where the next miniblock, or the next block's head, begins.
    at: usize,
    total: usize,
    /// Values that were added up or taken apart.
    decoded: usize,
    /// The last of them.
    value: i64,
    /// The current block's smallest difference and widths, and which miniblock comes next.
    base: i64,
    widths: [u8; MINIBLOCKS],
    miniblock: usize,
    /// Values that were taken apart and not handed out: these places of `ready`.
    ready: [i64; MINIBLOCK],
    ready_from: usize,
    ready_to: usize,
}

type Result<T> = std::result::Result<T, Unreadable>;

impl Deltas {
    pub(crate) fn new(body: &[u8]) -> Result<Self> {
        let mut bytes = body;
        if take_varint(&mut bytes)? != BLOCK as u64 || take_varint(&mut bytes)? != MINIBLOCKS as u64 {
            return Err(Unreadable("the blocks have another size"));
        }
        let total = take_varint(&mut bytes)? as usize;
        let value = from_zigzag(take_varint(&mut bytes)?);
        let mut ready = [0; MINIBLOCK];
        ready[0] = value;
        let first = total.min(1);
        Ok(Self {
            at: body.len() - bytes.len(),
            total,
            decoded: first,
            value,
            base: 0,
            widths: [0; MINIBLOCKS],
            miniblock: MINIBLOCKS,
            ready,
            ready_from: 0,
            ready_to: first,
        })
    }

    /// How many values were handed out or skipped.
    pub(crate) fn position(&self) -> usize {
        self.decoded - (self.ready_to - self.ready_from)
    }

    /// The next miniblock: its width and its bytes.
    fn next<'a>(&mut self, body: &'a [u8]) -> Result<(u8, &'a [u8])> {
        let mut bytes = body.get(self.at..).unwrap_or_default();
        if self.miniblock == MINIBLOCKS {
            self.base = from_zigzag(take_varint(&mut bytes)?);
            let (widths, rest) = bytes.split_first_chunk().ok_or(Unreadable("it ends in a block's widths"))?;
            (self.widths, bytes, self.miniblock) = (*widths, rest, 0);
        }
        let width = self.widths[self.miniblock];
        let length = MINIBLOCK * usize::from(width) / 8;
        let (packed, rest) = bytes.split_at_checked(length).ok_or(Unreadable("it ends in a block"))?;
        self.at = body.len() - rest.len();
        self.miniblock += 1;
        Ok((width, packed))
    }

    /// Adds a whole miniblock up.
    fn add_up(&mut self, body: &[u8]) -> Result<()> {
        let next = self.next(body)?;
        self.value = self.value.wrapping_add(self.sum(next)?);
        self.decoded += MINIBLOCK;
        (self.ready_from, self.ready_to) = (0, 0);
        Ok(())
    }

    /// Goes on, or back, to a place by the nearest mark before it, if that is nearer than going through.
    pub(crate) fn jump(&mut self, marks: &Marks, place: usize) {
        let (position, block) = (self.position(), place.saturating_sub(1) / BLOCK);
        let behind = block * BLOCK + 1;
        if place == 0 || (position <= place && behind <= position + BLOCK) {
            return;
        }
        if let Some(mark) = marks.0.get(block) {
            (self.at, self.value, self.decoded) = (mark.at as usize, mark.value, behind);
            (self.miniblock, self.ready_from, self.ready_to) = (MINIBLOCKS, 0, 0);
        }
    }

    /// As [`Self::skip_below`], by marks: gives how many values were jumped over, all of them below the bound.
    pub(crate) fn jump_below(&mut self, marks: &Marks, bound: i64, most: usize) -> usize {
        let position = self.position();
        self.jump(marks, position + self.surely_below(marks, bound, most));
        self.position() - position
    }

    /// How many of the next values are below a bound, as far as marks can tell; there may be a block more. The next
    /// `most` values do not fall.
    pub(crate) fn surely_below(&self, marks: &Marks, bound: i64, most: usize) -> usize {
        let position = self.position();
        // The value before block b is the one with number b * BLOCK.
        let first = position.div_ceil(BLOCK);
        let end = marks.0.len().min((position + most).div_ceil(BLOCK));
        let inside = marks.0.get(first..end).unwrap_or_default();
        match inside.partition_point(|mark| mark.value < bound) {
            0 => 0,
            below => (first + below - 1) * BLOCK + 1 - position,
        }
    }

    /// Takes a miniblock apart into `ready`.
    fn make_ready(&mut self, (width, packed): (u8, &[u8])) -> Result<()> {
        let mut value = self.value;
        take_apart(packed, width, self.base, &mut value, &mut self.ready)?;
        let count = MINIBLOCK.min(self.total - self.decoded);
        if let Some(last) = count.checked_sub(1) {
            self.value = self.ready[last];
        }
        self.decoded += count;
        (self.ready_from, self.ready_to) = (0, count);
        Ok(())
    }

    /// What a whole miniblock adds.
    fn sum(&self, (width, packed): (u8, &[u8])) -> Result<i64> {
        Ok(self.base.wrapping_mul(MINIBLOCK as i64).wrapping_add(sum_offsets(packed, width)?))
    }

    fn check(&self, count: usize) -> Result<()> {
        let left = self.total - self.position();
        if count > left { Err(Unreadable("a page has too few values")) } else { Ok(()) }
    }

    /// Goes on by so many values.
    pub(crate) fn skip(&mut self, body: &[u8], mut count: usize) -> Result<()> {
        self.check(count)?;
        loop {
            let now = count.min(self.ready_to - self.ready_from);
            self.ready_from += now;
            count -= now;
            if count == 0 {
                return Ok(());
            }
            if count >= MINIBLOCK {
                self.add_up(body)?;
                count -= MINIBLOCK;
            } else {
                let next = self.next(body)?;
                self.make_ready(next)?;
            }
        }
    }

    /// Goes on to the first value that is not below a bound, by at most `most` values, which do not fall; gives how many
    /// were skipped.
    pub(crate) fn skip_below(&mut self, body: &[u8], bound: i64, most: usize) -> Result<usize> {
        self.check(most)?;
        let mut skipped = 0;
        loop {
            let ready = &self.ready[self.ready_from..self.ready_to];
            let within = &ready[..ready.len().min(most - skipped)];
            let below = within.partition_point(|value| *value < bound);
            self.ready_from += below;
            skipped += below;
            if below < within.len() || skipped == most {
                return Ok(skipped);
            }
            let next = self.next(body)?;
            let behind = self.value.wrapping_add(self.sum(next)?);
            if most - skipped >= MINIBLOCK && behind < bound {
                self.value = behind;
                self.decoded += MINIBLOCK;
                skipped += MINIBLOCK;
                (self.ready_from, self.ready_to) = (0, 0);
            } else {
                self.make_ready(next)?;
            }
        }
    }

    /// Appends the next values.
    pub(crate) fn take(&mut self, body: &[u8], count: usize, out: &mut Vec<i64>) -> Result<()> {
        out.reserve(count);
        self.take_each(body, count, |values| out.extend_from_slice(values))
    }

    /// Hands out the next values, a miniblock or less at a time.
    pub(crate) fn take_each(&mut self, body: &[u8], count: usize, mut take: impl FnMut(&[i64])) -> Result<()> {
        self.check(count)?;
        let mut left = count;
        loop {
            let now = left.min(self.ready_to - self.ready_from);
            take(&self.ready[self.ready_from..self.ready_from + now]);
            self.ready_from += now;
            left -= now;
            // Whole miniblocks need not be kept.
            let mut slots = [0; MINIBLOCK];
            while left >= MINIBLOCK {
                let (width, packed) = self.next(body)?;
                take_apart(packed, width, self.base, &mut self.value, &mut slots)?;
                self.decoded += MINIBLOCK;
                (self.ready_from, self.ready_to) = (0, 0);
                take(&slots);
                left -= MINIBLOCK;
            }
            if left == 0 {
                return Ok(());
            }
            let next = self.next(body)?;
            self.make_ready(next)?;
        }
    }
}

/// Appends the first `count` values of a body (all of them if it has fewer).
#[cfg(test)]
pub(crate) fn take_deltas(body: &[u8], count: usize, out: &mut Vec<i64>) -> Result<()> {
    let mut deltas = Deltas::new(body)?;
    let count = count.min(deltas.total);
    deltas.take(body, count, out)
}

const NO_WIDTH: Unreadable = Unreadable("a width of more than 64 bits");

/// The values of a miniblock from the one before it and their differences, of which the smallest is `base`.
fn take_apart(packed: &[u8], width: u8, base: i64, value: &mut i64, out: &mut [i64; MINIBLOCK]) -> Result<()> {
    let mut last = *value;
    let mut next = |slot: &mut i64, offset: i64| {
        last = last.wrapping_add(base).wrapping_add(offset);
        *slot = last;
    };
    match width {
        0 => out.iter_mut().for_each(|slot| next(slot, 0)),
        1 => {
            for (slots, byte) in out.as_chunks_mut::<8>().0.iter_mut().zip(packed) {
                (0..8).for_each(|at| next(&mut slots[at], i64::from(byte >> at & 1)));
            }
        }
        2 => {
            for (slots, byte) in out.as_chunks_mut::<4>().0.iter_mut().zip(packed) {
                (0..4).for_each(|at| next(&mut slots[at], i64::from(byte >> (2 * at) & 3)));
            }
        }
        4 => {
            for (slots, byte) in out.as_chunks_mut::<2>().0.iter_mut().zip(packed) {
                next(&mut slots[0], i64::from(byte & 15));
                next(&mut slots[1], i64::from(byte >> 4));
            }
        }
        8 => out.iter_mut().zip(packed).for_each(|(slot, byte)| next(slot, i64::from(*byte))),
        16 => {
            let (pairs, _) = packed.as_chunks::<2>();
            out.iter_mut().zip(pairs).for_each(|(slot, pair)| next(slot, i64::from(u16::from_le_bytes(*pair))));
        }
        24 => {
            let (threes, _) = packed.as_chunks::<3>();
            let whole = |three: &[u8; 3]| u32::from_le_bytes([three[0], three[1], three[2], 0]);
            out.iter_mut().zip(threes).for_each(|(slot, three)| next(slot, i64::from(whole(three))));
        }
        32 => {
            let (words, _) = packed.as_chunks::<4>();
            out.iter_mut().zip(words).for_each(|(slot, word)| next(slot, i64::from(u32::from_le_bytes(*word))));
        }
        40 => whole_bytes::<5>(packed, out, next),
        48 => whole_bytes::<6>(packed, out, next),
        56 => whole_bytes::<7>(packed, out, next),
        64 => whole_bytes::<8>(packed, out, next),
        _ => out.iter_mut().zip(bits_of_each(packed, width)?).for_each(|(slot, offset)| next(slot, offset)),
    }
    *value = last;
    Ok(())
}

/// Hands out offsets of so many bytes: a number that is known when this is compiled, so that copying them calls nothing.
fn whole_bytes<const BYTES: usize>(packed: &[u8], out: &mut [i64; MINIBLOCK], mut next: impl FnMut(&mut i64, i64)) {
    let (offsets, _) = packed.as_chunks::<BYTES>();
    for (slot, offset) in out.iter_mut().zip(offsets) {
        let mut whole = [0; 8];
        whole[..BYTES].copy_from_slice(offset);
        next(slot, i64::from_le_bytes(whole));
    }
}

/// A miniblock's offsets of any width.
fn bits_of_each(packed: &[u8], width: u8) -> Result<[i64; MINIBLOCK]> {
    const BYTES_MAX: usize = MINIBLOCK * 64 / 8;
    let mut room = [0; BYTES_MAX + 8];
    room.get_mut(..packed.len()).filter(|_| width > 0 && width <= 64).ok_or(NO_WIDTH)?.copy_from_slice(packed);
    let (width, mask) = (usize::from(width), u64::MAX >> (64 - width));
    Ok(std::array::from_fn(|at| {
        let (byte, bit) = (at * width / 8, at * width % 8);
        let word = room[byte..].first_chunk().map_or(0, |bytes| u64::from_le_bytes(*bytes)) >> bit;
        // Beyond 57 bits the last ones may be in a ninth byte.
        let rest = if bit + width > 64 { u64::from(room[byte + 8]) << (64 - bit) } else { 0 };
        ((word | rest) & mask) as i64
    }))
}

/// The sum of a miniblock's offsets.
fn sum_offsets(packed: &[u8], width: u8) -> Result<i64> {
    let ones = |mask: u8| packed.iter().map(|byte| (byte & mask).count_ones()).sum::<u32>();
    Ok(match width {
        0 => 0,
        1 => i64::from(ones(0xff)),
        2 => i64::from(ones(0x55) + 2 * ones(0xaa)),
        4 => packed.iter().map(|byte| i64::from(byte & 15) + i64::from(byte >> 4)).sum(),
        8 => packed.iter().map(|byte| u32::from(*byte)).sum::<u32>().into(),
        // A miniblock has so few that these do not overflow; apart from each other they are added several at a time.
        16 => packed.as_chunks().0.iter().map(|pair| u32::from(u16::from_le_bytes(*pair))).sum::<u32>().into(),
        24 => {
            let whole = |three: &[u8; 3]| u32::from_le_bytes([three[0], three[1], three[2], 0]);
            packed.as_chunks().0.iter().map(whole).sum::<u32>().into()
        }
        32 => packed.as_chunks().0.iter().map(|word| i64::from(u32::from_le_bytes(*word))).sum(),
        40 => sum_whole_bytes::<5>(packed),
        48 => sum_whole_bytes::<6>(packed),
        56 => sum_whole_bytes::<7>(packed),
        64 => sum_whole_bytes::<8>(packed),
        _ => bits_of_each(packed, width)?.into_iter().fold(0, i64::wrapping_add),
    })
}

/// The sum of offsets of so many bytes: two at a time, as neither waits for the other.
fn sum_whole_bytes<const BYTES: usize>(packed: &[u8]) -> i64 {
    let whole = |offset: &[u8; BYTES]| {
        let mut whole = [0; 8];
        whole[..BYTES].copy_from_slice(offset);
        i64::from_le_bytes(whole)
    };
    let (offsets, _) = packed.as_chunks::<BYTES>();
    let (pairs, _) = offsets.as_chunks::<2>();
    let (even, odd) = pairs.iter().fold((0i64, 0i64), |(even, odd), [first, second]| {
        (even.wrapping_add(whole(first)), odd.wrapping_add(whole(second)))
    });
    even.wrapping_add(odd)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{super::packing::put_deltas, *};

    proptest! {
        #[test]
        fn skipping_is_taking_and_throwing_away(
            steps in proptest::collection::vec(prop_oneof![0i64..3, 0i64..9, 0i64..100, 0i64..70_000, any::<i64>()], 0..700),
            moves in proptest::collection::vec((0u8..5, 0usize..300), 1..20),
        ) {
            let values: Vec<i64> = steps.iter().scan(0i64, |at, step| { *at = at.wrapping_add(*step); Some(*at) }).collect();
            let mut body = Vec::new();
            put_deltas(&values, &mut body);
            let (mut deltas, marks) = (Deltas::new(&body).expect("what was written"), Marks::of(&body));
            let mut at = 0;
            for (kind, count) in moves {
                if kind == 3 {
                    // Anywhere, back as well.
                    at = (at + count * 7) % (values.len() + 1);
                    deltas.jump(&marks, at);
                    if deltas.position() > at {
                        deltas = Deltas::new(&body).expect("what was written");
                    }
                    deltas.skip(&body, at - deltas.position()).expect("there");
                    continue;
                }
                let count = count.min(values.len() - at);
                match kind {
                    0 => {
                        deltas.skip(&body, count).expect("there");
                        at += count;
                    }
                    1 => {
                        let mut out = Vec::new();
                        deltas.take(&body, count, &mut out).expect("there");
                        assert_eq!(out, &values[at..at + count]);
                        at += count;
                    }
                    _ => {
                        // Up to where they rise.
                        let rise = values[at..].windows(2).take_while(|pair| pair[0] <= pair[1]).count() + 1;
                        let most = count.min(rise).min(values.len() - at);
                        let bound = values.get(at + most / 2).copied().unwrap_or(0);
                        let expected = values[at..at + most].iter().take_while(|value| **value < bound).count();
                        let jumped = if kind == 2 { 0 } else { deltas.jump_below(&marks, bound, most) };
                        assert_eq!(jumped + deltas.skip_below(&body, bound, most - jumped).expect("there"), expected);
                        at += expected;
                    }
                }
                assert_eq!(deltas.position(), at);
            }
            assert!(deltas.take(&body, values.len() - at + 1, &mut Vec::new()).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let mut body = vec![0x80, 1, 4];
            body.extend(bytes);
            let marks = Marks::of(&body);
            if let Ok(mut deltas) = Deltas::new(&body) {
                deltas.jump(&marks, 300);
                let _ = deltas.jump_below(&marks, 5, 10);
                let _ = deltas.skip(&body, 100);
                let _ = deltas.skip_below(&body, 5, 100);
                let _ = deltas.take(&body, 100, &mut Vec::new());
            }
        }
    }
}
