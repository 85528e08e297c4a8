//! When the next mail may be sent, so that a batch does not exceed the account's rate at SES.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep_until};

/// How long the mails of one invocation wait for their turns: half of the function's timeout, so that the last one has
/// the other half for its calls.
pub const WITHIN: Duration = Duration::from_secs(60);

/// Gives turns, one after another; all at once if there is no interval.
#[derive(Debug)]
pub struct Pace {
    every: Option<Duration>,
    next: Mutex<Option<Instant>>,
}

/// Whether a mail may be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// At once: nothing was waited for.
    Now,
    /// It may now, after a wait.
    Waited,
    /// Its turn does not come in time. It has none.
    TooLate,
}

impl Pace {
    /// Turns with so much time between them.
    pub fn new(every: Option<Duration>) -> Self {
        Self {
            every,
            next: Mutex::default(),
        }
    }

    /// Waits for the next turn, if it comes before `until`.
    pub async fn wait(&self, until: Instant) -> Turn {
        let Some(every) = self.every else {
            return Turn::Now;
        };
        let now = Instant::now();
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = next.map_or(now, |next| next.max(now));
            if turn >= until {
                return Turn::TooLate;
            }
            *next = Some(turn + every);
            turn
        };
        if turn == now {
            return Turn::Now;
        }
        sleep_until(turn).await;
        Turn::Waited
    }
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    /// What becomes of so many mails at once, each with the second at which it may be sent.
    async fn check(every: Option<u64>, mails: usize, until: u64, expected: &[(Turn, u64)]) {
        let pace = Pace::new(every.map(Duration::from_secs));
        assert_turns(&pace, mails, until, expected).await;
    }

    async fn assert_turns(pace: &Pace, mails: usize, until: u64, expected: &[(Turn, u64)]) {
        let start = Instant::now();
        let waits = (0..mails).map(|_| async {
            let turn = pace.wait(start + Duration::from_secs(until)).await;
            (turn, start.elapsed().as_secs())
        });
        assert_eq!(join_all(waits).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn mails_have_their_turns_one_after_another() {
        use Turn::{Now, TooLate, Waited};
        check(None, 3, 0, &[(Now, 0); 3]).await;
        check(Some(2), 1, 60, &[(Now, 0)]).await;
        check(Some(2), 3, 60, &[(Now, 0), (Waited, 2), (Waited, 4)]).await;
        // The turn at the limit is too late; who comes too late takes no turn.
        check(Some(2), 3, 4, &[(Now, 0), (Waited, 2), (TooLate, 0)]).await;
        check(Some(60), 2, 60, &[(Now, 0), (TooLate, 0)]).await;

        // The next batch goes on where the last one ended; turns that nobody took are not made up for.
        let pace = Pace::new(Some(Duration::from_secs(10)));
        assert_turns(&pace, 2, 60, &[(Now, 0), (Waited, 10)]).await;
        assert_turns(&pace, 1, 60, &[(Waited, 10)]).await;
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_turns(&pace, 2, 60, &[(Now, 0), (Waited, 10)]).await;
    }
}
