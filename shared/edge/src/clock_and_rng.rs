//! The clock and the source of randomness, which functions get as arguments so that tests can replace them.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use ring::rand::{SecureRandom, SystemRandom};

/// A clock and a source of random bits.
#[derive(Clone)]
pub struct ClockAndRng {
    now: Arc<dyn Fn() -> Timestamp + Send + Sync>,
    random: Arc<dyn Fn() -> u128 + Send + Sync>,
}

impl ClockAndRng {
    /// The machine's clock and the kernel's randomness.
    pub fn real() -> Self {
        Self::new(Timestamp::now, || {
            let mut bytes = [0; 16];
            SystemRandom::new()
                .fill(&mut bytes)
                .expect("the kernel provides randomness");
            u128::from_ne_bytes(bytes)
        })
    }

    /// This clock and this source of 128 random bits.
    pub fn new(
        now: impl Fn() -> Timestamp + Send + Sync + 'static,
        random: impl Fn() -> u128 + Send + Sync + 'static,
    ) -> Self {
        Self {
            now: Arc::new(now),
            random: Arc::new(random),
        }
    }

    /// The current time in whole milliseconds, which is the precision of stored and shown times.
    pub fn now(&self) -> Timestamp {
        let now = (self.now)();
        Timestamp::from_millisecond(now.as_millisecond()).unwrap_or(now)
    }

    /// 128 unpredictable bits.
    pub fn random(&self) -> u128 {
        (self.random)()
    }

    /// A new token of a claim: 64 random bits in hexadecimal.
    pub fn token(&self) -> String {
        format!("{:016x}", self.random() >> 64)
    }
}

impl fmt::Debug for ClockAndRng {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ClockAndRng")
    }
}
