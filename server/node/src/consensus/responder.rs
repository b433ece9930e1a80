//! Where the result of a proposal goes: a closure, called once, from openraft's task that applies.

use openraft::RaftTypeConfig;
use openraft::raft::responder::Responder;

/// Carries one result to its waiters.
pub(crate) struct Reply<T>(Box<dyn FnOnce(T) + Send>);

impl<T> Reply<T> {
    /// `deliver` runs on the task that applies: it must be quick and must not block.
    pub(crate) fn new(deliver: impl FnOnce(T) + Send + 'static) -> Self {
        Self(Box::new(deliver))
    }
}

impl<C, T> Responder<C, T> for Reply<T>
where
    C: RaftTypeConfig,
    T: Send + 'static,
{
    fn on_complete(self, result: T) {
        (self.0)(result);
    }
}
