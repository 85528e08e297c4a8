//! The JSON bodies of the ES2+ functions (GSMA SGP.22 sections 5.3 and 6.5.2), for client and server. Secrets have the
//! types of the domain, which are never printed.

use domain::{ConfirmationCode, Iccid, MatchingId};
use jiff::Timestamp;
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::lenient::{self, letters};

/// The HTTP header with the highest version of SGP.22 that we support (SGP.22 section 6.2).
pub const ADMIN_PROTOCOL: (&str, &str) = ("X-Admin-Protocol", "gsma/rsp/v2.5.0");

/// The header object of a request (SGP.22 section 6.5.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestHeader {
    /// The requester: an object identifier or a host name.
    pub function_requester_identifier: String,
    /// The id of the call. A retry has the same id.
    pub function_call_identifier: String,
}

/// The header object of a response (SGP.22 section 6.5.1.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseHeader {
    /// The result.
    pub function_execution_status: ExecutionStatus,
}

/// The result of a function or of a step on the phone (SGP.22 section 5.2.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionStatus {
    /// The status.
    pub status: FunctionStatus,
    /// The reason, if the function failed.
    #[serde(
        default,
        deserialize_with = "lenient::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub status_code_data: Option<StatusCodeData>,
}

impl ExecutionStatus {
    /// A success.
    pub const SUCCESS: Self = Self {
        status: FunctionStatus::Success,
        status_code_data: None,
    };

    /// A failure with these codes.
    pub fn failed(subject: &str, reason: &str, message: &str) -> Self {
        Self {
            status: FunctionStatus::Failed,
            status_code_data: Some(StatusCodeData {
                subject_code: subject.to_owned(),
                reason_code: reason.to_owned(),
                subject_identifier: None,
                message: Some(message.to_owned()),
            }),
        }
    }

    /// Whether the function succeeded, with or without a warning.
    pub fn is_success(&self) -> bool {
        matches!(self.status, FunctionStatus::Success | FunctionStatus::Warning)
    }

    /// The subject code and the reason code. What is not a code is returned as `""`, so both are safe to log. A code
    /// consists of numbers of one or two digits, separated by dots, in at most 16 characters.
    pub fn codes(&self) -> (&str, &str) {
        fn code(text: &str) -> &str {
            let text = text.trim();
            let mut numbers = text.split('.');
            let fits =
                text.len() <= 16 && numbers.all(|n| matches!(n.len(), 1 | 2) && n.bytes().all(|b| b.is_ascii_digit()));
            if fits { text } else { "" }
        }
        self.status_code_data
            .as_ref()
            .map_or(("", ""), |data| (code(&data.subject_code), code(&data.reason_code)))
    }
}

/// The four statuses of a function. Only the letters are read, and their case is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum FunctionStatus {
    /// Carried out.
    #[serde(rename = "Executed-Success")]
    Success,
    /// Carried out with a warning.
    #[serde(rename = "Executed-WithWarning")]
    Warning,
    /// Not carried out.
    Failed,
    /// Not carried out in time.
    Expired,
}

impl<'de> Deserialize<'de> for FunctionStatus {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let word = lenient::text(from)?;
        match letters(&word).as_str() {
            "executedsuccess" => Ok(Self::Success),
            "executedwithwarning" => Ok(Self::Warning),
            "failed" => Ok(Self::Failed),
            "expired" => Ok(Self::Expired),
            _ => Err(D::Error::custom("none of the four verdicts")),
        }
    }
}

/// The reason of a failure.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusCodeData {
    /// The subject: `8.2.1` is the ICCID. Empty if absent.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub subject_code: String,
    /// The reason: `3.9` is "unknown". Empty if absent.
    #[serde(default, deserialize_with = "reason_code")]
    pub reason_code: String,
    /// The value of the subject.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub subject_identifier: Option<String>,
    /// A message for people.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub message: Option<String>,
}

/// Reads a reason code. As JSON numbers, 3.10 and 4.10 lose their zero. No known pair has the reason 3.1 or 4.1, so the
/// zero can be restored.
fn reason_code<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let code = Value::deserialize(from)?;
    let text = lenient::as_text(&code).unwrap_or_default();
    Ok(match text.as_str() {
        "3.1" | "4.1" if code.is_number() => format!("{text}0"),
        _ => text,
    })
}

/// Request of `downloadOrder` (SGP.22 section 5.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadOrder {
    /// The header of the call.
    pub header: RequestHeader,
    /// The EID of the phone's eUICC, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eid: Option<String>,
    /// The ICCID of the profile. In practice, either this field or the profile type is present.
    #[serde(default, with = "optional_iccid", skip_serializing_if = "Option::is_none")]
    pub iccid: Option<Iccid>,
    /// The profile type.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_type: Option<String>,
}

