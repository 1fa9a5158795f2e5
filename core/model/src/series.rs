//! Numbers of series. Pure.
//!
//! Files of the store are sorted by them, and most questions are about many series of one meter. So a number begins with
//! bits that are made from the meter's name, and series of one meter lie beside each other in every file. What follows is
//! the series' count, which alone makes the number unique: two meters whose names give the same bits share a place, which
//! costs a little time and nothing else. Earlier builds gave bare counts; those are numbers as well.

/// Bits of the count: a million new series a minute use them up in two years, a thousand in two thousand.
const COUNT_BITS: u32 = 40;
/// Bits of the meter: with some thousand meters hardly two of them meet, and a number stays a positive long for those who
/// read the files.
const METER_BITS: u32 = 22;

/// Number of a series in the store. Assigned once by the index, never reused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, serde::Serialize, serde::Deserialize)]
#[serde(transparent)]
pub struct SeriesId(pub u64);

impl SeriesId {
    /// The number of the series with this count, of a meter of this name.
    pub fn of_meter(count: u64, meter: &[u8]) -> Self {
        // What has no name needs no neighbours, and a count beyond the bits stays the unique number that it is.
        if meter.is_empty() || count >> COUNT_BITS != 0 {
            return Self(count);
        }
        Self(meter_bits(meter) << COUNT_BITS | count)
    }

    /// What the names of its meter and of few others give; 0 where it was made of none.
    pub fn meter(self) -> u64 {
        self.0 >> COUNT_BITS
    }

    /// Which series it is, counted from the first that was ever made; dense.
    pub fn count(self) -> u64 {
        self.0 & ((1 << COUNT_BITS) - 1)
    }
}

/// FNV-1a, folded. Not zero, so that no new number looks like an old one.
fn meter_bits(meter: &[u8]) -> u64 {
    let hash = meter
        .iter()
        .fold(0xcbf2_9ce4_8422_2325u64, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3));
    let folded = hash ^ (hash >> METER_BITS) ^ (hash >> (2 * METER_BITS));
    (folded & ((1 << METER_BITS) - 1)).max(1)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn series_of_one_meter_are_neighbours_and_counts_stay_what_they_were() {
        let cpu: Vec<SeriesId> = [3, 7, 900_000].map(|count| SeriesId::of_meter(count, b"cpu")).to_vec();
        let memory: Vec<SeriesId> = [1, 5, 800_000].map(|count| SeriesId::of_meter(count, b"memory.usage")).to_vec();
        assert!(cpu.is_sorted() && memory.is_sorted());
        assert!(cpu.iter().max() < memory.iter().min() || memory.iter().max() < cpu.iter().min());
        assert_eq!(cpu.iter().map(|series| series.count()).collect::<Vec<_>>(), [3, 7, 900_000]);
        assert_eq!(SeriesId::of_meter(7, b""), SeriesId(7));
        assert!(i64::try_from(SeriesId::of_meter((1 << COUNT_BITS) - 1, b"cpu").0).is_ok());
        assert_eq!(SeriesId::of_meter(1 << COUNT_BITS, b"cpu"), SeriesId(1 << COUNT_BITS));
    }

    #[test]
    fn thousands_of_names_hardly_meet() {
        let names = (0..4000).map(|number| format!("node_something_{number}_seconds_total"));
        let bits: HashSet<u64> = names.map(|name| meter_bits(name.as_bytes())).collect();
        assert!(bits.len() > 3950, "{}", bits.len());
    }
}
