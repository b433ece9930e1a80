//! What scenarios print: as it comes or, of one that runs beside others, in one piece when it has ended.

use std::cell::RefCell;
use std::fmt::Display;

thread_local! {
    /// What this thread has printed and nobody has seen yet; `None` where it is seen at once.
    static HELD: RefCell<Option<String>> = const { RefCell::new(None) };
}

/// Prints a line.
pub fn line(text: impl Display) {
    HELD.with_borrow_mut(|held| match held {
        Some(held) => held.push_str(&format!("{text}\n")),
        None => println!("{text}"),
    });
}

/// Does `work`, and returns with it what it has printed on this thread.
pub fn held<T>(work: impl FnOnce() -> T) -> (T, String) {
    HELD.set(Some(String::new()));
    let done = work();
    (done, HELD.take().unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_held_is_whole_and_of_one_thread() {
        let ((), said) = held(|| {
            line("one");
            std::thread::scope(|scope| {
                let (_, others) = scope.spawn(|| held(|| line("another's"))).join().unwrap();
                assert_eq!(others, "another's\n");
            });
            line(format_args!("{}", 2));
        });
        assert_eq!(said, "one\n2\n");
        assert!(HELD.take().is_none(), "what comes later is held, too");
    }
}