/// Response of `downloadOrder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadOrderResponse {
    /// The result.
    pub header: ResponseHeader,
    /// The ICCID of the profile that was ordered.
    #[serde(default, with = "optional_iccid", skip_serializing_if = "Option::is_none")]
    pub iccid: Option<Iccid>,
}

/// Request of `confirmOrder` (SGP.22 section 5.3.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmOrder {
    /// The header of the call.
    pub header: RequestHeader,
    /// The ICCID of the profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
    /// The EID of the phone's eUICC, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eid: Option<String>,
    /// The matching id of the order. The SM-DP+ generates one if it is absent.
    #[serde(default, with = "optional_matching_id", skip_serializing_if = "Option::is_none")]
    pub matching_id: Option<MatchingId>,
    /// The code that the phone asks the customer for.
    #[serde(default, with = "optional_code", skip_serializing_if = "Option::is_none")]
    pub confirmation_code: Option<ConfirmationCode>,
    /// The SM-DS that announces the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smds_address: Option<String>,
    /// Whether phones may download the profile at once.
    pub release_flag: bool,
}

/// Response of `confirmOrder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmOrderResponse {
    /// The result.
    pub header: ResponseHeader,
    /// The EID of the phone's eUICC, if known.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub eid: Option<String>,
    /// The matching id of the order.
    #[serde(default, with = "optional_matching_id", skip_serializing_if = "Option::is_none")]
    pub matching_id: Option<MatchingId>,
    /// The server from which phones download the profile. A value that is not a text is read as its JSON in brackets,
    /// so that it counts as an invalid address and not as an absent one.
    #[serde(default, deserialize_with = "maybe_address", skip_serializing_if = "Option::is_none")]
    pub smdp_address: Option<String>,
}

fn maybe_address<'de, D: Deserializer<'de>>(from: D) -> Result<Option<String>, D::Error> {
    Ok(match Value::deserialize(from)? {
        Value::Null => None,
        Value::String(text) => Some(text),
        other => Some(format!("[{other}]")),
    })
}

/// Request of `releaseProfile` (SGP.22 section 5.3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseProfile {
    /// The header of the call.
    pub header: RequestHeader,
    /// The ICCID of the profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
}

/// Response of `releaseProfile`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseProfileResponse {
    /// The result.
    pub header: ResponseHeader,
}

/// Request of `cancelOrder` (SGP.22 section 5.3.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelOrder {
    /// The header of the call.
    pub header: RequestHeader,
    /// The ICCID of the profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
    /// The EID of the phone's eUICC, if known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eid: Option<String>,
    /// The matching id of the order.
    #[serde(default, with = "optional_matching_id", skip_serializing_if = "Option::is_none")]
    pub matching_id: Option<MatchingId>,
    /// The state of the profile after the cancellation.
    pub final_profile_status_indicator: FinalStatus,
}

/// The state of a profile after its order was cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinalStatus {
    /// The profile can be ordered again.
    Available,
    /// The profile can never be ordered again.
    Unavailable,
}

/// Response of `cancelOrder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrderResponse {
    /// The result.
    pub header: ResponseHeader,
}

/// Request of `getProfileStatus`, which some vendors add to the standard.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetProfileStatus {
    /// The header of the call.
    pub header: RequestHeader,
    /// The profiles.
    pub iccid_list: Vec<ProfileIccid>,
}

/// An entry of the list in a `getProfileStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileIccid {
    /// The ICCID of the profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
}

/// Response of `getProfileStatus`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct GetProfileStatusResponse {
    /// The result.
    pub header: ResponseHeader,
    /// The profiles that the SM-DP+ has. Entries that cannot be read are left out.
    #[serde(default, deserialize_with = "lenient::list")]
    pub profile_status_list: Vec<ProfileStatusEntry>,
}

/// A profile in the response of `getProfileStatus`. Its `acToken`, which is a secret, and its `lockFlag` are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProfileStatusEntry {
    /// The ICCID of the profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
    /// The EID of the phone's eUICC, if known.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub eid: Option<String>,
    /// The state, in the SM-DP+'s own word. Empty if absent.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub state: String,
    /// When the profile entered the state. A date that cannot be read counts as absent.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_date",
        skip_serializing_if = "Option::is_none"
    )]
    pub status_last_update_timestamp: Option<Timestamp>,
}

/// The state of a profile as an SM-DP+ reports it. Only the letters of its word are read, and their case is ignored.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReportedState {
    /// Not ordered.
    Available,
    /// Ordered, and not ready for download: `Allocated`, `Linked` or `Confirmed`.
    Ordered,
    /// Ready for download.
    Released,
    /// Downloaded to a phone.
    Downloaded,
    /// Installed on a phone.
    Installed,
    /// Installed and in use.
    Enabled,
    /// Installed and not in use.
    Disabled,
    /// Deleted from the phone.
    Deleted,
    /// Not to be installed under its order: `Error` or `Unavailable`.
    Failed,
    /// Any other word.
    Unknown,
}

