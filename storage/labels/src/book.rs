//! The label sets of one project in memory: found by their fingerprint, and by what their labels are.
//!
//! Every different (name, value) is a *pair* with a number; a series is a list of pairs and has a *place*, counted in
//! the order in which series came. For each pair the places of its series are kept, ascending by nature. Series become
//! visible only when they are durable ([`Book::show`]). It does not know the disk.

mod find;
mod pairs;

use hashbrown::HashTable;
use orzo_model::SeriesId;
use twox_hash::XxHash3_128;

pub(crate) use self::pairs::PairId;
use self::pairs::Pairs;
pub(crate) use self::pairs::Texts;
use crate::{
    SharedLabels,
    set::{labels_of, write_label},
};

/// Bytes of the secret that fingerprints are made with; a whole default secret of the hash.
pub(crate) const SECRET_BYTES: usize = 192;

/// A label set's 128 bits. They live in this process only and are made with a secret, so that nobody can choose them.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Fingerprint {
    high: u64,
    low: u64,
}

/// What looking up the labels of one body brings, as long as its project's series are held still.
#[derive(Default)]
pub struct Met {
    /// Label sets that are written in another way than they are kept, and their series: a body often has many samples of
    /// one.
    otherwise: HashTable<(Fingerprint, SeriesId)>,
    /// The place behind the one that was found last: senders send series in the order in which they first did.
    next: usize,
}

impl Met {
    #[inline]
    fn find(&self, fingerprint: Fingerprint) -> Option<SeriesId> {
        self.otherwise.find(fingerprint.low, |(known, _)| *known == fingerprint).map(|(_, series)| *series)
    }

    pub(crate) fn insert(&mut self, fingerprint: Fingerprint, series: SeriesId) {
        if self.find(fingerprint).is_none() {
            self.otherwise.insert_unique(fingerprint.low, (fingerprint, series), |(known, _)| known.low);
        }
    }
}

/// One project's label sets.
pub(crate) struct Book {
    secret: [u8; SECRET_BYTES],
    /// Places that are visible and not deleted, by their fingerprints.
    known: HashTable<u32>,
    pairs: Pairs,
    /// By place.
    series: Vec<SeriesId>,
    /// By place; nothing where it is not visible yet, or deleted.
    fingerprints: Vec<Fingerprint>,
    /// Where in `members` the pairs of a place end.
    ends: Vec<u32>,
    members: Vec<PairId>,
    /// By pair.
    postings: Vec<Postings>,
    /// One bit a place: deleted.
    dead: Vec<u64>,
    dead_count: usize,
    /// Places from here on are not durable yet.
    visible: usize,
}

/// The places of a pair's series, ascending. Most pairs have one series, or very many.
enum Postings {
    One(u32),
    Many(Vec<u32>),
}

impl Postings {
    fn places(&self) -> &[u32] {
        match self {
            Self::One(place) => std::slice::from_ref(place),
            Self::Many(places) => places,
        }
    }

    fn push(&mut self, place: u32) {
        match self {
            Self::One(first) => *self = Self::Many(vec![*first, place]),
            Self::Many(places) => places.push(place),
        }
    }
}

/// There is no room for more in a book.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct BookFull;

/// What can be seen of a project's series, told apart from what could be seen at another moment of this process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Version {
    visible: usize,
    dead: usize,
}

/// A series that was put in and is not visible yet.
pub(crate) struct Added {
    place: u32,
    pub(crate) fingerprint: Fingerprint,
}

impl Book {
    pub(crate) fn new(secret: [u8; SECRET_BYTES]) -> Self {
        Self {
            secret,
            known: HashTable::new(),
            pairs: Pairs::default(),
            series: Vec::new(),
            fingerprints: Vec::new(),
            ends: Vec::new(),
            members: Vec::new(),
            postings: Vec::new(),
            dead: Vec::new(),
            dead_count: 0,
            visible: 0,
        }
    }

    /// The fingerprint of a label set in its one form.
    #[inline]
    pub(crate) fn fingerprint(&self, set: &[u8]) -> Fingerprint {
        let hash = XxHash3_128::oneshot_with_secret(&self.secret, set).expect("the secret is long enough");
        Fingerprint { high: (hash >> 64) as u64, low: hash as u64 }
    }

