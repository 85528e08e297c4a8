//! Journeys: real HTTP requests in; responses, mails, the peers' databases and the table out. Each test has a stack of
//! its own.

#![allow(
    clippy::unwrap_used,
    reason = "everything here is a test, and a panic is a failed test"
)]

mod account;
mod alarms;
mod callbacks;
mod failures;
mod lifecycle;
mod log_buffer;
mod mail;
mod manage;
mod mtls;
mod once;
mod operate;
mod page;
mod peers;
mod query;
mod releases;
mod renew;
mod roles;
mod scale;
mod secrets;
mod source_apis;
mod stock;
mod submit;
mod swap;
mod sweep;
mod thieves;
mod tidy;
