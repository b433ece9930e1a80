//! Kubernetes on the store: a real kube-apiserver with one member or three as its only storage, real kubectl, and faults of the store; and a whole
//! Kubernetes with nodes (`garboard-lab`).

mod apiserver;
mod faults;
mod inventory;
mod lab_chart;
mod lab_nodes;
mod script;
mod store;
mod traffic;
mod watch;

pub use faults::kube_apiserver_cluster;
pub use lab_chart::lab_chart;
pub use lab_nodes::Steps;
pub use lab_nodes::bring_up;
pub use lab_nodes::lab_nodes;
pub use script::kube_apiserver;
