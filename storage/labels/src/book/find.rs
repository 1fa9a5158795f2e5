//! From matchers to series: the places of pairs, united, intersected and taken away.
//!
//! Labels that must be there choose, the smallest choice first; labels that must not be so take away. Of few places each
//! is looked at, of many a bit set is made.

use std::collections::BTreeSet;

use super::{Book, PairId};
use crate::Matcher;

/// Looking at the labels of one place costs about as much as going through so many places of a list.
const LOOK_COST: usize = 16;

/// Pairs that matter to one matcher, and how many places they have together.
struct Choice {
    pairs: Vec<PairId>,
    places: usize,
}

impl Book {
    /// Places of live and visible series that all matchers accept, ascending.
    pub(crate) fn find(&self, matchers: &[Matcher]) -> Vec<u32> {
        let (mut wanted, mut unwanted) = (Vec::new(), Vec::new());
        for matcher in matchers {
            if matcher.accepts("") {
                unwanted.push(self.choice(matcher, false));
            } else {
                wanted.push(self.choice(matcher, true));
            }
        }
        wanted.sort_by_key(|choice| choice.places);
        let mut wanted = wanted.into_iter();
        let mut places = match wanted.next() {
            Some(first) => self.unite(&first),
            None => (0..self.visible as u32).collect(),
        };
        for choice in wanted {
            self.keep(&mut places, &choice, true);
        }
        for choice in unwanted {
            self.keep(&mut places, &choice, false);
        }
        places.retain(|place| (*place as usize) < self.visible && !self.is_dead(*place));
        places
    }

    /// The pairs of a matcher's label that it accepts, or those that it does not.
    fn choice(&self, matcher: &Matcher, accepted: bool) -> Choice {
        let one = if accepted { matcher.only() } else { matcher.all_but() };
        let pairs: Vec<PairId> = match one {
            Some(values) => {
                let mut pairs: Vec<PairId> =
                    values.iter().filter_map(|value| self.pairs.find(matcher.name(), value)).collect();
                // As the pairs of a name are.
                pairs.sort_unstable();
                pairs
            }
            None => {
                let value = |pair: PairId| self.pairs.get(pair).map_or(&[][..], |(_, value)| value);
                let is_one = |pair: &&PairId| {
                    std::str::from_utf8(value(**pair)).is_ok_and(|value| matcher.accepts(value)) == accepted
                };
                self.pairs.of_name(matcher.name()).iter().filter(is_one).copied().collect()
            }
        };
        let places = pairs.iter().map(|pair| self.places(*pair).len()).sum();
        Choice { pairs, places }
    }

    /// Places of a pair. One that was read from the log without a series has none.
    fn places(&self, pair: PairId) -> &[u32] {
        self.postings.get(pair.0 as usize).map_or(&[], |postings| postings.places())
    }

    fn unite(&self, choice: &Choice) -> Vec<u32> {
        match &choice.pairs[..] {
            [] => Vec::new(),
            [one] => self.places(*one).to_vec(),
            // A series has one value of a label, so no place comes twice.
            several => {
                let mut places = Vec::with_capacity(choice.places);
                several.iter().for_each(|pair| places.extend_from_slice(self.places(*pair)));
                places.sort_unstable();
                places
            }
        }
    }

    /// Keeps the places that have one of these pairs, or those that have none.
    fn keep(&self, places: &mut Vec<u32>, choice: &Choice, having: bool) {
        if places.len().saturating_mul(LOOK_COST) < choice.places {
            // The pairs of a name are in the order of their numbers.
            let has = |place: u32| self.members(place).iter().any(|pair| choice.pairs.binary_search(pair).is_ok());
            places.retain(|place| has(*place) == having);
        } else {
            let mut bits = vec![0u64; self.series.len().div_ceil(64)];
            for pair in &choice.pairs {
                for place in self.places(*pair) {
                    bits[*place as usize / 64] |= 1 << (place % 64);
                }
            }
            places.retain(|place| (bits[*place as usize / 64] & (1 << (place % 64)) != 0) == having);
        }
    }

    /// Names of labels that these places have, or that any series has.
    pub(crate) fn names(&self, places: Option<&[u32]>, names: &mut BTreeSet<String>) {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        match places {
            None => {
                for (name, pairs) in self.pairs.names() {
                    if pairs.iter().any(|pair| self.is_used(*pair)) {
                        names.insert(text(name));
                    }
                }
            }
            Some(places) => {
                let pairs: BTreeSet<PairId> = places.iter().flat_map(|place| self.members(*place)).copied().collect();
                names.extend(pairs.into_iter().filter_map(|pair| self.pairs.get(pair)).map(|(name, _)| text(name)));
            }
        }
    }

    /// Values of a label that these places have, or that any series has.
    pub(crate) fn values(&self, name: &str, places: Option<&[u32]>, values: &mut BTreeSet<String>) {
        let of_name = self.pairs.of_name(name);
        let mut add = |pair: PairId| {
            if let Some((_, value)) = self.pairs.get(pair) {
                values.insert(String::from_utf8_lossy(value).into_owned());
            }
        };
        match places {
            None => of_name.iter().filter(|pair| self.is_used(**pair)).for_each(|pair| add(*pair)),
            Some(places) => {
                let members = places.iter().flat_map(|place| self.members(*place));
                let pairs: BTreeSet<PairId> =
                    members.filter(|pair| of_name.binary_search(pair).is_ok()).copied().collect();
                pairs.into_iter().for_each(add);
            }
        }
    }

    fn is_used(&self, pair: PairId) -> bool {
        let is_there = |place: &u32| (*place as usize) < self.visible && !self.is_dead(*place);
        self.places(pair).iter().any(is_there)
    }
}
