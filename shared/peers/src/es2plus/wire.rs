//! Bodies of the ES2+ functions (GSMA SGP.22 sections 5.3 and 6.5.2), for client and server. Secrets stay in their types.

use domain::{ConfirmationCode, Iccid, MatchingId};
use serde::de::Error;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

use crate::lenient::{self, letters};

/// The header that names the highest version of SGP.22 that we speak (section 6.2).
pub const ADMIN_PROTOCOL: (&str, &str) = ("X-Admin-Protocol", "gsma/rsp/v2.5.0");

/// The header object of a request (section 6.5.1.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct RequestHeader {
    /// Who asks: an object identifier or a host name.
    pub function_requester_identifier: String,
    /// Names the call; the same on a repeat.
    pub function_call_identifier: String,
}

/// The header object of an answer (section 6.5.1.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ResponseHeader {
    /// How it went.
    pub function_execution_status: ExecutionStatus,
}

/// How a function, or a step on the phone, went (section 5.2.6).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ExecutionStatus {
    /// The verdict.
    pub status: FunctionStatus,
    /// Why, when it did not succeed.
    #[serde(
        default,
        deserialize_with = "lenient::maybe",
        skip_serializing_if = "Option::is_none"
    )]
    pub status_code_data: Option<StatusCodeData>,
}

impl ExecutionStatus {
    /// Done.
    pub const SUCCESS: Self = Self {
        status: FunctionStatus::Success,
        status_code_data: None,
    };

    /// Not done, for this reason.
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

    /// Whether it was done, with a warning or without.
    pub fn is_success(&self) -> bool {
        matches!(self.status, FunctionStatus::Success | FunctionStatus::Warning)
    }

    /// Subject and reason, each `""` unless it is a code: numbers of one or two digits, with dots between them, in up to 16
    /// characters. So they can be logged.
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

/// The four verdicts. Only their letters are read, large or small.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum FunctionStatus {
    /// Done.
    #[serde(rename = "Executed-Success")]
    Success,
    /// Done, with a remark.
    #[serde(rename = "Executed-WithWarning")]
    Warning,
    /// Not done.
    Failed,
    /// Not done in time.
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

/// Why something did not succeed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct StatusCodeData {
    /// What it is about: `8.2.1` is the ICCID. Empty when it is not said.
    #[serde(default, deserialize_with = "lenient::text_or_empty")]
    pub subject_code: String,
    /// What is wrong with it: `3.9` is "unknown". Empty when it is not said.
    #[serde(default, deserialize_with = "reason_code")]
    pub reason_code: String,
    /// Which one.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub subject_identifier: Option<String>,
    /// In words.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub message: Option<String>,
}

/// As a number, 3.10 and 4.10 lose their zero; 3.1 and 4.1 stand in no pair that we know.
fn reason_code<'de, D: Deserializer<'de>>(from: D) -> Result<String, D::Error> {
    let code = Value::deserialize(from)?;
    let text = lenient::as_text(&code).unwrap_or_default();
    Ok(match text.as_str() {
        "3.1" | "4.1" if code.is_number() => format!("{text}0"),
        _ => text,
    })
}

/// Request of `downloadOrder` (section 5.3.1).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct DownloadOrder {
    /// Who asks.
    pub header: RequestHeader,
    /// The phone's chip, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eid: Option<String>,
    /// The profile; one of it and the type is there in practice.
    #[serde(default, with = "optional_iccid", skip_serializing_if = "Option::is_none")]
    pub iccid: Option<Iccid>,
    /// The kind of profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub profile_type: Option<String>,
}

/// Answer of `downloadOrder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DownloadOrderResponse {
    /// How it went.
    pub header: ResponseHeader,
    /// The profile that was ordered.
    #[serde(default, with = "optional_iccid", skip_serializing_if = "Option::is_none")]
    pub iccid: Option<Iccid>,
}

/// Request of `confirmOrder` (section 5.3.2).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmOrder {
    /// Who asks.
    pub header: RequestHeader,
    /// The profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
    /// The phone's chip, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eid: Option<String>,
    /// The order's name toward phones; the SM-DP+ makes one when it is absent.
    #[serde(default, with = "optional_matching_id", skip_serializing_if = "Option::is_none")]
    pub matching_id: Option<MatchingId>,
    /// The code that the phone will ask for.
    #[serde(default, with = "optional_code", skip_serializing_if = "Option::is_none")]
    pub confirmation_code: Option<ConfirmationCode>,
    /// Where to announce the profile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub smds_address: Option<String>,
    /// Whether phones may fetch it at once.
    pub release_flag: bool,
}

/// Answer of `confirmOrder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct ConfirmOrderResponse {
    /// How it went.
    pub header: ResponseHeader,
    /// The phone's chip, when known.
    #[serde(
        default,
        deserialize_with = "lenient::maybe_text",
        skip_serializing_if = "Option::is_none"
    )]
    pub eid: Option<String>,
    /// The order's name toward phones.
    #[serde(default, with = "optional_matching_id", skip_serializing_if = "Option::is_none")]
    pub matching_id: Option<MatchingId>,
    /// Where phones find the profile. What is no text is kept, in brackets: it is no address, which is not the same as none.
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

/// Request of `releaseProfile` (section 5.3.4).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseProfile {
    /// Who asks.
    pub header: RequestHeader,
    /// The profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
}

/// Answer of `releaseProfile`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReleaseProfileResponse {
    /// How it went.
    pub header: ResponseHeader,
}

/// Request of `cancelOrder` (section 5.3.3).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct CancelOrder {
    /// Who asks.
    pub header: RequestHeader,
    /// The profile.
    #[serde(with = "iccid")]
    pub iccid: Iccid,
    /// The phone's chip, when known.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub eid: Option<String>,
    /// The order's name toward phones.
    #[serde(default, with = "optional_matching_id", skip_serializing_if = "Option::is_none")]
    pub matching_id: Option<MatchingId>,
    /// What becomes of the profile.
    pub final_profile_status_indicator: FinalStatus,
}

/// What becomes of a profile whose order is cancelled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum FinalStatus {
    /// It can be ordered again.
    Available,
    /// It is given up.
    Unavailable,
}

/// Answer of `cancelOrder`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CancelOrderResponse {
    /// How it went.
    pub header: ResponseHeader,
}

/// An ICCID on the wire: one of 19 digits is padded with `F` to 20, and any padding is dropped on reading.
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
    fn iccids_are_padded_out_and_stripped_in() {
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
        let padded: DownloadOrderResponse = serde_json::from_value(json!({
            "header": {"functionExecutionStatus": {"status": "Executed-Success"}},
            "iccid": "893108700000000001ff",
        }))
        .unwrap();
        assert_eq!(padded.iccid.unwrap().as_str(), "893108700000000001");
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
