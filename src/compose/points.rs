//! Points for exports over the API: each stream in a task of its own, which reads no faster than its client takes.

use std::{io, sync::Arc};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use orzo_api::{PointStream, PointsReader, PointsRefusal};
use orzo_names::{Flat, FlatWanted};
use serde_json::Value;
use tokio::sync::{Semaphore, mpsc};

/// Streams at once: each reads files as fast as it can, beside everything else that the server does.
const STREAMS_MAX: usize = 2;
/// Frames that wait for a client: about a MiB each.
const FRAMES_WAITING: usize = 4;

/// Reads them.
pub(super) struct Exports {
    flat: Flat,
    places: Arc<Semaphore>,
}

impl Exports {
    pub(super) fn new(flat: Flat) -> Self {
        Self { flat, places: Arc::new(Semaphore::new(STREAMS_MAX)) }
    }
}

#[async_trait]
impl PointsReader for Exports {
    async fn days(&self) -> Result<Vec<i64>, PointsRefusal> {
        self.flat.days().await.map_err(|error| PointsRefusal::Unavailable(error.to_string()))
    }

    fn stream(&self, wanted: Value) -> Result<PointStream, PointsRefusal> {
        let wanted: FlatWanted =
            serde_json::from_value(wanted).map_err(|error| PointsRefusal::Invalid(error.to_string()))?;
        let place = self.places.clone().try_acquire_owned();
        let place = place.map_err(|_| PointsRefusal::Busy(format!("{STREAMS_MAX} exports are running already")))?;
        let (sender, receiver) = mpsc::channel::<io::Result<Bytes>>(FRAMES_WAITING);
        let flat = self.flat.clone();
        tokio::spawn(async move {
            let frames = sender.clone();
            let outcome = flat
                .read(&wanted, |frame| {
                    let frames = frames.clone();
                    async move { frames.send(Ok(frame.into())).await.is_ok() }
                })
                .await;
            if let Err(error) = outcome {
                tracing::warn!(error = &error as &dyn std::error::Error, "an export of points ends early");
                // The client sees that its stream breaks; it may have gone, and then nobody waits.
                let _ = sender.send(Err(io::Error::other(error))).await;
            }
            drop(place);
        });
        let stream =
            futures::stream::unfold(receiver, |mut receiver| async { Some((receiver.recv().await?, receiver)) });
        Ok(stream.boxed())
    }
}
