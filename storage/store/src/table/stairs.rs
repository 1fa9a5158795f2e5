//! A page of indices that mostly rise by one and one, as the few places where they do not: a poll that nobody missed is one
//! step for each series and file. Pure memory; what is on disk stays as it is.

use super::packing::{self, Unreadable};

/// From this place on every index is one more than the one before it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Step {
    place: u32,
    index: u32,
}

impl Step {
    fn index_at(&self, place: u32) -> usize {
        self.index as usize + (place - self.place) as usize
    }
}

/// The indices of a page.
#[derive(Debug)]
pub(crate) struct Stairs {
    steps: Vec<Step>,
    places: u32,
}

impl Stairs {
    /// Of a body as [`packing::put_indices`] makes; `None` if it has not so many, or these would take more than `bytes_max`.
    pub(crate) fn of(body: &[u8], places: usize, bytes_max: usize) -> Option<Self> {
        let steps_max = bytes_max / size_of::<Step>();
        let mut stairs = Self { steps: Vec::new(), places: u32::try_from(places).ok()? };
        let (width, packed) = packing::packed_indices(body)?;
        let done = match width {
            8 => stairs.climb(packed.iter().map(|byte| u32::from(*byte)), steps_max),
            16 => stairs.climb(packed.as_chunks().0.iter().map(|two| u32::from(u16::from_le_bytes(*two))), steps_max),
            32 => stairs.climb(packed.as_chunks().0.iter().map(|four| u32::from_le_bytes(*four)), steps_max),
            _ => None,
        };
        done?;
        stairs.steps.shrink_to_fit();
        Some(stairs)
    }

    fn climb(&mut self, indices: impl Iterator<Item = u32>, steps_max: usize) -> Option<()> {
        let (mut place, mut next) = (0, None);
        for index in indices.take(self.places as usize) {
            if next != Some(index) {
                if self.steps.len() == steps_max {
                    return None;
                }
                self.steps.push(Step { place, index });
            }
            (place, next) = (place + 1, index.checked_add(1));
        }
        (place == self.places).then_some(())
    }

    pub(crate) fn memory_bytes(&self) -> usize {
        self.steps.len() * size_of::<Step>()
    }

    /// Which step a place is on.
    fn step_at(&self, place: u32) -> Option<usize> {
        (place < self.places).then(|| self.steps.partition_point(|step| step.place <= place).checked_sub(1)).flatten()
    }

    /// The index at one place; `None` if it has none there.
    pub(crate) fn index_at(&self, place: usize) -> Option<u32> {
        let place = u32::try_from(place).ok()?;
        let step = self.steps.get(self.step_at(place)?)?;
        Some(step.index + (place - step.place))
    }

    /// Appends the entries at places `from .. to`.
    pub(crate) fn take_entries(
        &self,
        from: usize,
        to: usize,
        entries: &[i64],
        out: &mut Vec<i64>,
    ) -> Result<(), Unreadable> {
        const MISSING: Unreadable = Unreadable("indices are missing");
        const TOO_HIGH: Unreadable = Unreadable("an index is too high");
        if from >= to {
            return Ok(());
        }
        let to = u32::try_from(to).ok().filter(|to| *to <= self.places).ok_or(MISSING)?;
        let mut place = from as u32;
        let mut at = self.step_at(place).ok_or(MISSING)?;
        out.reserve((to - place) as usize);
        while place < to {
            let step = self.steps.get(at).ok_or(MISSING)?;
            let end = self.steps.get(at + 1).map_or(self.places, |next| next.place).min(to);
            let (low, high) = (step.index_at(place), step.index_at(end));
            out.extend_from_slice(entries.get(low..high).ok_or(TOO_HIGH)?);
            (place, at) = (end, at + 1);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn stairs_have_the_indices_that_they_were_made_of(
            runs in proptest::collection::vec((0u32..70_000, 1u32..40), 1..30),
            (first, second) in (0usize..1300, 0usize..1300),
            bytes in prop_oneof![Just(1usize), Just(2), Just(4)],
        ) {
            let limit = if bytes == 1 { 256 } else if bytes == 2 { 65_536 } else { u32::MAX };
            let indices: Vec<u32> =
                runs.iter().flat_map(|(index, count)| (0..*count).map(move |more| (index + more) % limit)).collect();
            let mut body = Vec::new();
            packing::put_indices(indices.len(), indices.iter().copied(), bytes, &mut body);
            let stairs = Stairs::of(&body, indices.len(), 1 << 20).expect("room enough");
            let entries: Vec<i64> = (0..71_000).map(|entry| entry * 3).collect();
            for (place, index) in indices.iter().enumerate() {
                prop_assert_eq!(stairs.index_at(place), Some(*index));
            }
            prop_assert_eq!(stairs.index_at(indices.len()), None);
            let (from, to) = (first.min(second), first.max(second));
            let mut out = Vec::new();
            let taken = stairs.take_entries(from, to, &entries, &mut out);
            if to > indices.len() && from < to {
                prop_assert!(taken.is_err());
            } else {
                prop_assert!(taken.is_ok());
                let expected: Vec<i64> =
                    indices.get(from..to).unwrap_or_default().iter().map(|index| entries[*index as usize]).collect();
                prop_assert_eq!(out, expected);
            }
            prop_assert!(stairs.take_entries(0, indices.len(), &[], &mut Vec::new()).is_err());
        }

        #[test]
        fn no_bytes_make_it_panic(body in proptest::collection::vec(any::<u8>(), 0..60), places in 0usize..80) {
            if let Some(stairs) = Stairs::of(&body, places, 1 << 10) {
                let _ = stairs.take_entries(0, places, &[1, 2, 3], &mut Vec::new());
            }
        }
    }

    #[test]
    fn it_takes_no_more_than_it_may() {
        let mut body = Vec::new();
        packing::put_indices(1000, [5; 1000].into_iter(), 2, &mut body);
        assert!(Stairs::of(&body, 1000, 7999).is_none() && Stairs::of(&body, 1000, 8000).is_some());
        assert!(Stairs::of(&body, 1009, 1 << 20).is_none(), "more than there are");
    }
}
