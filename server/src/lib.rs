//! The `garboard` binary's parts: what it is told (`flags`, `env`, `file`), what becomes of that (`config`), what it
//! says (`log`), and how it runs (`start`, `serve`).
#![forbid(unsafe_code)]

mod arguments;
pub mod config;
pub mod dns;
pub mod env;
pub mod file;
pub mod flags;
mod inspect;
pub mod log;
pub mod notice;
mod notify;
mod serve;
mod signals;
mod snapshot;
pub mod start;
pub mod version;
mod wal_dump;
