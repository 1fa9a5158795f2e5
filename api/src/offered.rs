//! Counts what a request brings, so that it is conserved even if the request ends in the middle (the client goes away,
//! the deadline passes, a handler panics): what nobody decided about was given back to the sender.

use orzo_model::Room;

/// Measures, samples or events that a request offers and that are not decided about yet.
pub(crate) struct Offered {
    room: Room,
    waiting: u64,
}

impl Offered {
    /// `count` things came in.
    pub(crate) fn new(room: &Room, count: u64) -> Self {
        room.received(count);
        Self { room: room.clone(), waiting: count }
    }

    /// So many are durable.
    pub(crate) fn stored(&mut self, count: u64) {
        let count = self.take(count);
        self.room.stored(count);
    }

    /// So many are refused.
    pub(crate) fn refused(&mut self, reason: &str, count: u64) {
        let count = self.take(count);
        self.room.refused(reason, count);
    }

    /// So many were there already.
    pub(crate) fn repeated(&mut self, count: u64) {
        let count = self.take(count);
        self.room.dropped("repeated", count);
    }

    /// All that is left is refused.
    pub(crate) fn refused_all(mut self, reason: &str) {
        self.refused(reason, self.waiting);
    }

    /// All that is left is durable.
    pub(crate) fn stored_all(mut self) {
        self.stored(self.waiting);
    }

    fn take(&mut self, count: u64) -> u64 {
        let count = count.min(self.waiting);
        self.waiting -= count;
        count
    }
}

impl Drop for Offered {
    fn drop(&mut self) {
        if self.waiting > 0 {
            self.room.returned(self.waiting);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use orzo_model::{Rooms, rooms::Balance};

    #[test]
    fn what_nobody_decided_about_was_given_back() {
        let room = Rooms::new(&prometheus::Registry::new()).room("api");
        let mut offered = Offered::new(&room, 10);
        offered.stored(4);
        offered.refused("too late", 1);
        offered.repeated(2);
        drop(offered);
        assert_eq!(room.balance(), Balance { received: 10, stored: 4, refused: 1, dropped: 5, waiting: 0 });
        Offered::new(&room, 3).stored_all();
        Offered::new(&room, 2).refused_all("no");
        assert!(room.balance().is_conserved() && room.balance().waiting == 0);
    }
}
