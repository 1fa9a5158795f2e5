//! Pages of files that were read lately, unpacked: dashboards ask for the same hours again and again. Pure memory.
//!
//! Files never change, so a page is known by its file's checksum and its place, and nothing has to be forgotten when a file
//! goes. Bounded in bytes: when the young half is full the old half goes, and what is asked for again becomes young. Stairs
//! have room of their own: a month of one series goes through more pages of values than there is room for, and they would
//! take the times with them, which every series of a file shares.

use std::{
    collections::HashMap,
    sync::{
        Arc, OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use super::{
    deltas::Marks,
    packing::{self, Unreadable},
    stairs::Stairs,
};

/// Memory of all pages but stairs: what some hundred dashboards look at, and little beside a head.
const BYTES_MAX: usize = 28 << 20;
/// Memory of stairs: a step takes eight bytes, so these are all steps of half a million series and days.
const STAIRS_BYTES_MAX: usize = 4 << 20;

/// Another form is kept if it takes no more than one in so many bytes of a page.
const STAIRS_SHARE: usize = 4;

/// A file's checksum, and where the page begins in it.
pub(crate) type PageKey = (u128, u64);

/// A page as its writer packed it, and where its blocks of differences begin, once somebody wanted to know twice.
#[derive(Debug)]
pub(crate) struct Unpacked {
    body: Body,
    differences: usize,
    was_asked: AtomicBool,
    marks: OnceLock<Marks>,
}

#[derive(Debug)]
enum Body {
    Packed(Bytes),
    /// Indices that rise by one and one, which take two bytes for each as they are packed.
    Stairs(Stairs),
}

impl Unpacked {
    /// `differences`: how many values it has as differences, for which there may be marks.
    pub(crate) fn new(bytes: Bytes, differences: usize) -> Self {
        Self { body: Body::Packed(bytes), differences, was_asked: AtomicBool::new(false), marks: OnceLock::new() }
    }

    /// Indices of so many rows, in less memory than they are packed in, where that can be.
    pub(crate) fn of_indices(bytes: Bytes, rows: usize) -> Self {
        match Stairs::of(&bytes, rows, bytes.len() / STAIRS_SHARE) {
            Some(stairs) => Self { body: Body::Stairs(stairs), ..Self::new(Bytes::new(), 0) },
            None => Self::new(bytes, 0),
        }
    }

    /// The page as it was packed; empty if it is kept in another form.
    pub(crate) fn bytes(&self) -> &[u8] {
        match &self.body {
            Body::Packed(bytes) => bytes,
            Body::Stairs(_) => &[],
        }
    }

    /// The index at a place of a page of indices; `None` if it has none there.
    pub(crate) fn index_at(&self, place: usize) -> Option<u32> {
        match &self.body {
            Body::Packed(bytes) => packing::index_at(bytes, place),
            Body::Stairs(stairs) => stairs.index_at(place),
        }
    }

    /// Appends the entries at places `from .. to` of a page of indices, which rise from place to place.
    pub(crate) fn take_entries(
        &self,
        from: usize,
        to: usize,
        entries: &[i64],
        out: &mut Vec<i64>,
    ) -> Result<(), Unreadable> {
        match &self.body {
            Body::Packed(bytes) => packing::take_entries(bytes, from, to, entries, out),
            Body::Stairs(stairs) => stairs.take_entries(from, to, entries, out),
        }
    }

    /// Marks of the differences that begin at this byte, which is the same for every caller. None for the first one: to
    /// make them goes through the whole page, which is more than what a single read skips.
    pub(crate) fn marks(&self, from: usize) -> Option<&Marks> {
        if !self.was_asked.swap(true, Ordering::Relaxed) {
            return None;
        }
        Some(self.marks.get_or_init(|| Marks::of(self.bytes().get(from..).unwrap_or_default())))
    }

    /// What it takes at most, marks included.
    fn memory_bytes(&self) -> usize {
        let body = match &self.body {
            Body::Packed(bytes) => bytes.len(),
            Body::Stairs(stairs) => stairs.memory_bytes(),
        };
        body + Marks::memory_bytes(self.differences)
    }
}

/// All pages that are kept.
pub(crate) struct Pages {
    packed: Halves,
    stairs: Halves,
}

impl Default for Pages {
    fn default() -> Self {
        Self { packed: Halves::of(BYTES_MAX), stairs: Halves::of(STAIRS_BYTES_MAX) }
    }
}

impl Pages {
    pub(crate) fn get(&mut self, key: &PageKey) -> Option<Arc<Unpacked>> {
        self.stairs.get(key).or_else(|| self.packed.get(key))
    }

    pub(crate) fn keep(&mut self, key: PageKey, page: Arc<Unpacked>) {
        match page.body {
            Body::Packed(_) => self.packed.keep(key, page),
            Body::Stairs(_) => self.stairs.keep(key, page),
        }
    }
}

struct Halves {
    bytes_max: usize,
    young: HashMap<PageKey, Arc<Unpacked>>,
    young_bytes: usize,
    old: HashMap<PageKey, Arc<Unpacked>>,
}

impl Halves {
    fn of(bytes_max: usize) -> Self {
        Self { bytes_max, young: HashMap::new(), young_bytes: 0, old: HashMap::new() }
    }

    fn get(&mut self, key: &PageKey) -> Option<Arc<Unpacked>> {
        if let Some(page) = self.young.get(key) {
            return Some(page.clone());
        }
        let page = self.old.remove(key)?;
        self.keep(*key, page.clone());
        Some(page)
    }

    fn keep(&mut self, key: PageKey, page: Arc<Unpacked>) {
        let bytes = page.memory_bytes();
        if bytes > self.bytes_max / 4 {
            return;
        }
        if self.young_bytes + bytes > self.bytes_max / 2 {
            self.old = std::mem::take(&mut self.young);
            self.young_bytes = 0;
        }
        self.young_bytes += bytes;
        if let Some(before) = self.young.insert(key, page) {
            self.young_bytes -= before.memory_bytes();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_is_bounded_and_what_is_asked_for_stays() {
        let mut pages = Pages::default();
        let page = Arc::new(Unpacked::new(Bytes::from(vec![0; 1 << 20]), 0));
        pages.keep((7, 0), page.clone());
        for at in 0..200 {
            assert!(pages.get(&(7, 0)).is_some(), "it was asked for a moment ago");
            pages.keep((8, at), page.clone());
            let bytes = (pages.packed.young.len() + pages.packed.old.len()) << 20;
            assert!(bytes <= BYTES_MAX, "{bytes}");
        }
        assert!(pages.get(&(8, 0)).is_none() && pages.get(&(8, 199)).is_some());
        pages.keep((9, 0), Arc::new(Unpacked::new(Bytes::from(vec![0; BYTES_MAX]), 0)));
        assert!(pages.get(&(9, 0)).is_none());
    }

    #[test]
    fn times_stay_while_a_month_of_values_goes_through() {
        let mut pages = Pages::default();
        let mut body = Vec::new();
        packing::put_indices(10_000, (0..10_000).map(|place| place % 288), 2, &mut body);
        pages.keep((7, 0), Arc::new(Unpacked::of_indices(Bytes::from(body), 10_000)));
        for at in 0..200 {
            pages.keep((8, at), Arc::new(Unpacked::new(Bytes::from(vec![0; 1 << 20]), 0)));
        }
        let times = pages.get(&(7, 0)).expect("it has room of its own");
        assert_eq!((times.index_at(287), times.index_at(288)), (Some(287), Some(0)));
    }
}
