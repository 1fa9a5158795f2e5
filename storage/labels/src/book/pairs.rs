//! Every different (name, value) once, with a number.
//!
//! Names are few and kept apart; of a pair only the value's text is kept.

use std::{collections::BTreeMap, hash::BuildHasher, sync::Arc};

use hashbrown::{DefaultHashBuilder, HashMap, HashTable};

/// Number of a (name, value), counted from 0 within its project.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct PairId(pub(crate) u32);

/// Where a value's text is, and whose value it is.
#[derive(Clone, Copy)]
struct Pair {
    start: u32,
    length: u16,
    name: u16,
}

/// A label's name and its pairs, in the order of their numbers.
struct Name {
    text: Box<[u8]>,
    pairs: Vec<PairId>,
}

/// Texts of names and pairs that one answer has used already.
#[derive(Default)]
pub(crate) struct Texts {
    of_names: HashMap<u16, Arc<str>>,
    of_pairs: HashMap<u32, (Arc<str>, Arc<str>)>,
}

/// A label takes at least so many bytes of its set: two keys and a length, and each part's length and text.
const LABEL_BYTES_MIN: usize = 8;

/// The pairs of one project.
#[derive(Default)]
pub(crate) struct Pairs {
    hasher: DefaultHashBuilder,
    names: Vec<Name>,
    by_name: BTreeMap<Box<[u8]>, u16>,
    text: Vec<u8>,
    pairs: Vec<Pair>,
    by_pair: HashTable<u32>,
}

impl Pairs {
    /// Whether a set of so many bytes fits, whatever its names and values are.
    pub(crate) fn have_room_for(&self, bytes: usize) -> bool {
        u32::try_from(self.text.len() + bytes).is_ok()
            && u32::try_from(self.pairs.len() + bytes).is_ok()
            && u16::try_from(self.names.len() + bytes / LABEL_BYTES_MIN).is_ok()
    }

    /// The number of a pair, and whether it is new. `None` if there are too many names.
    pub(crate) fn intern(&mut self, name: &[u8], value: &[u8]) -> Option<(PairId, bool)> {
        let name = match self.by_name.get(name) {
            Some(name) => *name,
            None => {
                let number = u16::try_from(self.names.len()).ok()?;
                self.names.push(Name { text: name.into(), pairs: Vec::new() });
                self.by_name.insert(name.into(), number);
                number
            }
        };
        let hash = hash(&self.hasher, name, value);
        if let Some(pair) = self.find_hashed(hash, name, value) {
            return Some((pair, false));
        }
        let pair = PairId(u32::try_from(self.pairs.len()).ok()?);
        let (start, length) = (u32::try_from(self.text.len()).ok()?, u16::try_from(value.len()).ok()?);
        self.text.extend_from_slice(value);
        self.pairs.push(Pair { start, length, name });
        self.names[usize::from(name)].pairs.push(pair);
        let Self { hasher, text, pairs, by_pair, .. } = self;
        let again = |pair: &u32| {
            let pair = pairs[*pair as usize];
            hash_of(hasher, text, pair)
        };
        by_pair.insert_unique(hash, pair.0, again);
        Some((pair, true))
    }

    /// The number of a pair, if it is there.
    pub(crate) fn find(&self, name: &str, value: &str) -> Option<PairId> {
        let name = *self.by_name.get(name.as_bytes())?;
        self.find_hashed(hash(&self.hasher, name, value.as_bytes()), name, value.as_bytes())
    }

    fn find_hashed(&self, hash: u64, name: u16, value: &[u8]) -> Option<PairId> {
        let is_it = |pair: &u32| {
            let pair = self.pairs[*pair as usize];
            pair.name == name && self.value(pair) == value
        };
        self.by_pair.find(hash, is_it).map(|pair| PairId(*pair))
    }

    fn value(&self, pair: Pair) -> &[u8] {
        &self.text[pair.start as usize..pair.start as usize + usize::from(pair.length)]
    }

    /// Name and value of a pair.
    pub(crate) fn get(&self, pair: PairId) -> Option<(&[u8], &[u8])> {
        let pair = *self.pairs.get(pair.0 as usize)?;
        Some((&self.names[usize::from(pair.name)].text, self.value(pair)))
    }

    /// Name and value of a pair, in texts that all series of one answer share.
    pub(crate) fn texts(&self, pair: PairId, texts: &mut Texts) -> Option<(Arc<str>, Arc<str>)> {
        if let Some(known) = texts.of_pairs.get(&pair.0) {
            return Some(known.clone());
        }
        let number = self.pairs.get(pair.0 as usize)?.name;
        let (name, value) = self.get(pair)?;
        let shared = |bytes: &[u8]| Arc::from(String::from_utf8_lossy(bytes));
        let name = texts.of_names.entry(number).or_insert_with(|| shared(name)).clone();
        let both = (name, shared(value));
        texts.of_pairs.insert(pair.0, both.clone());
        Some(both)
    }

    /// The pairs of a name.
    pub(crate) fn of_name(&self, name: &str) -> &[PairId] {
        self.by_name.get(name.as_bytes()).map_or(&[], |name| &self.names[usize::from(*name)].pairs)
    }

    /// All names, sorted, with their pairs.
    pub(crate) fn names(&self) -> impl Iterator<Item = (&[u8], &[PairId])> {
        self.by_name.iter().map(|(text, name)| (&**text, self.names[usize::from(*name)].pairs.as_slice()))
    }

    /// Bytes that it takes, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        self.text.capacity()
            + self.pairs.capacity() * size_of::<Pair>()
            + self.by_pair.capacity() * 5
            + self.names.iter().map(|name| name.pairs.capacity() * 4 + 100).sum::<usize>()
    }
}

fn hash(hasher: &DefaultHashBuilder, name: u16, value: &[u8]) -> u64 {
    hasher.hash_one((name, value))
}

fn hash_of(hasher: &DefaultHashBuilder, text: &[u8], pair: Pair) -> u64 {
    let start = pair.start as usize;
    hash(hasher, pair.name, &text[start..start + usize::from(pair.length)])
}
