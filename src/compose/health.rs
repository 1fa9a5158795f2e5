//! Whether every room can work: what `/readyz` tells.

use std::sync::Arc;

use async_trait::async_trait;
use orzo_api::{Readiness, RoomState};
use orzo_bus::Bus;
use orzo_database::Database;
use orzo_store::Store;

/// The rooms that can be unwell.
pub(super) struct Health {
    pub(super) database: Database,
    pub(super) bus: Arc<dyn Bus>,
    /// None in an evaluator alone.
    pub(super) store: Option<Arc<Store>>,
}

#[async_trait]
impl Readiness for Health {
    async fn rooms(&self) -> Vec<RoomState> {
        let database = self.database.query("SELECT 1 AS one", &[]).await;
        let bus = self.bus.is_connected().await;
        let mut rooms = vec![
            RoomState {
                room: "database".into(),
                ready: database.is_ok(),
                reason: database.map_or_else(|error| error.to_string(), |_| self.database.kind().into()),
            },
            RoomState {
                room: "bus".into(),
                ready: bus,
                reason: if bus { self.bus.kind().into() } else { format!("{}: not connected", self.bus.kind()) },
            },
        ];
        if let Some(store) = &self.store {
            let closed = store.closed_because();
            rooms.push(RoomState {
                room: "store".into(),
                ready: closed.is_none(),
                reason: closed.unwrap_or_else(|| "open".into()),
            });
        }
        rooms
    }
}