impl ReportedState {
    /// The state that this word means.
    pub fn of_word(word: &str) -> Self {
        match letters(word).as_str() {
            "available" => Self::Available,
            "ordered" | "allocated" | "linked" | "confirmed" => Self::Ordered,
            "released" => Self::Released,
            "downloaded" => Self::Downloaded,
            "installed" => Self::Installed,
            "enabled" => Self::Enabled,
            "disabled" => Self::Disabled,
            "deleted" => Self::Deleted,
            "failed" | "error" | "unavailable" => Self::Failed,
            _ => Self::Unknown,
        }
    }
}

/// An ICCID in JSON. An ICCID of 19 digits is padded with `F` to 20 when it is written. Padding is dropped on reading.
pub(super) mod iccid {
    use super::{Iccid, lenient};
    use domain::Malformed;
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    pub(in crate::es2plus) fn serialize<S: Serializer>(iccid: &Iccid, to: S) -> Result<S::Ok, S::Error> {
        let digits = iccid.as_str();
        let pad = if digits.len() == 19 { "F" } else { "" };
        to.collect_str(&format_args!("{digits}{pad}"))
    }

    pub(in crate::es2plus) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Iccid, D::Error> {
        let text = lenient::text(from)?;
        read(&text).map_err(D::Error::custom)
    }

    pub(super) fn read(text: &str) -> Result<Iccid, Malformed> {
        Iccid::parse(text.trim().trim_end_matches(['F', 'f']))
    }
}

mod optional_iccid {
    use super::{Iccid, iccid, lenient};
    use serde::de::Error;
    use serde::{Deserializer, Serializer};

    pub(super) fn serialize<S: Serializer>(iccid: &Option<Iccid>, to: S) -> Result<S::Ok, S::Error> {
        match iccid {
            Some(iccid) => iccid::serialize(iccid, to),
            None => to.serialize_none(),
        }
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Iccid>, D::Error> {
        let text = lenient::text_or_empty(from)?;
        match text.trim() {
            "" => Ok(None),
            text => iccid::read(text).map(Some).map_err(D::Error::custom),
        }
    }
}

mod optional_matching_id {
    use super::{MatchingId, lenient};
    use serde::de::Error;
    use serde::{Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(id: &Option<MatchingId>, to: S) -> Result<S::Ok, S::Error> {
        id.as_ref().map(MatchingId::expose).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<MatchingId>, D::Error> {
        let text = lenient::text_or_empty(from)?;
        match text.trim() {
            "" => Ok(None),
            text => MatchingId::parse(text).map(Some).map_err(D::Error::custom),
        }
    }
}

mod optional_code {
    use super::ConfirmationCode;
    use serde::de::Error;
    use serde::{Deserialize, Deserializer, Serialize, Serializer};

    pub(super) fn serialize<S: Serializer>(code: &Option<ConfirmationCode>, to: S) -> Result<S::Ok, S::Error> {
        code.as_ref().map(ConfirmationCode::expose).serialize(to)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Option<ConfirmationCode>, D::Error> {
        Option::<String>::deserialize(from)?
            .map(|text| ConfirmationCode::parse(&text).map_err(D::Error::custom))
            .transpose()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn iccids_are_padded_when_written_and_stripped_when_read() {
        for (stored, wire) in [
            ("893108700000000001", "893108700000000001"),
            ("8931087000000000012", "8931087000000000012F"),
            ("89310870000000000123", "89310870000000000123"),
        ] {
            let header = json!({"functionRequesterIdentifier": "r", "functionCallIdentifier": "c"});
            let release: ReleaseProfile = serde_json::from_value(json!({"header": header, "iccid": wire})).unwrap();
            assert_eq!(release.iccid.as_str(), stored);
            assert_eq!(
                serde_json::to_value(&release).unwrap(),
                json!({"header": header, "iccid": wire})
            );
        }
        let response: DownloadOrderResponse = serde_json::from_value(json!({
            "header": {"functionExecutionStatus": {"status": "Executed-Success"}},
            "iccid": "893108700000000001ff",
        }))
        .unwrap();
        assert_eq!(response.iccid.unwrap().as_str(), "893108700000000001");
    }

    #[test]
    fn a_request_does_not_print_its_secrets() {
        let order: ConfirmOrder = serde_json::from_value(json!({
            "header": {"functionRequesterIdentifier": "r", "functionCallIdentifier": "c"},
            "iccid": "8931087000000000012F",
            "matchingId": "QX7PD-3M8ZK-A91TR",
            "confirmationCode": "8E9!#",
            "releaseFlag": true,
        }))
        .unwrap();
        let printed = format!("{order:?}");
        assert!(!printed.contains("QX7PD") && !printed.contains("8E9!#"));
    }
}
