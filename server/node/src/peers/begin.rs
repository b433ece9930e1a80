//! The beginning of a call that carries a stream: how long it may take, and how soon after a failure the next is tried.

use std::future::Future;
use std::pin::pin;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::Stream;
use garboard_runtime::clock;
use tokio::sync::oneshot;
use tonic::Status;

/// From a call that could not be begun to the next of its kind. A member that is down is dialled so often, whoever accepts for it.
const PAUSE: Duration = Duration::from_millis(100);

/// When the last of the calls of one kind to one member failed to begin.
#[derive(Default)]
pub(crate) struct Attempts {
    failed: Option<clock::Instant>,
}

impl Attempts {
    /// Completes when the next may be tried.
    pub(crate) async fn next(&mut self) {
        if let Some(failed) = self.failed.take() {
            clock::sleep_until(failed + PAUSE).await;
        }
    }

    pub(crate) fn failed(&mut self) {
        self.failed = Some(clock::now());
    }
}

/// Learns when a connection has begun to read a call's stream, which is to be within the time.
pub(crate) struct Begun {
    told: oneshot::Receiver<()>,
    timeout: Duration,
}

/// The same stream, and what learns of its first reading.
pub(crate) fn told<S: Stream>(messages: S, timeout: Duration) -> (impl Stream<Item = S::Item> + use<S>, Begun) {
    let (tell, told) = oneshot::channel();
    let read = futures_util::future::lazy(move |_| {
        // Nobody hears it when the call has been given up.
        let _ = tell.send(());
        messages
    });
    (read.flatten_stream(), Begun { told, timeout })
}

impl Begun {
    /// The answer to `call`, which carries the stream.
    ///
    /// A call that hyper is given in the moment in which its connection ends can be lost: it is neither sent nor answered, until something
    /// else is called over the same channel. Whoever waits for this answer alone would wait for ever.
    ///
    /// # Errors
    /// Those of the call; or nothing of the stream was read in time: nothing of the call has been sent.
    pub(crate) async fn answer<T>(self, call: impl Future<Output = Result<T, Status>>) -> Result<T, Status> {
        let Self { told, timeout } = self;
        let mut call = pin!(call);
        tokio::select! {
            biased;
            answer = &mut call => return answer,
            // An error says that the stream is gone, which the call is about to say, too.
            begun = clock::timeout(timeout, told) => if begun.is_err() {
                return Err(Status::unavailable(format!("no connection has taken the call for {timeout:?}")));
            }
        }
        call.await
    }
}

#[cfg(test)]
mod tests {
    use futures_util::StreamExt as _;

    use super::*;

    const SOON: Duration = Duration::from_millis(20);

    #[tokio::test]
    async fn a_call_that_no_connection_takes_ends() {
        let (messages, begun) = told(futures_util::stream::repeat(1), SOON);
        let lost = async move {
            let _kept = messages;
            std::future::pending::<Result<(), Status>>().await
        };
        let status = begun.answer(lost).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unavailable);
        assert!(status.message().contains("no connection has taken the call"), "{status}");
    }

    #[tokio::test]
    async fn a_call_whose_stream_is_read_may_take_its_time() {
        let (messages, begun) = told(futures_util::stream::iter([1, 2]), SOON);
        let call = async move {
            let mut messages = pin!(messages);
            let first = messages.next().await;
            clock::sleep(SOON * 5).await;
            Ok((first, messages.next().await, messages.next().await))
        };
        assert_eq!(begun.answer(call).await.unwrap(), (Some(1), Some(2), None));
    }

    #[tokio::test]
    async fn attempts_that_fail_are_a_pause_apart_and_the_first_is_not_kept_waiting() {
        let (started, mut attempts) = (clock::now(), Attempts::default());
        for _ in 0..4 {
            attempts.next().await;
            attempts.failed();
        }
        assert!(started.elapsed() >= PAUSE * 3);
        attempts.next().await;
        assert!(futures_util::poll!(pin!(attempts.next())).is_ready());
    }
}
