//! The ES2+ callback `handleDownloadProgressInfo` (GSMA SGP.22 section 5.3.5): its body, and what it means for a
//! profile.

use domain::Iccid;
use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::wire::{ExecutionStatus, RequestHeader, iccid};
use crate::lenient;

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
    /// The profile cannot be installed any more.
    ProfileFailed,
    /// A customer entered a wrong confirmation code and can retry.
    WrongCode,
    /// Nothing that concerns a swap.
    Other,
}

impl DownloadProgressInfo {
    /// The meaning of the callback. Steps above 4 are ignored, because their meaning depends on the vendor.
    pub fn progress(&self) -> Progress {
        let status = &self.notification_point_status;
        match (self.notification_point_id, status.is_success()) {
            (3, true) => Progress::Downloaded,
            (4, true) => Progress::Installed,
            (1 | 4, false) => Progress::ProfileFailed,
            (2 | 3, false) => match status.codes() {
                // The order expired or has no download left, whichever step detected it.
                ("8.8.5", "4.10" | "6.4") => Progress::ProfileFailed,
                ("8.2.7", "6.4") if self.notification_point_id == 2 => Progress::ProfileFailed,
                ("8.2.7", "3.8") if self.notification_point_id == 2 => Progress::WrongCode,
                _ => Progress::Other,
            },
            _ => Progress::Other,
        }
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
            assert_eq!(read.fact(now), Some(domain::Fact::Installed { dated }));
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
        use Progress::*;
        for (point, status, codes, expected) in [
            (1, "Executed-Success", "", Other),
            (1, "Failed", "8.1.1/3.8", ProfileFailed),
            (1, "Expired", "", ProfileFailed),
            (2, "Executed-Success", "", Other),
            (2, "Failed", "8.2.7/3.8", WrongCode),
            (2, "Failed", "8.2.7/6.4", ProfileFailed),
            (2, "Failed", "8.2.7/2.2", Other),
            (2, "Failed", "8.8.5/6.4", ProfileFailed),
            (2, "Failed", "", Other),
            (3, "Executed-Success", "", Downloaded),
            (3, "Executed-WithWarning", "", Downloaded),
            (3, "Failed", "8.2.7/3.8", Other),
            (3, "Failed", "", Other),
            (3, "Expired", "8.8.5/4.10", ProfileFailed),
            (4, "Executed-Success", "", Installed),
            (4, "Executed-WithWarning", "", Installed),
            (4, "Failed", "8.1/4.8", ProfileFailed),
            (4, "Expired", "", ProfileFailed),
            (0, "Failed", "", Other),
            (5, "Executed-Success", "", Other),
            (5, "Failed", "8.8.5/4.10", Other),
            (100, "Executed-Success", "", Other),
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
        }
    }
}
