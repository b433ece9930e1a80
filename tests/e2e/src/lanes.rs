//! Work beside other work.

use std::panic::resume_unwind;
use std::sync::Mutex;
use std::sync::PoisonError;

/// Does `work` on each of `items`, begun in their order and on up to `lanes` of them at a time. What comes of them is in their order, too.
pub fn each<T: Send, R: Send>(lanes: usize, items: Vec<T>, work: impl Fn(T) -> R + Sync) -> Vec<R> {
    let waiting = Mutex::new(items.into_iter().enumerate());
    let next = || waiting.lock().unwrap_or_else(PoisonError::into_inner).next();
    let lane = || {
        let mut done = Vec::new();
        while let Some((at, item)) = next() {
            done.push((at, work(item)));
        }
        done
    };
    let mut done: Vec<(usize, R)> = std::thread::scope(|scope| {
        let lanes: Vec<_> = (0..lanes).map(|_| scope.spawn(lane)).collect();
        lanes.into_iter().flat_map(|lane| lane.join().unwrap_or_else(|panic| resume_unwind(panic))).collect()
    });
    done.sort_by_key(|(at, _)| *at);
    done.into_iter().map(|(_, of_item)| of_item).collect()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;
    use std::time::Duration;

    use super::*;

    #[test]
    fn results_are_in_the_order_of_the_items() {
        for lanes in 1..4 {
            assert_eq!(each(lanes, (0..20).collect(), |n: u32| n * n), (0..20).map(|n| n * n).collect::<Vec<_>>());
        }
        assert!(each(2, Vec::new(), |n: u32| n).is_empty());
    }

    #[test]
    fn the_first_goes_on_while_those_after_it_are_done() {
        let (sender, receiver) = channel();
        let receiver = Mutex::new(receiver);
        let done = each(2, vec!["waits", "is beside", "comes next"], |item| match item {
            "waits" => {
                let receiver = receiver.lock().unwrap();
                let beside = [(); 2].map(|()| receiver.recv_timeout(Duration::from_secs(60)).unwrap());
                beside.join(", ")
            }
            other => {
                sender.send(other).unwrap();
                other.to_owned()
            }
        });
        assert_eq!(done, ["is beside, comes next", "is beside", "comes next"]);
    }
}
