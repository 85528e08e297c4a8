//! Settings by name: the process's environment in production, a table of the local stack's or a test's elsewhere.

use std::fmt;
use std::time::Duration;

use domain::{Deadlines, MailDeadlines, Malformed};
use jiff::SignedDuration;
use jiff::tz::TimeZone;

use crate::{CodeEcho, Presenter};

/// Where settings come from.
pub struct Settings(Source);

type Source = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A setting that is missing or not what it should be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the setting {name} {what}")]
pub struct SettingError {
    name: &'static str,
    what: &'static str,
}

impl Settings {
    /// The process's environment.
    pub fn from_environment() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    /// Any other source.
    pub fn new(source: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }

    /// A setting that must be there.
    pub fn text(&self, name: &'static str) -> Result<String, SettingError> {
        self.maybe(name).ok_or(SettingError {
            name,
            what: "is missing",
        })
    }

    /// A setting with a default.
    pub fn text_or(&self, name: &str, default: &str) -> String {
        self.maybe(name).unwrap_or_else(|| default.to_owned())
    }

    /// A setting that must be there and be what `parse` takes.
    pub fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Malformed>,
    ) -> Result<T, SettingError> {
        parse(&self.text(name)?).map_err(|Malformed(what)| SettingError { name, what })
    }

    /// Empty is as good as absent.
    fn maybe(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|text| !text.is_empty())
    }

    /// `true` or `false`; `false` by default.
    pub fn flag(&self, name: &'static str) -> Result<bool, SettingError> {
        self.text_or(name, "false").parse().map_err(|_| SettingError {
            name,
            what: "must be true or false",
        })
    }

    fn duration_or(&self, name: &'static str, default: SignedDuration) -> Result<SignedDuration, SettingError> {
        match self.maybe(name) {
            None => Ok(default),
            Some(text) => text
                .parse()
                .ok()
                .filter(SignedDuration::is_positive)
                .ok_or(SettingError {
                    name,
                    what: "must be a duration like 90s or 336h",
                }),
        }
    }

    /// How activations are shown: `TIME_ZONE`, `CONFIRMATION_CODE_ECHO`, `CODE_KEPT`.
    pub fn presenter(&self) -> Result<Presenter, SettingError> {
        Ok(Presenter {
            zone: self.time_zone()?,
            echo: self.echo()?,
            code_kept: self.code_kept()?,
        })
    }

    /// `TIME_ZONE`, an IANA name; Europe/Amsterdam by default.
    fn time_zone(&self) -> Result<TimeZone, SettingError> {
        TimeZone::get(&self.text_or("TIME_ZONE", "Europe/Amsterdam")).map_err(|_| SettingError {
            name: "TIME_ZONE",
            what: "must be the name of a time zone",
        })
    }

    /// `CONFIRMATION_CODE_ECHO`: `given` (default) or `masked`.
    fn echo(&self) -> Result<CodeEcho, SettingError> {
        match self.text_or("CONFIRMATION_CODE_ECHO", "given").as_str() {
            "given" => Ok(CodeEcho::Given),
            "masked" => Ok(CodeEcho::Masked),
            _ => Err(SettingError {
                name: "CONFIRMATION_CODE_ECHO",
                what: "must be given or masked",
            }),
        }
    }

    /// `CODE_KEPT`: how long the confirmation code is shown, and the matching id kept, after the end.
    fn code_kept(&self) -> Result<SignedDuration, SettingError> {
        self.duration_or("CODE_KEPT", SignedDuration::from_hours(30 * 24))
    }

    /// `LEASE`, `RETRY_AFTER`, `ASK_AFTER`, `ASK_AT_MOST`, `ORDER_WITHIN`, `INSTALL_WITHIN`, `SETTLE_WITHIN`, `CALL_REST`,
    /// `SIM_REST`, `CODE_KEPT`, `RECORDS_KEPT`.
    pub fn deadlines(&self) -> Result<Deadlines, SettingError> {
        Ok(Deadlines {
            lease: self.lease()?,
            retry_after: self.duration_or("RETRY_AFTER", SignedDuration::from_mins(1))?,
            ask_after: self.duration_or("ASK_AFTER", SignedDuration::from_mins(5))?,
            ask_at_most: self.duration_or("ASK_AT_MOST", SignedDuration::from_hours(1))?,
            order_within: self.duration_or("ORDER_WITHIN", SignedDuration::from_hours(24))?,
            install_within: self.duration_or("INSTALL_WITHIN", SignedDuration::from_hours(14 * 24))?,
            settle_within: self.duration_or("SETTLE_WITHIN", SignedDuration::from_hours(7 * 24))?,
            call_rest: self.duration_or("CALL_REST", SignedDuration::from_mins(10))?,
            rest: self.duration_or("SIM_REST", SignedDuration::from_hours(24))?,
            code_kept: self.code_kept()?,
            records_kept: self.duration_or("RECORDS_KEPT", SignedDuration::from_hours(3 * 365 * 24))?,
        })
    }

    /// `REPEAT_WITHIN`: how long after DONE the "account" dialect takes the same request for a repeat.
    pub fn repeat_within(&self) -> Result<SignedDuration, SettingError> {
        self.duration_or("REPEAT_WITHIN", SignedDuration::from_mins(10))
    }

    /// `CANCEL_WAIT`: how long a cancel waits for both peers before it answers.
    pub fn cancel_wait(&self) -> Result<SignedDuration, SettingError> {
        self.duration_or("CANCEL_WAIT", SignedDuration::from_secs(5))
    }

    /// `LEASE`: how long a claim holds, on a swap or a mail.
    pub fn lease(&self) -> Result<SignedDuration, SettingError> {
        self.duration_or("LEASE", SignedDuration::from_mins(1))
    }

    /// `MAIL_DOUBT`, `MAIL_RETRY_AFTER` and `LEASE`; SES reports to us if there is a `MAIL_CONFIGURATION_SET`.
    pub fn patience(&self) -> Result<MailDeadlines, SettingError> {
        // Reports come within minutes. To send a third time takes their silence for much longer.
        const DOUBTS_OF_SILENCE: i32 = 4;
        let doubt = self.duration_or("MAIL_DOUBT", SignedDuration::from_mins(15))?;
        let listens = self.maybe("MAIL_CONFIGURATION_SET").is_some();
        Ok(MailDeadlines {
            doubt,
            refusal: self.duration_or("MAIL_RETRY_AFTER", SignedDuration::from_mins(1))?,
            lease: self.lease()?,
            silence: listens.then(|| doubt * DOUBTS_OF_SILENCE),
        })
    }

    /// `STOCK_LOW`: a pool of fewer free SIMs runs low; 20 by default, and 0 counts nothing.
    pub fn stock_low(&self) -> Result<u32, SettingError> {
        let low = self.text_or("STOCK_LOW", "20").parse().ok();
        low.filter(|low| *low <= 1000).ok_or(SettingError {
            name: "STOCK_LOW",
            what: "must be a number from 0 to 1000",
        })
    }

    /// The time between two mails of one sandbox, so that all of them together (`MAIL_CONCURRENCY`, 1 by default) send at
    /// the account's rate, `MAILS_A_SECOND`; `None` where that is not set.
    pub fn mail_pace(&self) -> Result<Option<Duration>, SettingError> {
        let Some(rate) = self.positive("MAILS_A_SECOND")? else {
            return Ok(None);
        };
        const AT_MOST: Duration = Duration::from_secs(365 * 24 * 3600);
        let sandboxes = self.positive("MAIL_CONCURRENCY")?.unwrap_or(1.0);
        let pace = Duration::try_from_secs_f64(sandboxes / rate).ok();
        let pace = pace.filter(|pace| *pace <= AT_MOST).ok_or(SettingError {
            name: "MAILS_A_SECOND",
            what: "is too small",
        });
        pace.map(Some)
    }

    fn positive(&self, name: &'static str) -> Result<Option<f64>, SettingError> {
        let number = self.maybe(name).map(|text| {
            let number = text.parse().ok();
            number.filter(|number: &f64| number.is_finite() && *number > 0.0)
        });
        match number {
            Some(None) => Err(SettingError {
                name,
                what: "must be a number above 0",
            }),
            Some(number) => Ok(number),
            None => Ok(None),
        }
    }
}

