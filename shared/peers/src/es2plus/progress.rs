//! The ES2+ callback `handleDownloadProgressInfo` (GSMA SGP.22 section 5.3.5), in v3 `handleNotification`: its body,
//! and what it means for a profile.

use domain::Iccid;
use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::wire::{ExecutionStatus, RequestHeader, iccid};
use crate::lenient;
use crate::response::codes;

/// A report of the SM-DP+ on the download or installation. It is written as in the standard and read leniently, because
/// vendors deviate from the standard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", from = "Raw")]
pub struct DownloadProgressInfo {
    /// The header of the call.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub header: Option<RequestHeader>,
    /// The EID of the phone's eUICC, if the SM-DP+ reports it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eid: Option<String>,
    /// The ICCID of the profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
    /// The profile type.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub profile_type: Option<String>,
    /// When the step ended. A date that cannot be read counts as absent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub timestamp: Option<Timestamp>,
    /// The step: 1 eligibility check, 2 confirmation, 3 download, 4 installation. Vendors use higher numbers
    /// differently.
    pub notification_point_id: u32,
    /// The result of the step.
    pub notification_point_status: ExecutionStatus,
    /// The phone's own report, in DER and base64.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_data: Option<String>,
}

/// The meaning of a callback for the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A phone downloaded the profile.
    Downloaded,
    /// A phone installed the profile.
    Installed,
    /// The profile cannot be installed any more under its order.
    Failed(FailedBecause),
    /// A customer entered a wrong confirmation code and can retry.
    WrongCode,
    /// The success of a step above 4. What the step is depends on the vendor.
    Point(u32),
    /// Nothing that concerns a swap.
    Other,
}

/// Why a profile cannot be installed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FailedBecause {
    /// Too many wrong confirmation codes were entered.
    CodesUsedUp,
    /// The profile was downloaded too many times.
    DownloadsUsedUp,
    /// The phone is not eligible: its EID is unknown, or another EID is tied to the profile.
    WrongDevice,
    /// The phone has no room for another profile.
    NoRoom,
    /// Any other reason, or none.
    Other,
}

impl DownloadProgressInfo {
    /// The meaning of the callback.
    pub fn progress(&self) -> Progress {
        let status = &self.notification_point_status;
        if status.is_success() {
            return match self.notification_point_id {
                3 => Progress::Downloaded,
                4 => Progress::Installed,
                point @ 5.. => Progress::Point(point),
                _ => Progress::Other,
            };
        }
        match (self.notification_point_id, status.codes()) {
            // The order has no download left or expired, whichever step detected it.
            (1..=4, ("8.8.5", "6.4")) => Progress::Failed(FailedBecause::DownloadsUsedUp),
            (2 | 3, ("8.8.5", "4.10")) => Progress::Failed(FailedBecause::Other),
            (2, ("8.2.7", "6.4")) => Progress::Failed(FailedBecause::CodesUsedUp),
            (2, ("8.2.7", "3.8")) => Progress::WrongCode,
            (1 | 4, ("8.1.1", _)) => Progress::Failed(FailedBecause::WrongDevice),
            (1 | 4, ("8.1", "4.8")) => Progress::Failed(FailedBecause::NoRoom),
            (1 | 4, _) => Progress::Failed(FailedBecause::Other),
            _ => Progress::Other,
        }
    }

    /// The codes of the status in the format of the timeline, `8.1/4.8`, if it has both.
    pub fn codes(&self) -> Option<String> {
        match self.notification_point_status.codes() {
            ("", _) | (_, "") => None,
            (subject, reason) => Some(codes(subject, reason)),
        }
    }

