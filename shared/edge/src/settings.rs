//! Reads the settings that several functions have, and the types of values that settings have. Production reads them
//! from the environment, the local stack and tests from a table.

use std::fmt;

use aws::ServiceClient;
use aws_sdk_dynamodb::Client;
use domain::{Deadlines, MailDeadlines, Malformed};
use jiff::SignedDuration;
use jiff::tz::TimeZone;
use store::Store;

use crate::{CodeEcho, Presenter};

/// The settings of a function, from any source.
pub struct Settings(Source);

type Source = Box<dyn Fn(&str) -> Option<String> + Send + Sync>;

/// A setting is missing or has a wrong value.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the setting {name} {what}")]
pub struct SettingError {
    name: &'static str,
    what: &'static str,
}

impl SettingError {
    /// `what` says what is wrong with the setting `name`, as a verb phrase without the value: `must be a number`.
    pub fn new(name: &'static str, what: &'static str) -> Self {
        Self { name, what }
    }
}

impl Settings {
    /// Settings from the environment of the process.
    pub fn from_environment() -> Self {
        Self::new(|name| std::env::var(name).ok())
    }

    /// Settings from another source: `source` returns the value of a setting by its name.
    pub fn new(source: impl Fn(&str) -> Option<String> + Send + Sync + 'static) -> Self {
        Self(Box::new(source))
    }

    /// A required setting.
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

