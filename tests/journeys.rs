//! The way of a sample from a guest to a webhook: embedded, and with the real parts.

mod agent;
mod billing;
mod dashboards;
mod embedded;
mod export;
mod import;
mod import_gnocchi;
mod read_tokens;
mod real_parts;
mod receivers;
mod scraping;
mod tenants;
mod trusts;
