//! Counts a query, so that it is conserved however it ends: answered, refused with a reason, or given up by whoever asked.

use orzo_model::Room;

use super::Answer;
use crate::error::SqlError;

/// A query that came in and has not ended.
pub(super) struct Counted {
    room: Room,
    is_ended: bool,
}

impl Counted {
    pub(super) fn new(room: &Room) -> Self {
        room.received(1);
        Self { room: room.clone(), is_ended: false }
    }

    pub(super) fn ended(mut self, outcome: &Result<Answer, SqlError>) {
        self.is_ended = true;
        match outcome {
            Ok(_) => self.room.stored(1),
            Err(error) => self.room.refused(error.kind(), 1),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        if !self.is_ended {
            self.room.dropped("given up", 1);
        }
    }
}
