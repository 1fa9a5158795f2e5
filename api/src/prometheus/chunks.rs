//! Points as chunks of Gorilla's XOR encoding, in the form that remote read streams (`STREAMED_XOR_CHUNKS`), which is that
//! of Prometheus' block files: differences of differences of times, differences of values' bits. Pure.

/// Samples of one chunk, as Prometheus cuts them.
pub(crate) const CHUNK_SAMPLES: usize = 120;

/// One chunk: its first and last time in milliseconds, and its bytes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Chunk {
    pub(crate) first_ms: i64,
    pub(crate) last_ms: i64,
    pub(crate) bytes: Vec<u8>,
}

/// Chunks of a series' points, in order.
pub(crate) fn chunks(times: &[i64], values: &[f64]) -> Vec<Chunk> {
    let pairs = times.chunks(CHUNK_SAMPLES).zip(values.chunks(CHUNK_SAMPLES));
    pairs.filter_map(|(times, values)| encoded(times, values)).collect()
}

fn encoded(times: &[i64], values: &[f64]) -> Option<Chunk> {
    let (first_ms, last_ms) = (*times.first()?, *times.last()?);
    let mut bits = Bits::default();
    let count = u16::try_from(times.len()).ok()?;
    bits.bytes.extend_from_slice(&count.to_be_bytes());
    let (mut before, mut step, mut window) = (first_ms, 0_i64, None);
    let mut last_value = 0_u64;
    for (at, (time, value)) in times.iter().zip(values).enumerate() {
        let (delta, value) = (time.wrapping_sub(before), value.to_bits());
        match at {
            0 => {
                bits.varint(zigzag(*time));
                bits.push(value, 64);
            }
            1 => {
                bits.varint(delta.cast_unsigned());
                bits.value(value ^ last_value, &mut window);
            }
            _ => {
                bits.difference(delta.wrapping_sub(step));
                bits.value(value ^ last_value, &mut window);
            }
        }
        (before, last_value) = (*time, value);
        step = if at == 0 { 0 } else { delta };
    }
    Some(Chunk { first_ms, last_ms, bytes: bits.bytes })
}

fn zigzag(number: i64) -> u64 {
    (number << 1 ^ number >> 63).cast_unsigned()
}

/// Bits, the highest of a byte first.
#[derive(Default)]
struct Bits {
    bytes: Vec<u8>,
    /// Bits of the last byte that are not taken yet.
    free: u32,
}

impl Bits {
    /// The lowest `count` bits of a number.
    fn push(&mut self, number: u64, count: u32) {
        let mut left = count;
        while left > 0 {
            if self.free == 0 {
                self.bytes.push(0);
                self.free = 8;
            }
            let now = left.min(self.free);
            let part = number >> (left - now) & ((1 << now) - 1);
            let last = self.bytes.len() - 1;
            self.bytes[last] |= (part as u8) << (self.free - now);
            self.free -= now;
            left -= now;
        }
    }

    fn varint(&mut self, mut number: u64) {
        while number >= 0x80 {
            self.push(number & 0x7f | 0x80, 8);
            number >>= 7;
        }
        self.push(number, 8);
    }

    /// A difference of two steps of time; most are zero.
    fn difference(&mut self, number: i64) {
        let fits = |bits: u32| (-((1 << (bits - 1)) - 1)..=1 << (bits - 1)).contains(&number);
        match number {
            0 => self.push(0, 1),
            _ if fits(14) => self.marked(0b10, 2, number, 14),
            _ if fits(17) => self.marked(0b110, 3, number, 17),
            _ if fits(20) => self.marked(0b1110, 4, number, 20),
            _ => self.marked(0b1111, 4, number, 64),
        }
    }

    fn marked(&mut self, mark: u64, mark_bits: u32, number: i64, bits: u32) {
        self.push(mark, mark_bits);
        self.push(number.cast_unsigned(), bits);
    }

