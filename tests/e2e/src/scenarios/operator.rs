//! The product as its users meet it, on a Kubernetes with nodes: helm install, kubectl apply, and what happens to a cluster afterwards.

mod cert_manager;
mod control_plane;
mod life;
mod matrix;
mod nodes;
mod outside;
mod store;
mod traffic;

pub use cert_manager::operator_cert_manager;
pub use life::operator_life;
pub use matrix::operator_matrix;
pub use nodes::operator_nodes;
pub use store::CHART;
pub use store::LIMIT;
pub use store::NAMESPACE;
pub use store::OPERATOR;
pub use store::SHORTEST;
pub use store::archives;
