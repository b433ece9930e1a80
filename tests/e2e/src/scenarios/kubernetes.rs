//! Kubernetes on the store: a real kube-apiserver with the member as its only storage, real kubectl, and kills of the store.

mod apiserver;
mod inventory;
mod script;
mod traffic;
mod watch;

pub use script::kube_apiserver;
