//! The one crate that knows gRPC, HTTP and TLS: everything a client can say to a member, and every status it can get.
//!
//! A request goes `listen` (socket, TLS, HTTP) -> `dispatch` (which method; counters; who may) -> the service's own file (`kv`, `watch`,
//! `lease`, `cluster`, `maintenance`, `auth`) -> `garboard_node`. Errors become statuses in `status`, once.
#![forbid(unsafe_code)]

mod answers;
mod auth;
mod body;
mod cluster;
mod config;
mod dispatch;
mod grpc;
mod grpc_health;
mod http;
mod kv;
mod lease;
mod listen;
mod maintenance;
mod method;
mod metrics;
mod range;
mod serve;
pub mod status;
mod watch;

pub use config::ApiConfig;
pub use garboard_tls::Identity;
pub use garboard_tls::ReadFile;
pub use garboard_tls::TlsError;
pub use garboard_tls::TlsOptions;
pub use garboard_tls::TlsVersion;
pub use listen::Limits;
pub use listen::Surface;
pub use listen::peer::Peer;
pub use listen::url::ListenUrl;
pub use listen::url::Scheme;
pub use listen::url::UrlError;
pub use serve::ApiError;
pub use serve::Running;
pub use serve::serve;

#[cfg(test)]
mod tests;
