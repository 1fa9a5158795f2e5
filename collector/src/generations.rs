//! A bounded memory of what was seen lately: two generations, of which the older is forgotten when the younger is full.
//! It holds between one and two generations' worth, costs one lookup or two, and never stops to clean up.

use std::{collections::HashMap, hash::Hash};

/// A map that forgets what has not been touched for long.
#[derive(Debug)]
pub(crate) struct Generations<K, V> {
    young: HashMap<K, V>,
    old: HashMap<K, V>,
    generation_max: usize,
}

impl<K: Eq + Hash, V> Generations<K, V> {
    /// Remembers at least the last `generation_max` keys, at most twice as many.
    pub(crate) fn new(generation_max: usize) -> Self {
        Self { young: HashMap::new(), old: HashMap::new(), generation_max: generation_max.max(1) }
    }

    pub(crate) fn get(&self, key: &K) -> Option<&V> {
        self.young.get(key).or_else(|| self.old.get(key))
    }

    pub(crate) fn contains(&self, key: &K) -> bool {
        self.get(key).is_some()
    }

    pub(crate) fn insert(&mut self, key: K, value: V) {
        if self.young.len() >= self.generation_max && !self.young.contains_key(&key) {
            self.old = std::mem::take(&mut self.young);
        }
        self.young.insert(key, value);
    }

    #[cfg(test)]
    fn len(&self) -> usize {
        self.young.len() + self.old.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn remembers_the_last_ones_and_stays_bounded() {
        let mut memory = Generations::new(10);
        for number in 0..1000u32 {
            memory.insert(number, number);
            assert!(memory.len() <= 20);
            for recent in number.saturating_sub(9)..=number {
                assert_eq!(memory.get(&recent), Some(&recent));
            }
        }
        assert!(!memory.contains(&900));
    }
}
