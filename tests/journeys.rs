//! The way of a sample from a guest to a webhook: embedded, and with the real parts.

mod agent;
mod embedded;
mod real_parts;
mod receivers;
mod tenants;
mod trusts;
