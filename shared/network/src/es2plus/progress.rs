//! The ES2+ callback `handleDownloadProgressInfo` (GSMA SGP.22 section 5.3.5): read leniently, and what it means.

use domain::Iccid;
use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};

use super::wire::{ExecutionStatus, RequestHeader, iccid};

/// What an SM-DP+ reports of a phone. Written as the standard says; read as the vendors write it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Raw")]
pub struct DownloadProgressInfo {
    /// Who reports.
    pub header: RequestHeader,
    /// The phone's chip, when the SM-DP+ says it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub eid: Option<String>,
    /// The profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
    /// The kind of profile.
    pub profile_type: String,
    /// When it happened.
    pub timestamp: Timestamp,
    /// Which step: 1 eligibility, 2 confirmation, 3 download, 4 installation; above that the vendors differ.
    pub notification_point_id: u32,
    /// How the step went.
    pub notification_point_status: ExecutionStatus,
    /// The phone's own report, base64 of DER.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub result_data: Option<String>,
}

/// What a callback means for the profile.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Progress {
    /// A phone has it.
    Downloaded,
    /// A phone has installed it.
    Installed,
    /// The SM-DP+ or the phone has given it up.
    ProfileFailed,
    /// A customer typed a wrong confirmation code, and may try again.
    WrongCode,
    /// Nothing that moves a swap.
    Other,
}

impl DownloadProgressInfo {
    /// The id says which step, the status how it went. Steps above 4 mean nothing without a map of that SM-DP+.
    pub fn progress(&self) -> Progress {
        let status = &self.notification_point_status;
        match (self.notification_point_id, status.is_success()) {
            (3, true) => Progress::Downloaded,
            (4, true) => Progress::Installed,
            (1 | 4, false) => Progress::ProfileFailed,
            (2 | 3, false) => match status.codes() {
                // The order ran out of time or of downloads, whichever step found out.
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
    header: RequestHeader,
    eid: Option<String>,
    #[serde(with = "iccid")]
    iccid: Iccid,
    profile_type: String,
    timestamp: Option<Moment>,
    // One vendor's spelling.
    #[serde(rename = "timeStamp")]
    time_stamp: Option<Moment>,
    #[serde(deserialize_with = "number_or_digits")]
    notification_point_id: u32,
    notification_point_status: ExecutionStatus,
    result_data: Option<String>,
}

/// RFC 3339, or seconds since 1970 as a number or in digits.
#[derive(Deserialize)]
#[serde(untagged)]
enum Moment {
    Seconds(i64),
    Text(String),
}

impl TryFrom<Raw> for DownloadProgressInfo {
    type Error = &'static str;

    fn try_from(raw: Raw) -> Result<Self, &'static str> {
        let moment = raw
            .timestamp
            .or(raw.time_stamp)
            .ok_or("missing field `timestamp`")?;
        let seconds = match &moment {
            Moment::Seconds(seconds) => Some(*seconds),
            Moment::Text(text) => text.parse().ok(),
        };
        let timestamp = match (seconds, &moment) {
            (Some(seconds), _) => Timestamp::from_second(seconds).ok(),
            (None, Moment::Text(text)) => text.parse().ok(),
            (None, Moment::Seconds(_)) => None,
        };
        Ok(Self {
            header: raw.header,
            eid: raw.eid,
            iccid: raw.iccid,
            profile_type: raw.profile_type,
            timestamp: timestamp.ok_or("`timestamp` must be a date and time with an offset")?,
            notification_point_id: raw.notification_point_id,
            notification_point_status: raw.notification_point_status,
            result_data: raw.result_data,
        })
    }
}

fn number_or_digits<'de, D: Deserializer<'de>>(from: D) -> Result<u32, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Wire {
        Number(u32),
        Digits(String),
    }
    match Wire::deserialize(from)? {
        Wire::Number(number) => Ok(number),
        Wire::Digits(digits) => digits.parse().map_err(D::Error::custom),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn worked() -> Value {
        json!({
            "header": {"functionRequesterIdentifier": "smdp.example.test", "functionCallIdentifier": "N-77"},
            "iccid": "8931087000000000012F", "profileType": "NL-CONSUMER-1", "timestamp": "2026-11-22T14:05:10Z",
            "notificationPointId": 4, "notificationPointStatus": {"status": "Executed-Success"}, "resultData": "vzeB",
        })
    }

    #[test]
    fn the_worked_exchange_round_trips() {
        let read: DownloadProgressInfo = serde_json::from_value(worked()).unwrap();
        assert_eq!(read.iccid.as_str(), "8931087000000000012");
        assert_eq!(read.progress(), Progress::Installed);
        assert_eq!(serde_json::to_value(&read).unwrap(), worked());
    }

    #[test]
    fn vendors_spellings_are_read() {
        for (key, value, timestamp) in [
            (
                "timestamp",
                json!("2026-11-22T14:05:10Z"),
                "2026-11-22T14:05:10Z",
            ),
            (
                "timestamp",
                json!("2026-11-22T14:37:33.123456+00:00"),
                "2026-11-22T14:37:33.123456Z",
            ),
            (
                "timestamp",
                json!("2026-11-22T15:05:10+01:00"),
                "2026-11-22T14:05:10Z",
            ),
            ("timeStamp", json!(1_795_356_310), "2026-11-22T14:05:10Z"),
            ("timeStamp", json!("1795356310"), "2026-11-22T14:05:10Z"),
        ] {
            let mut body = worked();
            body.as_object_mut().unwrap().remove("timestamp");
            body[key] = value;
            body["notificationPointId"] = json!("4");
            body["eid"] = Value::Null;
            body["imei"] = json!({"unknown": true});
            let read: DownloadProgressInfo = serde_json::from_value(body).unwrap();
            assert_eq!(read.timestamp.to_string(), timestamp);
            assert_eq!(read.notification_point_id, 4);
        }
    }

    #[test]
    fn what_is_missing_or_malformed_is_refused() {
        for key in [
            "header",
            "iccid",
            "profileType",
            "timestamp",
            "notificationPointId",
            "notificationPointStatus",
        ] {
            let mut body = worked();
            body.as_object_mut().unwrap().remove(key);
            assert!(
                serde_json::from_value::<DownloadProgressInfo>(body).is_err(),
                "{key}"
            );
        }
        for (key, value) in [
            ("iccid", json!("12")),
            ("timestamp", json!("2026-11-22T14:05:10")),
            ("timestamp", json!(i64::MAX)),
            ("notificationPointId", json!("four")),
            ("notificationPointId", json!(-1)),
            ("notificationPointStatus", json!({"status": "Perhaps"})),
        ] {
            let mut body = worked();
            body[key] = value;
            assert!(
                serde_json::from_value::<DownloadProgressInfo>(body).is_err(),
                "{key}"
            );
        }
    }

    #[test]
    fn what_each_callback_means() {
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
            let mut body = worked();
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
