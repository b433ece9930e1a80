//! Members among themselves: who they are to each other, the connections between them, and what is said over these.
//!
//! Every call carries both ends' identities (`headers`), and is refused before raft sees it when one of them is not who the other knows
//! (`roster`). A data directory has a number drawn when it was made, its incarnation: a member whose disk was wiped has its id, but not
//! its incarnation, and could vote away what it had acknowledged. So it is refused, and ends.

mod begin;
mod dial;
mod headers;
mod links;
mod metrics;
mod roster;
mod serve;

pub(crate) use begin::Attempts;
pub(crate) use dial::Dialer;
pub(crate) use headers::Refusal;
pub(crate) use links::Line;
pub(crate) use links::LinkError;
pub(crate) use links::Links;
pub(crate) use links::LinksConfig;
pub(crate) use links::OnRefused;
pub(crate) use metrics::PeerMetrics;
pub(crate) use roster::Roster;
pub use serve::PeersService;
