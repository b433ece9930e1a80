//! The product as its users meet it, on a Kubernetes with nodes: helm install, kubectl apply, and what happens to a cluster afterwards.

mod cert_manager;
mod certificates;
mod control_plane;
mod families;
mod life;
mod matrix;
mod nodes;
mod outside;
mod space;
mod storage;
mod store;
mod traffic;

pub use cert_manager::operator_cert_manager;
pub use certificates::operator_certificates;
pub use families::operator_dual_stack;
pub use families::operator_ipv6;
pub use life::operator_life;
pub use life::operator_smoke;
pub use matrix::operator_matrix;
pub use nodes::operator_nodes;
pub use storage::operator_storage;
pub use store::CHART;
pub use store::LIMIT;
pub use store::NAMESPACE;
pub use store::OPERATOR;
pub use store::SHORTEST;
pub use store::archives;