    /// The series of a label set.
    #[inline]
    pub(crate) fn look_up(&self, fingerprint: Fingerprint) -> Option<SeriesId> {
        self.place_of(fingerprint).map(|place| self.series[place])
    }

    /// The same; where the last one was found is remembered, and what has not been kept in these bytes is known if it was met.
    #[inline]
    pub(crate) fn look_up_next(&self, fingerprint: Fingerprint, met: &mut Met) -> Option<SeriesId> {
        let place = match self.fingerprints.get(met.next) {
            Some(expected) if *expected == fingerprint => met.next,
            _ => match self.place_of(fingerprint) {
                Some(place) => place,
                None => return met.find(fingerprint),
            },
        };
        met.next = place + 1;
        Some(self.series[place])
    }

    #[inline]
    fn place_of(&self, fingerprint: Fingerprint) -> Option<usize> {
        let is_it = |place: &u32| self.fingerprints[*place as usize] == fingerprint;
        self.known.find(fingerprint.low, is_it).map(|place| *place as usize)
    }

    /// Series that are there and not deleted, those that are not visible yet included.
    pub(crate) fn live(&self) -> usize {
        self.series.len() - self.dead_count
    }

    /// Deleted ones, whose memory is not free yet.
    pub(crate) fn dead(&self) -> usize {
        self.dead_count
    }

    /// Puts a series in that is not there yet; new pairs are given to `told` in the order of their numbers.
    pub(crate) fn add(
        &mut self,
        set: &[u8],
        series: SeriesId,
        members: &mut Vec<PairId>,
        mut told: impl FnMut(&[u8], &[u8]),
    ) -> Result<Added, BookFull> {
        let has_room =
            u32::try_from(self.series.len() + 1).is_ok() && u32::try_from(self.members.len() + set.len()).is_ok();
        if !has_room || !self.pairs.have_room_for(set.len()) {
            return Err(BookFull);
        }
        members.clear();
        for (name, value) in labels_of(set) {
            let (pair, is_new) = self.pairs.intern(name, value).ok_or(BookFull)?;
            if is_new {
                told(name, value);
            }
            members.push(pair);
        }
        let place = self.place(series, members);
        Ok(Added { place, fingerprint: self.fingerprint(set) })
    }

    /// Gives a series the next place.
    fn place(&mut self, series: SeriesId, members: &[PairId]) -> u32 {
        let place = self.series.len() as u32;
        self.series.push(series);
        self.fingerprints.push(Fingerprint::default());
        self.members.extend_from_slice(members);
        self.ends.push(self.members.len() as u32);
        for pair in members {
            match self.postings.get_mut(pair.0 as usize) {
                Some(postings) => postings.push(place),
                // Pairs are numbered in the order in which they first come, so this one is the next.
                None => self.postings.push(Postings::One(place)),
            }
        }
        if self.dead.len() * 64 < self.series.len() {
            self.dead.push(0);
        }
        place
    }

    /// Series are added and buried, and nothing else ever happens to them: how many there are of both says all.
    pub(crate) fn version(&self) -> Version {
        Version { visible: self.visible, dead: self.dead_count }
    }

    /// Makes everything visible that was put in. It is durable now.
    pub(crate) fn show(&mut self, added: impl Iterator<Item = Added>) {
        let Self { known, fingerprints, .. } = self;
        for Added { place, fingerprint } in added {
            fingerprints[place as usize] = fingerprint;
            known.insert_unique(fingerprint.low, place, |place| fingerprints[*place as usize].low);
        }
        self.visible = self.series.len();
    }

    /// A pair as it was written; `false` if it cannot be one.
    pub(crate) fn restore_pair(&mut self, name: &[u8], value: &[u8]) -> bool {
        matches!(self.pairs.intern(name, value), Some((_, true)))
    }

