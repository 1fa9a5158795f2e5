//! How much memory the bodies of ingest may take at one time, in all and for one project.
//!
//! A body is admitted before it is read and again before it grows by decompression; what does not fit is told to come
//! back. One project can take half, so that its bombs leave the others their place.

use std::{collections::HashMap, sync::Arc};

use parking_lot::Mutex;

/// Bytes of all bodies together: a small part of the smallest machine, and more than 100 usual requests.
const BYTES_MAX: usize = 160 << 20;
/// Bytes of one project's bodies: more than the largest request takes.
const PROJECT_BYTES_MAX: usize = 80 << 20;

#[derive(Default)]
struct Held {
    bytes: usize,
    by_project: HashMap<Arc<str>, usize>,
}

/// What is held now, and how much may be.
#[derive(Clone)]
pub(crate) struct Admission {
    held: Arc<Mutex<Held>>,
    bytes_max: usize,
    project_bytes_max: usize,
}

impl Default for Admission {
    fn default() -> Self {
        Self::new(BYTES_MAX, PROJECT_BYTES_MAX)
    }
}

/// A place for so many bytes, until it is dropped.
pub(crate) struct Place {
    admission: Admission,
    project: Arc<str>,
    bytes: usize,
}

impl Admission {
    /// Nothing is held yet.
    pub(crate) fn new(bytes_max: usize, project_bytes_max: usize) -> Self {
        Self { held: Arc::default(), bytes_max, project_bytes_max }
    }

    /// A place for the bytes of a request; `None` if there is no room now.
    pub(crate) fn enter(&self, project: &str, bytes: usize) -> Option<Place> {
        let mut place = Place { admission: self.clone(), project: project.into(), bytes: 0 };
        place.grow(bytes).then_some(place)
    }
}

impl Place {
    /// Takes more; `false` if there is no room now.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let mut held = self.admission.held.lock();
        let own = held.by_project.get(&self.project).copied().unwrap_or(0);
        if held.bytes.saturating_add(bytes) > self.admission.bytes_max
            || own.saturating_add(bytes) > self.admission.project_bytes_max
        {
            return false;
        }
        held.bytes += bytes;
        held.by_project.insert(self.project.clone(), own + bytes);
        self.bytes += bytes;
        true
    }

    /// Whether it could grow so much if nobody else had a place.
    pub(crate) fn could_grow(&self, bytes: usize) -> bool {
        self.bytes.saturating_add(bytes) <= self.admission.project_bytes_max
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.admission.held.lock();
        held.bytes -= self.bytes;
        let own = held.by_project.get(&self.project).copied().unwrap_or(0) - self.bytes;
        if own == 0 {
            held.by_project.remove(&self.project);
        } else {
            held.by_project.insert(self.project.clone(), own);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_project_leaves_room_for_others() {
        let admission = Admission::default();
        let mut bombs: Vec<Place> = std::iter::from_fn(|| admission.enter("bomb", 8 << 20)).collect();
        assert_eq!(bombs.len(), PROJECT_BYTES_MAX / (8 << 20));
        let mut other = admission.enter("other", 1 << 20).expect("room");
        assert!(!bombs[0].grow(1) && other.grow(1 << 20));
        bombs.pop();
        assert!(bombs[0].grow(8 << 20));
        drop((bombs, other));
        assert_eq!(admission.held.lock().bytes, 0);
        assert!(admission.held.lock().by_project.is_empty());
    }
}
