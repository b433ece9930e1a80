//! The state machine from outside: through its public interface, over a backend in memory.

mod against_model;
mod alarm;
mod compaction;
mod determinism;
mod etcd;
mod hash;
mod kv;
mod lease;
mod member;
mod model;
mod range;
mod readers;
mod requests;
mod restore;
mod stream;
mod txn;
mod watch;
