//! What is kept on this machine of files whose home is elsewhere. Pure: it knows names, sizes and the order of use, and says
//! what goes.

use std::{
    collections::{BTreeMap, HashMap},
    path::{Path, PathBuf},
    sync::Arc,
};

/// Held by whoever has a file open.
pub(super) type Open = Arc<()>;

/// The files that are here, by when they were last used.
#[derive(Debug)]
pub(super) struct Cache {
    bytes_max: u64,
    bytes: u64,
    kept: HashMap<PathBuf, Kept>,
    /// By the number of their last use; no number twice.
    order: BTreeMap<u64, PathBuf>,
    uses: u64,
}

#[derive(Debug)]
struct Kept {
    bytes: u64,
    used: u64,
    open: Open,
}

impl Cache {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, bytes: 0, kept: HashMap::new(), order: BTreeMap::new(), uses: 0 }
    }

    /// Bytes of all of them.
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Notes a use; `None` if the file is not here. What is given keeps it from being chosen.
    pub(super) fn used(&mut self, path: &Path) -> Option<Open> {
        let kept = self.kept.get_mut(path)?;
        self.order.remove(&kept.used);
        self.uses += 1;
        kept.used = self.uses;
        self.order.insert(self.uses, path.to_owned());
        Some(kept.open.clone())
    }

    /// A file is here now, and was just used.
    pub(super) fn add(&mut self, path: &Path, bytes: u64) -> Open {
        self.forget(path);
        self.uses += 1;
        let open = Open::default();
        self.kept.insert(path.to_owned(), Kept { bytes, used: self.uses, open: open.clone() });
        self.order.insert(self.uses, path.to_owned());
        self.bytes += bytes;
        open
    }

    /// A file is not here any more; whether it was.
    pub(super) fn forget(&mut self, path: &Path) -> bool {
        let Some(kept) = self.kept.remove(path) else { return false };
        self.order.remove(&kept.used);
        self.bytes -= kept.bytes;
        true
    }

    /// Its length, if it is here.
    pub(super) fn length(&self, path: &Path) -> Option<u64> {
        self.kept.get(path).map(|kept| kept.bytes)
    }

    /// The names that are here and lie in this directory, or in one in it.
    pub(super) fn below(&self, directory: &Path) -> Vec<PathBuf> {
        self.kept.keys().filter(|path| path.starts_with(directory)).cloned().collect()
    }

    /// The file to give up so that `more` bytes fit: the one whose last use is the longest ago and that nobody has open.
    /// `None` if they fit, or if there is none.
    pub(super) fn outdated(&self, more: u64) -> Option<PathBuf> {
        if self.bytes.saturating_add(more) <= self.bytes_max {
            return None;
        }
        self.oldest()
    }

    /// As [`Self::outdated`], however much fits.
    pub(super) fn oldest(&self) -> Option<PathBuf> {
        let is_open = |path: &Path| self.kept.get(path).is_none_or(|kept| Arc::strong_count(&kept.open) > 1);
        self.order.values().find(|path| !is_open(path)).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_used_the_longest_ago_goes_first_and_what_is_open_stays() {
        let mut cache = Cache::new(100);
        let path = |name: &str| PathBuf::from(format!("/samples/{name}"));
        let _a = cache.add(&path("a"), 40);
        drop(cache.add(&path("b"), 40));
        drop(cache.add(&path("c"), 20));
        assert_eq!((cache.bytes(), cache.outdated(0)), (100, None));
        assert_eq!(cache.outdated(1), Some(path("b")), "a is open");
        drop(cache.used(&path("b")));
        assert_eq!(cache.outdated(1), Some(path("c")));
        assert!(cache.forget(&path("c")) && !cache.forget(&path("c")));
        assert_eq!((cache.bytes(), cache.length(&path("c")), cache.outdated(20)), (80, None, None));
        assert_eq!(cache.outdated(21), Some(path("b")));
        // The same name again is counted once.
        drop(cache.add(&path("b"), 10));
        assert_eq!(cache.bytes(), 50);
        assert_eq!(cache.below(Path::new("/samples")).len(), 2);
        drop(_a);
        assert_eq!(cache.outdated(1000), Some(path("a")));
    }
}