    /// A required setting that `parse` accepts.
    pub fn parsed<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Malformed>,
    ) -> Result<T, SettingError> {
        parse(&self.text(name)?).map_err(|Malformed(what)| SettingError { name, what })
    }

    /// The store: `TABLE`, `KMS_KEY_ID`, `INSTALLATION` and `SEALING_KEY`.
    pub fn store(&self, dynamodb: Client, kms: ServiceClient) -> Result<Store, SettingError> {
        let store = Store::new(dynamodb, kms, self.text("TABLE")?, self.text("KMS_KEY_ID")?);
        Ok(store
            .of_installation(self.text_or("INSTALLATION", ""))
            .sealing_with(self.optional("SEALING_KEY", str::parse)?))
    }

    /// An optional setting. An empty one counts as absent.
    fn maybe(&self, name: &str) -> Option<String> {
        (self.0)(name).filter(|text| !text.is_empty())
    }

    /// An optional setting that `parse` accepts.
    pub fn optional<T>(
        &self,
        name: &'static str,
        parse: impl Fn(&str) -> Result<T, Malformed>,
    ) -> Result<Option<T>, SettingError> {
        let value = self.maybe(name).as_deref().map(parse).transpose();
        value.map_err(|Malformed(what)| SettingError { name, what })
    }

    /// A setting that is `true` or `false`; `false` by default.
    pub fn flag(&self, name: &'static str) -> Result<bool, SettingError> {
        self.text_or(name, "false").parse().map_err(|_| SettingError {
            name,
            what: "must be true or false",
        })
    }

    /// A positive duration with a default.
    pub fn duration_or(&self, name: &'static str, default: SignedDuration) -> Result<SignedDuration, SettingError> {
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

    /// How responses show activations: `TIME_ZONE`, `CONFIRMATION_CODE_ECHO`, `CODE_KEPT`, `INSTALL_WITHIN`.
    pub fn presenter(&self) -> Result<Presenter, SettingError> {
        Ok(Presenter {
            zone: self.time_zone()?,
            echo: self.echo()?,
            code_kept: self.code_kept()?,
            install_within: self.install_within()?,
        })
    }

    /// `TIME_ZONE`: the IANA name of a time zone; Europe/Amsterdam by default.
    pub fn time_zone(&self) -> Result<TimeZone, SettingError> {
        TimeZone::get(&self.text_or("TIME_ZONE", "Europe/Amsterdam")).map_err(|_| SettingError {
            name: "TIME_ZONE",
            what: "must be the name of a time zone",
        })
    }

    /// `CONFIRMATION_CODE_ECHO`: `given` by default, or `masked`.
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

    /// `CODE_KEPT`: how long after the end of a swap its confirmation code and matching id are stored; 720 hours by
    /// default.
    fn code_kept(&self) -> Result<SignedDuration, SettingError> {
        self.duration_or("CODE_KEPT", SignedDuration::from_hours(30 * 24))
    }

    /// The deadlines of swaps: `LEASE`, `RETRY_AFTER`, `ASK_AFTER`, `ASK_AT_MOST`, `ORDER_WITHIN`, `INSTALL_WITHIN`,
    /// `REMIND_BEFORE`, `SETTLE_WITHIN`, `CALL_REST`, `SIM_REST`, `CODE_KEPT`, `RECORDS_KEPT`.
    pub fn deadlines(&self) -> Result<Deadlines, SettingError> {
        Ok(Deadlines {
            lease: self.lease()?,
            retry_after: self.duration_or("RETRY_AFTER", SignedDuration::from_mins(1))?,
            poll_after: self.duration_or("ASK_AFTER", SignedDuration::from_mins(5))?,
            poll_at_most: self.duration_or("ASK_AT_MOST", SignedDuration::from_hours(1))?,
            order_within: self.duration_or("ORDER_WITHIN", SignedDuration::from_hours(24))?,
            install_within: self.install_within()?,
            remind_before: self.duration_or("REMIND_BEFORE", SignedDuration::from_hours(24))?,
            settle_within: self.duration_or("SETTLE_WITHIN", SignedDuration::from_hours(7 * 24))?,
            call_lifetime: self.duration_or("CALL_REST", SignedDuration::from_mins(10))?,
            sim_cooldown: self.duration_or("SIM_REST", SignedDuration::from_hours(24))?,
            code_kept: self.code_kept()?,
            records_kept: self.duration_or("RECORDS_KEPT", SignedDuration::from_hours(3 * 365 * 24))?,
        })
    }

    /// `INSTALL_WITHIN`: how long an eSIM can be installed, from the request; 14 days by default.
    pub fn install_within(&self) -> Result<SignedDuration, SettingError> {
        self.duration_or("INSTALL_WITHIN", SignedDuration::from_hours(14 * 24))
    }

    /// `SMDP_STATUS`: whether the SM-DP+ has the function `getProfileStatus`, which is not in the standard; by default it
    /// has not.
    pub fn smdp_has_status(&self) -> Result<bool, SettingError> {
        match self.text_or("SMDP_STATUS", "").as_str() {
            "" => Ok(false),
            "getProfileStatus" => Ok(true),
            _ => Err(SettingError {
                name: "SMDP_STATUS",
                what: "must be getProfileStatus or empty",
            }),
        }
    }

    /// `LEASE`: how long a claim on a swap or a mail lasts; 1 minute by default.
    pub fn lease(&self) -> Result<SignedDuration, SettingError> {
        self.duration_or("LEASE", SignedDuration::from_mins(1))
    }

    /// The deadlines of mails: `MAIL_DOUBT`, `MAIL_RETRY_AFTER` and `LEASE`. SES reports what becomes of mails only if
    /// `MAIL_CONFIGURATION_SET` is set.
    pub fn mail_deadlines(&self) -> Result<MailDeadlines, SettingError> {
        // Reports arrive within minutes. Only when none has arrived for much longer is a mail sent a third time.
        const SILENCE_IN_DOUBTS: i32 = 4;
        let doubt = self.duration_or("MAIL_DOUBT", SignedDuration::from_mins(15))?;
        let reports = self.maybe("MAIL_CONFIGURATION_SET").is_some();
        Ok(MailDeadlines {
            doubt,
            refusal: self.duration_or("MAIL_RETRY_AFTER", SignedDuration::from_mins(1))?,
            lease: self.lease()?,
            silence: reports.then(|| doubt * SILENCE_IN_DOUBTS),
        })
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
    fn errors_name_the_setting() {
        let with = |name: &'static str, value: &'static str| {
            Settings::new(move |requested| (requested == name).then(|| value.to_owned()))
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
        let number = |text: &str| text.parse::<u32>().map_err(|_| Malformed("must be a number"));
        assert_eq!(with("N", "").optional("N", number), Ok(None));
        assert_eq!(with("N", "7").optional("N", number), Ok(Some(7)));
        assert_eq!(
            with("N", "few").optional("N", number).unwrap_err().to_string(),
            "the setting N must be a number"
        );
        assert!(with("TIME_ZONE", "Mars/Base").time_zone().is_err());
        assert!(with("CONFIRMATION_CODE_ECHO", "no").echo().is_err());
    }
}