    /// The last four digits of the EID, if it has the 32 digits of one.
    pub fn eid_end(&self) -> Option<&str> {
        let eid = self.eid.as_deref()?.trim();
        (eid.len() == 32 && eid.bytes().all(|byte| byte.is_ascii_digit())).then(|| &eid[28..])
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Raw {
    #[serde(default, deserialize_with = "lenient::maybe")]
    header: Option<RequestHeader>,
    #[serde(default, deserialize_with = "lenient::maybe_text")]
    eid: Option<String>,
    #[serde(with = "iccid")]
    iccid: Iccid,
    #[serde(default, deserialize_with = "lenient::maybe_text")]
    profile_type: Option<String>,
    #[serde(default, deserialize_with = "lenient::maybe_date")]
    timestamp: Option<Timestamp>,
    // The spelling of one vendor.
    #[serde(default, rename = "timeStamp", deserialize_with = "lenient::maybe_date")]
    time_stamp: Option<Timestamp>,
    #[serde(deserialize_with = "number_or_digits")]
    notification_point_id: u32,
    notification_point_status: ExecutionStatus,
    #[serde(default, deserialize_with = "lenient::maybe_text")]
    result_data: Option<String>,
}

impl From<Raw> for DownloadProgressInfo {
    fn from(raw: Raw) -> Self {
        Self {
            header: raw.header,
            eid: raw.eid,
            iccid: raw.iccid,
            profile_type: raw.profile_type,
            timestamp: raw.timestamp.or(raw.time_stamp),
            notification_point_id: raw.notification_point_id,
            notification_point_status: raw.notification_point_status,
            result_data: raw.result_data,
        }
    }
}

fn number_or_digits<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    let digits = lenient::text(from)?;
    let whole = digits.trim().trim_end_matches(".0");
    whole.parse().map_err(D::Error::custom)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn example() -> Value {
        json!({
            "header": {"functionRequesterIdentifier": "smdp.example.test", "functionCallIdentifier": "N-77"},
            "iccid": "8931087000000000012F", "profileType": "NL-CONSUMER-1", "timestamp": "2026-11-22T14:05:10Z",
            "notificationPointId": 4, "notificationPointStatus": {"status": "Executed-Success"}, "resultData": "vzeB",
        })
    }

    #[test]
    fn the_example_is_read_and_written() {
        let read: DownloadProgressInfo = serde_json::from_value(example()).unwrap();
        assert_eq!(read.iccid.as_str(), "8931087000000000012");
        assert_eq!(read.progress(), Progress::Installed);
        assert_eq!(serde_json::to_value(&read).unwrap(), example());
    }

    #[test]
    fn dates_and_numbers_are_read_leniently() {
        let date = Some("2026-11-22T14:05:10Z");
        for (key, value, expected) in [
            ("timestamp", json!("2026-11-22T14:05:10Z"), date),
            ("timestamp", json!("2026-11-22T15:05:10+01:00"), date),
            ("timestamp", json!("2026-11-22 14:05:10"), date),
            ("timestamp", json!(1_795_356_310_000_i64), date),
            ("timestamp", json!("1795356310000"), date),
            ("timeStamp", json!(1_795_356_310), date),
            ("timeStamp", json!("1795356310"), date),
            ("timestamp", json!("yesterday"), None),
            ("timestamp", json!(i64::MAX), None),
            ("timestamp", Value::Null, None),
            ("other", Value::Null, None),
        ] {
            let mut body = example();
            body.as_object_mut().unwrap().remove("timestamp");
            body[key] = value;
            body["notificationPointId"] = json!("4");
            body["notificationPointStatus"] = json!({"status": "executed_success"});
            body["iccid"] = json!(8_931_087_000_000_000_012_u64);
            body["imei"] = json!({"unknown": true});
            let read: DownloadProgressInfo = serde_json::from_value(body.clone()).unwrap();
            let expected = expected.map(|date| date.parse().unwrap());
            assert_eq!(read.timestamp, expected, "{body}");
            assert_eq!(read.iccid.as_str(), "8931087000000000012");
            assert_eq!(read.progress(), Progress::Installed);
            // Without a readable date, the time of receipt counts.
            let now = "2027-01-01T00:00:00Z".parse().unwrap();
            let dated = expected.unwrap_or(now);
            assert_eq!(
                read.fact(now, &crate::VendorPoints::default()),
                Some(domain::Fact::Installed { dated })
            );
        }
        let mut body = example();
        body["timestamp"] = json!("yesterday");
        body["timeStamp"] = json!(1_795_356_310);
        let read: DownloadProgressInfo = serde_json::from_value(body).unwrap();
        assert_eq!(read.timestamp, date.map(|date| date.parse().unwrap()));
    }

    #[test]
    fn only_the_profile_the_step_and_its_result_are_required() {
        for key in ["header", "profileType", "timestamp", "eid", "resultData"] {
            for value in [None, Some(Value::Null), Some(json!([]))] {
                let mut body = example();
                match value {
                    Some(value) => body[key] = value,
                    None => drop(body.as_object_mut().unwrap().remove(key)),
                }
                let read: DownloadProgressInfo = serde_json::from_value(body.clone()).unwrap();
                assert_eq!(read.progress(), Progress::Installed, "{body}");
                let written = serde_json::to_value(&read).unwrap();
                assert_eq!(written.get(key), None, "an absent field is not written");
            }
        }
        for (key, value) in [
            ("iccid", Value::Null),
            ("iccid", json!("12")),
            ("notificationPointId", Value::Null),
            ("notificationPointId", json!("four")),
            ("notificationPointId", json!(-1)),
            ("notificationPointStatus", Value::Null),
            ("notificationPointStatus", json!({"status": "Perhaps"})),
        ] {
            let mut body = example();
            body[key] = value;
            let read = serde_json::from_value::<DownloadProgressInfo>(body.clone());
            assert!(read.is_err(), "{body}");
        }
    }

    #[test]
    fn each_callback_has_one_meaning() {
        use FailedBecause::*;
        use Progress::{Downloaded, Failed, Installed, Point, WrongCode};
        let other = Progress::Other;
        for (point, status, codes, expected) in [
            (1, "Executed-Success", "", other),
            (1, "Failed", "8.1.1/3.8", Failed(WrongDevice)),
            (1, "Failed", "8.1.1/3.10", Failed(WrongDevice)),
            (1, "Failed", "8.8.5/6.4", Failed(DownloadsUsedUp)),
            (1, "Failed", "8.8.5/4.10", Failed(Other)),
            (1, "Expired", "", Failed(Other)),
            (2, "Executed-Success", "", other),
            (2, "Failed", "8.2.7/3.8", WrongCode),
            (2, "Failed", "8.2.7/6.4", Failed(CodesUsedUp)),
            (2, "Failed", "8.2.7/2.2", other),
            (2, "Failed", "8.8.5/6.4", Failed(DownloadsUsedUp)),
            (2, "Failed", "8.1.1/3.8", other),
            (2, "Failed", "", other),
            (3, "Executed-Success", "", Downloaded),
            (3, "Executed-WithWarning", "", Downloaded),
            (3, "Failed", "8.2.7/3.8", other),
            (3, "Failed", "8.2.7/6.4", other),
            (3, "Failed", "8.1/4.8", other),
            (3, "Failed", "", other),
            (3, "Failed", "8.8.5/6.4", Failed(DownloadsUsedUp)),
            (3, "Expired", "8.8.5/4.10", Failed(Other)),
            (4, "Executed-Success", "", Installed),
            (4, "Executed-WithWarning", "8.1/4.8", Installed),
            (4, "Failed", "8.1/4.8", Failed(NoRoom)),
            (4, "Failed", "8.1/6.1", Failed(Other)),
            (4, "Failed", "8.1.1/3.9", Failed(WrongDevice)),
            (4, "Expired", "", Failed(Other)),
            (0, "Executed-Success", "", other),
            (0, "Failed", "", other),
            (5, "Executed-Success", "", Point(5)),
            (5, "Failed", "8.8.5/6.4", other),
            (100, "Executed-WithWarning", "", Point(100)),
            (100, "Failed", "8.1.1/3.8", other),
        ] {
            let mut body = example();
            body["notificationPointId"] = json!(point);
            body["notificationPointStatus"] = match codes.split_once('/') {
                Some((subject, reason)) => json!({
                    "status": status,
                    "statusCodeData": {"subjectCode": subject, "reasonCode": reason},
                }),
                None => json!({"status": status}),
            };
            let read: DownloadProgressInfo = serde_json::from_value(body).unwrap();
            assert_eq!(read.progress(), expected, "{point} {status} {codes}");
            assert_eq!(read.codes().unwrap_or_default(), codes);
        }
    }

    #[test]
    fn only_an_eid_of_32_digits_has_an_end() {
        for (eid, expected) in [
            (json!("89049032123451234512345678901235"), Some("1235")),
            (json!(" 89049032123451234512345678901235 "), Some("1235")),
            (json!("8904903212345123451234567890123"), None),
            (json!("890490321234512345123456789012355"), None),
            (json!("8904903212345123451234567890123F"), None),
            (json!(""), None),
            (json!(8904), None),
            (Value::Null, None),
        ] {
            let mut body = example();
            body["eid"] = eid;
            let read: DownloadProgressInfo = serde_json::from_value(body.clone()).unwrap();
            assert_eq!(read.eid_end(), expected, "{body}");
        }
    }
}