    /// What changed of a value's bits: those between the leading and trailing zeros of `window`, or of its own.
    fn value(&mut self, changed: u64, window: &mut Option<(u32, u32)>) {
        if changed == 0 {
            return self.push(0, 1);
        }
        self.push(1, 1);
        // Five bits say how many zeros lead.
        let (leading, trailing) = (changed.leading_zeros().min(31), changed.trailing_zeros());
        match *window {
            Some((own_leading, own_trailing)) if leading >= own_leading && trailing >= own_trailing => {
                self.push(0, 1);
                self.push(changed >> own_trailing, 64 - own_leading - own_trailing);
            }
            _ => {
                *window = Some((leading, trailing));
                let bits = 64 - leading - trailing;
                self.push(1, 1);
                self.push(u64::from(leading), 5);
                // 64 is written as 0, which no change has.
                self.push(u64::from(bits) & 0x3f, 6);
                self.push(changed >> trailing, bits);
            }
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use proptest::prelude::*;

    use super::*;

    struct Read<'a> {
        bytes: &'a [u8],
        at: usize,
    }

    impl Read<'_> {
        fn bits(&mut self, count: usize) -> u64 {
            (0..count).fold(0, |number, _| {
                let bit = self.bytes[self.at / 8] >> (7 - self.at % 8) & 1;
                self.at += 1;
                number << 1 | u64::from(bit)
            })
        }

        fn varint(&mut self) -> u64 {
            let (mut number, mut shift) = (0, 0);
            loop {
                let byte = self.bits(8);
                number |= (byte & 0x7f) << shift;
                if byte < 0x80 {
                    return number;
                }
                shift += 7;
            }
        }
    }

    /// Reads a chunk as Prometheus' documentation of its format says.
    pub(crate) fn decoded(bytes: &[u8]) -> Vec<(i64, u64)> {
        let mut read = Read { bytes, at: 0 };
        let count = read.bits(16);
        let (mut time, mut step, mut value, mut window) = (0_i64, 0_i64, 0, (0, 0));
        let mut found = Vec::new();
        for at in 0..count {
            match at {
                0 => {
                    let raw = read.varint();
                    time = (raw >> 1).cast_signed() ^ -(raw & 1).cast_signed();
                    value = read.bits(64);
                    found.push((time, value));
                    continue;
                }
                1 => step = read.varint().cast_signed(),
                _ => {
                    let marks = (0..4).take_while(|_| read.bits(1) == 1).count();
                    let bits = [0, 14, 17, 20, 64][marks];
                    let raw = read.bits(bits).cast_signed();
                    let is_negative = bits > 0 && bits < 64 && raw > 1 << (bits - 1);
                    step = step.wrapping_add(if is_negative { raw - (1 << bits) } else { raw });
                }
            }
            time = time.wrapping_add(step);
            if read.bits(1) == 1 {
                if read.bits(1) == 1 {
                    let (leading, bits) = (read.bits(5), read.bits(6));
                    let bits = if bits == 0 { 64 } else { bits };
                    window = (bits, 64 - leading - bits);
                }
                value ^= read.bits(window.0 as usize) << window.1;
            }
            found.push((time, value));
        }
        assert_eq!(read.at.div_ceil(8), bytes.len(), "nothing is left over");
        found
    }

    proptest! {
        #[test]
        fn every_point_comes_back_bit_by_bit(
            start in -1_000_000_000_000_i64..2_000_000_000_000,
            points in prop::collection::vec(
                (prop_oneof![Just(15_000_i64), 1_i64..30_000, 1_i64..2_000_000_000], prop_oneof![
                    Just(0.0), Just(-0.0), Just(f64::NAN), Just(f64::from_bits(0x7ff0_0000_0000_0002)),
                    (0..1000_i32).prop_map(f64::from), any::<f64>(),
                ]),
                0..300,
            ),
        ) {
            let mut at = start;
            let times: Vec<i64> = points.iter().map(|(step, _)| { at += step; at }).collect();
            let values: Vec<f64> = points.iter().map(|(_, value)| *value).collect();
            let made = chunks(&times, &values);
            prop_assert_eq!(made.len(), times.len().div_ceil(CHUNK_SAMPLES));
            let read: Vec<(i64, u64)> = made.iter().flat_map(|chunk| decoded(&chunk.bytes)).collect();
            let expected: Vec<(i64, u64)> = times.iter().copied().zip(values.iter().map(|value| value.to_bits())).collect();
            prop_assert_eq!(read, expected);
            for chunk in &made {
                let own = decoded(&chunk.bytes);
                prop_assert_eq!((chunk.first_ms, chunk.last_ms), (own[0].0, own[own.len() - 1].0));
            }
        }
    }
}
