//! Wake-ups from other threads, gathered: many tasks of a single-threaded runtime are woken by one system call.
//!
//! Whoever completes a batch of requests wakes a task for each, and tokio writes to the runtime's event file for each task that is
//! woken from another thread. Here those wake-ups go into a list of the thread, and only the first one into an empty list wakes: a task that wakes
//! the rest from within, which costs no system call. Invariant: a wake-up is in the list until that task has passed it on; none is lost.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::Mutex;
use std::sync::PoisonError;
use std::task::Context;
use std::task::Poll;
use std::task::Wake;
use std::task::Waker;

use tokio::sync::Notify;

thread_local! {
    static GATHERER: RefCell<Option<Arc<Gatherer>>> = const { RefCell::new(None) };
}

#[derive(Default)]
struct Gatherer {
    /// No more than there are tasks that wait.
    due: Mutex<Vec<Waker>>,
    some_due: Notify,
}

/// Passes on, without end, what is gathered for the current thread; to be started on the thread's own runtime, once.
pub async fn gather() {
    let gatherer = Arc::new(Gatherer::default());
    GATHERER.with_borrow_mut(|own| *own = Some(Arc::clone(&gatherer)));
    let _until_dropped = Installed;
    let mut due = Vec::new();
    loop {
        gatherer.some_due.notified().await;
        std::mem::swap(&mut *gatherer.due.lock().unwrap_or_else(PoisonError::into_inner), &mut due);
        due.drain(..).for_each(Waker::wake);
    }
}

/// The current thread gathers as long as this lives: nobody would pass on what a runtime that has ended had gathered.
struct Installed;

impl Drop for Installed {
    fn drop(&mut self) {
        // A thread that ends has no gatherer left to take away.
        let _ = GATHERER.try_with(|own| own.take());
    }
}

impl Gatherer {
    fn add(&self, waker: Waker) {
        let mut due = self.due.lock().unwrap_or_else(PoisonError::into_inner);
        due.push(waker);
        let first = due.len() == 1;
        drop(due);
        if first {
            self.some_due.notify_one();
        }
    }
}

/// Stands for one task where it waits for another thread.
struct Proxy {
    gatherer: Arc<Gatherer>,
    task: Mutex<Option<Waker>>,
}

impl Wake for Proxy {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        let task = self.task.lock().unwrap_or_else(PoisonError::into_inner).take();
        if let Some(task) = task {
            self.gatherer.add(task);
        }
    }
}

/// What one wait of a task uses in place of the task's own waker.
#[derive(Default)]
pub struct Gathered(Option<Arc<Proxy>>);

impl Gathered {
    /// The waker to leave with the other thread; the task's own where wake-ups are not gathered.
    pub fn waker(&mut self, cx: &Context<'_>) -> Waker {
        if self.0.is_none() {
            let gatherer = GATHERER.with_borrow(Clone::clone);
            self.0 = gatherer.map(|gatherer| Arc::new(Proxy { gatherer, task: Mutex::new(None) }));
        }
        match &self.0 {
            Some(proxy) => {
                *proxy.task.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
                Waker::from(Arc::clone(proxy))
            }
            None => cx.waker().clone(),
        }
    }
}

/// A future that another thread completes, woken with others.
pub struct GatheredFuture<F> {
    future: F,
    gathered: Gathered,
}

/// Lets the wake-ups of `future` be gathered.
pub fn gathered<F: Future + Unpin>(future: F) -> GatheredFuture<F> {
    GatheredFuture { future, gathered: Gathered::default() }
}

impl<F: Future + Unpin> Future for GatheredFuture<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let waker = self.gathered.waker(cx);
        Pin::new(&mut self.future).poll(&mut Context::from_waker(&waker))
    }
}

#[cfg(test)]
mod tests {
    use tokio::sync::oneshot;

    use super::*;
    use crate::spawn;

    const WAITERS: u64 = 200;

    /// Completes many waits from another thread, some before and some after they are polled, and adds up what they got.
    fn sum(gathers: bool) -> u64 {
        let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
        let (senders, receivers): (Vec<_>, Vec<_>) = (0..WAITERS).map(|_| oneshot::channel()).unzip();
        let completes = spawn::thread("completes", move || {
            for (number, sender) in (0..WAITERS).zip(senders) {
                sender.send(number).expect("a waiter");
            }
        });
        let total = runtime.block_on(async {
            if gathers {
                drop(spawn::task(gather()));
                tokio::task::yield_now().await;
            }
            let waits: Vec<_> = receivers.into_iter().map(|receiver| spawn::task(gathered(receiver))).collect();
            let mut total = 0;
            for wait in waits {
                total += wait.await.expect("a task").expect("a number");
            }
            total
        });
        completes.expect("a thread").join().expect("no panic");
        total
    }

    #[test]
    fn every_wait_ends() {
        for round in 0..200 {
            assert_eq!(sum(round % 2 == 0), WAITERS * (WAITERS - 1) / 2);
        }
    }

    #[test]
    fn one_wake_up_stands_for_many() {
        let gatherer = Arc::new(Gatherer::default());
        let proxy =
            || Arc::new(Proxy { gatherer: Arc::clone(&gatherer), task: Mutex::new(Some(Waker::noop().clone())) });
        let proxies = [proxy(), proxy()];
        for proxy in &proxies {
            proxy.wake_by_ref();
            // Woken once; it takes another poll to be woken again.
            proxy.wake_by_ref();
        }
        assert_eq!(gatherer.due.lock().unwrap_or_else(PoisonError::into_inner).len(), 2);
    }
}
