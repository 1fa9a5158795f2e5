//! The outbox delivers.