impl fmt::Debug for Settings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Settings")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_wrong_is_named() {
        let with = |name: &'static str, value: &'static str| {
            Settings::new(move |asked| (asked == name).then(|| value.to_owned()))
        };
        assert_eq!(with("LEASE", "5s").lease().unwrap(), SignedDuration::from_secs(5));
        assert_eq!(with("LEASE", "").lease().unwrap(), SignedDuration::from_secs(60));
        assert_eq!(
            with("LEASE", "soon").lease().unwrap_err().to_string(),
            "the setting LEASE must be a duration like 90s or 336h"
        );
        assert_eq!(
            with("X", "").text("TABLE").unwrap_err().to_string(),
            "the setting TABLE is missing"
        );
        assert_eq!(with("STOCK_LOW", "").stock_low().unwrap(), 20);
        assert_eq!(with("STOCK_LOW", "0").stock_low().unwrap(), 0);
        for wrong in ["few", "-1", "1001"] {
            assert_eq!(
                with("STOCK_LOW", wrong).stock_low().unwrap_err().to_string(),
                "the setting STOCK_LOW must be a number from 0 to 1000"
            );
        }

        let pace = |rate: &'static str, sandboxes: &'static str| {
            let settings = Settings::new(move |asked| match asked {
                "MAILS_A_SECOND" => Some(rate.to_owned()),
                "MAIL_CONCURRENCY" => Some(sandboxes.to_owned()),
                _ => None,
            });
            match settings.mail_pace() {
                Ok(None) => "none".to_owned(),
                Ok(Some(pace)) => pace.as_millis().to_string(),
                Err(error) => error.to_string(),
            }
        };
        for (rate, sandboxes, expected) in [
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
            assert_eq!(pace(rate, sandboxes), expected, "{rate} {sandboxes}");
        }
        assert!(with("TIME_ZONE", "Mars/Base").time_zone().is_err());
        assert!(with("CONFIRMATION_CODE_ECHO", "no").echo().is_err());
    }
}
