//! What the server says it is. Clients parse these and switch features by them: 3.7 only once all of etcd 3.7 is there.

/// `Status.version` and `etcdserver` of `/version`.
pub const SERVER: &str = "3.6.16";
/// `Status.storageVersion` and `storage` of `/version`.
pub const STORAGE: &str = garboard_node::STORAGE_VERSION;
