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

/// What is held now.
#[derive(Clone, Default)]
pub(crate) struct Admission(Arc<Mutex<Held>>);

/// A place for so many bytes, until it is dropped.
pub(crate) struct Place {
    held: Arc<Mutex<Held>>,
    project: Arc<str>,
    bytes: usize,
}

impl Admission {
    /// A place for the bytes of a request; `None` if there is no room now.
    pub(crate) fn enter(&self, project: &str, bytes: usize) -> Option<Place> {
        let mut place = Place { held: self.0.clone(), project: project.into(), bytes: 0 };
        place.grow(bytes).then_some(place)
    }
}

impl Place {
    /// Takes more; `false` if there is no room now.
    pub(crate) fn grow(&mut self, bytes: usize) -> bool {
        let mut held = self.held.lock();
        let own = held.by_project.get(&self.project).copied().unwrap_or(0);
        if held.bytes + bytes > BYTES_MAX || own + bytes > PROJECT_BYTES_MAX {
            return false;
        }
        held.bytes += bytes;
        held.by_project.insert(self.project.clone(), own + bytes);
        self.bytes += bytes;
        true
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut held = self.held.lock();
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
        assert_eq!(admission.0.lock().bytes, 0);
        assert!(admission.0.lock().by_project.is_empty());
    }
}
