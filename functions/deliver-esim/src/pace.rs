//! Paces the mails of an invocation, so that they do not exceed the account's sending rate at SES.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use domain::Malformed;
use edge::{SettingError, Settings};
use tokio::time::{Instant, sleep_until};

/// How long the mails of one invocation may wait for their turns: half of the function's timeout, so that the last mail
/// has the other half for its calls.
pub const WITHIN: Duration = Duration::from_secs(60);

/// Grants turns at a fixed interval. Without an interval, every turn is granted at once.
#[derive(Debug)]
pub struct Pace {
    interval: Option<Duration>,
    next: Mutex<Option<Instant>>,
}

/// The result of waiting for a turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Turn {
    /// The mail may be sent; there was no wait.
    Now,
    /// The mail may be sent, after a wait.
    Waited,
    /// The turn would come too late, so the mail gets none.
    TooLate,
}

impl Pace {
    /// `interval` is the time between two turns.
    pub fn new(interval: Option<Duration>) -> Self {
        Self {
            interval,
            next: Mutex::default(),
        }
    }

    /// Reads `MAILS_A_SECOND`, the account's sending rate, and `MAIL_CONCURRENCY`, the number of instances that share it
    /// (1 by default). Without a rate there is no interval.
    pub fn read(settings: &Settings) -> Result<Self, SettingError> {
        const MAX: Duration = Duration::from_secs(365 * 24 * 3600);
        let Some(rate) = settings.optional("MAILS_A_SECOND", positive)? else {
            return Ok(Self::new(None));
        };
        let instances = settings.optional("MAIL_CONCURRENCY", positive)?.unwrap_or(1.0);
        let interval = Duration::try_from_secs_f64(instances / rate).ok();
        let interval = interval
            .filter(|interval| *interval <= MAX)
            .ok_or(SettingError::new("MAILS_A_SECOND", "is too small"))?;
        Ok(Self::new(Some(interval)))
    }

    /// Waits for the next turn, if it comes before `until`.
    pub async fn wait(&self, until: Instant) -> Turn {
        let Some(interval) = self.interval else {
            return Turn::Now;
        };
        let now = Instant::now();
        let turn = {
            let mut next = self.next.lock().unwrap_or_else(PoisonError::into_inner);
            let turn = next.map_or(now, |next| next.max(now));
            if turn >= until {
                return Turn::TooLate;
            }
            *next = Some(turn + interval);
            turn
        };
        if turn == now {
            return Turn::Now;
        }
        sleep_until(turn).await;
        Turn::Waited
    }
}

fn positive(text: &str) -> Result<f64, Malformed> {
    let number = text
        .parse()
        .ok()
        .filter(|number: &f64| number.is_finite() && *number > 0.0);
    number.ok_or(Malformed("must be a number above 0"))
}

#[cfg(test)]
mod tests {
    use futures_util::future::join_all;

    use super::*;

    /// Asserts the turns of `mails` concurrent mails on a new [`Pace`]. All times are in seconds.
    async fn check(interval: Option<u64>, mails: usize, until: u64, expected: &[(Turn, u64)]) {
        let pace = Pace::new(interval.map(Duration::from_secs));
        assert_turns(&pace, mails, until, expected).await;
    }

    /// Asserts the turn of each mail, and the second at which it is granted.
    async fn assert_turns(pace: &Pace, mails: usize, until: u64, expected: &[(Turn, u64)]) {
        let start = Instant::now();
        let waits = (0..mails).map(|_| async {
            let turn = pace.wait(start + Duration::from_secs(until)).await;
            (turn, start.elapsed().as_secs())
        });
        assert_eq!(join_all(waits).await, expected);
    }

    #[tokio::test(start_paused = true)]
    async fn turns_are_one_interval_apart() {
        use Turn::{Now, TooLate, Waited};
        check(None, 3, 0, &[(Now, 0); 3]).await;
        check(Some(2), 1, 60, &[(Now, 0)]).await;
        check(Some(2), 3, 60, &[(Now, 0), (Waited, 2), (Waited, 4)]).await;
        // A turn exactly at the limit is too late, and a mail that is too late uses up no turn.
        check(Some(2), 3, 4, &[(Now, 0), (Waited, 2), (TooLate, 0)]).await;
        check(Some(60), 2, 60, &[(Now, 0), (TooLate, 0)]).await;

        // The next batch continues where the last one ended. Unused turns are not made up for.
        let pace = Pace::new(Some(Duration::from_secs(10)));
        assert_turns(&pace, 2, 60, &[(Now, 0), (Waited, 10)]).await;
        assert_turns(&pace, 1, 60, &[(Waited, 10)]).await;
        tokio::time::advance(Duration::from_secs(100)).await;
        assert_turns(&pace, 2, 60, &[(Now, 0), (Waited, 10)]).await;
    }

    #[test]
    fn instances_share_the_rate() {
        let interval = |rate: &'static str, instances: &'static str| {
            let settings = Settings::new(move |requested| match requested {
                "MAILS_A_SECOND" => Some(rate.to_owned()),
                "MAIL_CONCURRENCY" => Some(instances.to_owned()),
                _ => None,
            });
            match Pace::read(&settings) {
                Ok(Pace { interval: None, .. }) => "none".to_owned(),
                Ok(Pace {
                    interval: Some(interval),
                    ..
                }) => interval.as_millis().to_string(),
                Err(error) => error.to_string(),
            }
        };
        for (rate, instances, expected) in [
            ("", "", "none"),
            ("", "10", "none"),
            ("14", "", "71"),
            ("14", "7", "500"),
            ("0.5", "3", "6000"),
            ("0", "1", "the setting MAILS_A_SECOND must be a number above 0"),
            ("inf", "1", "the setting MAILS_A_SECOND must be a number above 0"),
            ("many", "1", "the setting MAILS_A_SECOND must be a number above 0"),
            ("1", "-1", "the setting MAIL_CONCURRENCY must be a number above 0"),
            ("1e-300", "1", "the setting MAILS_A_SECOND is too small"),
            ("1e-12", "1", "the setting MAILS_A_SECOND is too small"),
        ] {
            assert_eq!(interval(rate, instances), expected, "{rate} {instances}");
        }
    }
}
