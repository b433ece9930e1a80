//! Another file in the place of this one: a snapshot that has come from another member.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::Backend;
use super::BackendError;
use super::Generation;
use super::flush;
use super::take_name;

impl Backend {
    /// Puts `incoming`, all of whose commits are durable, in the place of this one's file, for good. Whoever reads the old one goes on.
    ///
    /// # Errors
    /// A defragmentation is running, or the file cannot take the name: which one has it is unknown then, and no commit may follow.
    ///
    /// # Panics
    /// `incoming` is still read.
    pub fn adopt(&self, incoming: Backend) -> Result<(), BackendError> {
        if self.defragmenting.swap(true, Ordering::Acquire) {
            return Err(BackendError::Defragmenting);
        }
        let result = self.swap_in(incoming);
        self.defragmenting.store(false, Ordering::Release);
        result
    }

    fn swap_in(&self, incoming: Backend) -> Result<(), BackendError> {
        let mut commits = self.commits.lock();
        if self.failed.load(Ordering::Acquire) {
            return Err(BackendError::Failed);
        }
        let sizes = incoming.commits.lock().sizes;
        if let Err(error) = take_name(&*self.disk, &incoming.path, &self.path) {
            self.failed.store(true, Ordering::Release);
            return Err(error);
        }
        let Some(generation) = Arc::into_inner(incoming.current.into_inner()) else {
            panic!("a database that is taken over is read by nobody");
        };
        *self.current.write() = Arc::new(Generation { path: self.path.clone(), ..generation });
        *commits = flush::Commits::new(sizes);
        self.set_sizes(sizes);
        Ok(())
    }
}
