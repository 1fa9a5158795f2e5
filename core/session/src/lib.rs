//! A session with the identity service: one token cached and renewed, the catalog, and the check of others' tokens.
//!
//! Speaks Keystone v3 over HTTP, so that it works the same against the embedded cloud and a real OpenStack.
#![forbid(unsafe_code)]