    /// A series as it was written; `false` if it names pairs that are not there.
    pub(crate) fn restore_series(&mut self, series: SeriesId, members: &[PairId], set: &mut Vec<u8>) -> bool {
        set.clear();
        for pair in members {
            let Some((name, value)) = self.pairs.get(*pair) else { return false };
            write_label(set, name, value);
        }
        // Pairs get their places in the order of their numbers.
        let new = members.iter().filter(|pair| pair.0 as usize >= self.postings.len());
        if !new.clone().zip(self.postings.len()..).all(|(pair, next)| pair.0 as usize == next) {
            return false;
        }
        let place = self.place(series, members);
        let fingerprint = self.fingerprint(set);
        self.show([Added { place, fingerprint }].into_iter());
        true
    }

    /// Takes series out of every answer; gives how many there were.
    pub(crate) fn bury(&mut self, places: &[u32]) -> usize {
        let mut buried = 0;
        for &place in places {
            let (word, bit) = (place as usize / 64, 1u64 << (place % 64));
            if self.dead[word] & bit != 0 {
                continue;
            }
            self.dead[word] |= bit;
            buried += 1;
            let fingerprint = std::mem::take(&mut self.fingerprints[place as usize]);
            if let Ok(entry) = self.known.find_entry(fingerprint.low, |known| *known == place) {
                entry.remove();
            }
        }
        self.dead_count += buried;
        buried
    }

    /// Places of series by their numbers, ascending; for what the log says was deleted.
    pub(crate) fn places_of(&self, series: &std::collections::HashSet<SeriesId>) -> Vec<u32> {
        let is_one = |place: &usize| series.contains(&self.series[*place]);
        (0..self.series.len()).filter(is_one).map(|place| place as u32).collect()
    }

    fn is_dead(&self, place: u32) -> bool {
        self.dead[place as usize / 64] & (1 << (place % 64)) != 0
    }

    /// The pairs of a place.
    fn members(&self, place: u32) -> &[PairId] {
        let place = place as usize;
        let start = if place == 0 { 0 } else { self.ends[place - 1] as usize };
        &self.members[start..self.ends[place] as usize]
    }

    fn write_set(&self, place: u32, set: &mut Vec<u8>) {
        set.clear();
        for pair in self.members(place) {
            let (name, value) = self.pairs.get(*pair).expect("a member is a pair");
            write_label(set, name, value);
        }
    }

    /// The number of the series at a place.
    pub(crate) fn series_at(&self, place: u32) -> SeriesId {
        self.series[place as usize]
    }

    /// Labels of a place, by name.
    pub(crate) fn labels_at(&self, place: u32) -> Vec<(String, String)> {
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        let label = |pair: &PairId| {
            let (name, value) = self.pairs.get(*pair).expect("a member is a pair");
            (text(name), text(value))
        };
        self.members(place).iter().map(label).collect()
    }

    /// Labels of a place, by name, in texts that are shared.
    pub(crate) fn texts_at(&self, place: u32, texts: &mut Texts) -> SharedLabels {
        self.members(place).iter().map(|pair| self.pairs.texts(*pair, texts).expect("a member is a pair")).collect()
    }

    /// Every live and visible series with its set, in the order of places.
    pub(crate) fn each_live(&self, mut each: impl FnMut(SeriesId, &[u8])) {
        let mut set = Vec::new();
        for place in 0..self.visible as u32 {
            if !self.is_dead(place) {
                self.write_set(place, &mut set);
                each(self.series[place as usize], &set);
            }
        }
    }

    /// Bytes that it takes, about.
    pub(crate) fn memory_bytes(&self) -> usize {
        let many = |postings: &Postings| match postings {
            Postings::One(_) => 0,
            Postings::Many(places) => places.capacity() * 4,
        };
        self.known.capacity() * (size_of::<u32>() + 1)
            + self.fingerprints.capacity() * size_of::<Fingerprint>()
            + self.pairs.memory_bytes()
            + self.series.capacity() * size_of::<SeriesId>()
            + (self.ends.capacity() + self.members.capacity()) * 4
            + self.postings.capacity() * size_of::<Postings>()
            + self.postings.iter().map(many).sum::<usize>()
            + self.dead.capacity() * 8
    }
}

#[cfg(test)]
mod tests;
