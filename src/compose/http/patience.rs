//! A request's body that must keep coming: a client may be slow, but it may not hold a place for ever.
//!
//! Only time that is spent waiting for the client counts, so that a busy disk behind an upload is not held against it.

use std::{
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    task::{Context, Poll},
    time::Duration,
};

use axum::{
    BoxError,
    body::{Bytes, HttpBody},
};
use hyper::body::{Frame, SizeHint};
use tokio::time::Sleep;

/// How long a body is waited for, together.
pub(super) const PATIENCE: Duration = Duration::from_secs(30);
/// Every so many bytes earn another second, up to the whole patience: an upload may take hours, one byte a second may not.
const BYTES_PER_SECOND_MIN: u64 = 4096;

/// The body; an error where it came too slowly.
pub(super) struct PatientBody<B> {
    inner: B,
    most: Duration,
    left: Duration,
    waiting: Option<Pin<Box<Sleep>>>,
    has_ended: Arc<AtomicBool>,
}

impl<B> PatientBody<B> {
    /// `most`: how long it is waited for at a time. `has_ended` becomes true when all of it has been read.
    pub(super) fn new(inner: B, most: Duration, has_ended: Arc<AtomicBool>) -> Self {
        Self { inner, most, left: most, waiting: None, has_ended }
    }
}

impl<B> HttpBody for PatientBody<B>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<BoxError>,
{
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        let Poll::Ready(frame) = Pin::new(&mut self.inner).poll_frame(context) else {
            let left = self.left;
            let waiting = self.waiting.get_or_insert_with(|| Box::pin(tokio::time::sleep(left)));
            return waiting.as_mut().poll(context).map(|()| Some(Err("the body came too slowly".into())));
        };
        if let Some(waited) = self.waiting.take() {
            let now = tokio::time::sleep(Duration::ZERO).deadline();
            self.left = waited.deadline().saturating_duration_since(now);
        }
        if let Some(Ok(frame)) = &frame
            && let Some(data) = frame.data_ref()
        {
            let earned = Duration::from_micros(data.len() as u64 * 1_000_000 / BYTES_PER_SECOND_MIN);
            self.left = (self.left + earned).min(self.most);
        }
        if frame.is_none() || self.inner.is_end_stream() {
            self.has_ended.store(true, Ordering::Relaxed);
        }
        Poll::Ready(frame.map(|frame| frame.map_err(Into::into)))
    }

    fn is_end_stream(&self) -> bool {
        self.inner.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.inner.size_hint()
    }
}

#[cfg(test)]
mod tests {
    use futures::{StreamExt, stream};
    use http_body_util::{BodyExt, StreamBody};

    use super::*;

    /// What comes of pieces of these sizes, after which nothing comes any more.
    async fn received(sizes: &[usize], ends: bool) -> Result<usize, BoxError> {
        let sizes = sizes.to_vec();
        let pieces = stream::iter(sizes).map(|size| Ok::<_, BoxError>(Frame::data(Bytes::from(vec![0; size]))));
        let rest = match ends {
            true => stream::empty().boxed(),
            false => stream::pending().boxed(),
        };
        let body = PatientBody::new(StreamBody::new(pieces.chain(rest)), Duration::from_millis(20), Arc::default());
        Ok(body.collect().await?.to_bytes().len())
    }

    #[tokio::test]
    async fn a_body_that_stops_coming_is_given_up() {
        assert_eq!(received(&[1, 1 << 20], true).await.expect("all of it"), 1 + (1 << 20));
        assert!(received(&[], false).await.is_err());
        assert!(received(&[1 << 20], false).await.is_err(), "a fast start buys no long stall");
    }

    #[tokio::test]
    async fn a_byte_now_and_then_is_not_enough() {
        let drops = stream::unfold((), |()| async {
            tokio::time::sleep(Duration::from_millis(5)).await;
            Some((Ok::<_, BoxError>(Frame::data(Bytes::from_static(b"x"))), ()))
        });
        let body = PatientBody::new(StreamBody::new(Box::pin(drops)), Duration::from_millis(50), Arc::default());
        assert!(body.collect().await.is_err(), "it would never end");
    }
}
