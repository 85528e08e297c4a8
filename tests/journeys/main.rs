//! Journeys: real HTTP in, the answer, the mail, the peers' books and the table out. Each has a stack of its own.

#![allow(
    clippy::unwrap_used,
    reason = "all of it is tests: what panics here is a test that failed"
)]

mod account;
mod alarms;
mod callbacks;
mod lifecycle;
mod mail;
mod manage;
mod mtls;
mod once;
mod peers;
mod query;
mod roles;
mod scale;
mod secrets;
mod seeds;
mod stock;
mod submit;
mod swap;
mod sweep;
mod thieves;
mod tidy;
