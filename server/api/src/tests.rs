//! The API over loopback, in front of a member whose disk is in memory.

mod calls;
mod client;
mod fixture;
mod pages;
mod sockets;
mod streams;
mod tls;
