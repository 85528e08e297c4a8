//! The client of ES2+ (GSMA SGP.22 v2, sections 5.3 and 6.5, in JSON). When to make which call is not here.

mod progress;
mod wire;

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use domain::{ConfirmationCode, Iccid, MatchingId, SmDpAddress};
use jiff::Timestamp;
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use progress::{DownloadProgressInfo, FailedBecause, Progress};
pub use wire::{
    ADMIN_PROTOCOL, CancelOrder, CancelOrderResponse, ConfirmOrder, ConfirmOrderResponse, DownloadOrder,
    DownloadOrderResponse, ExecutionStatus, FinalStatus, FunctionStatus, GetProfileStatus, GetProfileStatusResponse,
    ProfileIccid, ProfileStatusEntry, ReleaseProfile, ReleaseProfileResponse, ReportedState, RequestHeader,
    ResponseHeader, StatusCodeData,
};

use crate::http::{Call, NoResponse, Reply, exchange};
use crate::lenient::read_json;
use crate::response::{FailureClass, Peer, TransientFailure, codes, is_final};

/// Path of all ES2+ functions, the SM-DP+'s and ours.
pub const PATH: &str = "/gsma/rsp2/es2plus/";

/// The names of the callback that this service serves: the first is that of SGP.22 v2, the second that of v3. Both have
/// the same body and the same response.
pub const CALLBACKS: [&str; 2] = ["handleDownloadProgressInfo", "handleNotification"];

/// Why a function was not certainly carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Es2PlusError {
    /// The SM-DP+ rejected the order finally: `Failed` or `Expired` with a pair of codes of SGP.22 section 5.2.6. Both
    /// codes are empty if the SM-DP+ accepted the order with an invalid server address, because no phone could download
    /// the profile.
    #[error("the SM-DP+ rejected the order: subject {subject:?}, reason {reason:?}")]
    Rejected {
        /// The subject code: `8.2.1` is the ICCID.
        subject: String,
        /// The reason code: `3.3` is "in use".
        reason: String,
        /// When the SM-DP+ responded, by its own clock, in whole seconds.
        date: Option<Timestamp>,
    },
    /// The call decided nothing about the order and has to be retried later.
    #[error("no usable response from the SM-DP+: {0}")]
    Transient(TransientFailure),
}

impl Es2PlusError {
    /// Whether the error has these two codes, final or not.
    pub fn is(&self, subject: &str, reason: &str) -> bool {
        match self {
            Self::Rejected {
                subject: s, reason: r, ..
            } => s == subject && r == reason,
            Self::Transient(failure) => failure.detail == codes(subject, reason),
        }
    }

    /// The SM-DP+'s date of a rejection.
    pub fn date(&self) -> Option<Timestamp> {
        match self {
            Self::Rejected { date, .. } => *date,
            Self::Transient(_) => None,
        }
    }

    /// How the call failed.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Rejected { .. } => FailureClass::Refused,
            Self::Transient(failure) => failure.class,
        }
    }

    /// The codes, the status code or the result in our own words; never a peer's text.
    pub fn detail(&self) -> String {
        match self {
            Self::Rejected { subject, reason, .. } => match (subject.as_str(), reason.as_str()) {
                ("", "") => "no address".to_owned(),
                (subject, reason) => codes(subject, reason),
            },
            Self::Transient(failure) => failure.detail.clone(),
        }
    }

    fn rejected(subject: &str, reason: &str, date: Option<Timestamp>) -> Self {
        Self::Rejected {
            subject: subject.to_owned(),
            reason: reason.to_owned(),
            date,
        }
    }

    fn unreadable() -> Self {
        Self::Transient(TransientFailure::unreadable(Peer::Smdp))
    }
}

impl From<NoResponse> for Es2PlusError {
    fn from(_: NoResponse) -> Self {
        Self::Transient(TransientFailure::no_response(Peer::Smdp))
    }
}

/// A confirmed and released order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// The server from which phones download the profile, if the SM-DP+ names it.
    pub smdp: Option<SmDpAddress>,
    /// When the SM-DP+ responded, by its own clock, in whole seconds. If the call was repeated, the order is older.
    pub date: Option<Timestamp>,
}

/// What the SM-DP+ knows about a profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProfileStatus {
    /// The state.
    pub state: ReportedState,
    /// When the profile entered the state, by the SM-DP+'s clock, if it says so.
    pub since: Option<Timestamp>,
    /// The EID of the phone's eUICC, if the SM-DP+ names it. It may have any length.
    pub eid: Option<String>,
}

/// The client of one SM-DP+. The parameter `call_id` of its functions is the `functionCallIdentifier`. A retry has the
/// same `call_id`, so that the SM-DP+ can recognise it.
#[derive(Debug, Clone)]
pub struct Es2Plus {
    connector: SharedHttpConnector,
    base_url: String,
    requester_id: String,
}

impl Es2Plus {
    /// `base_url` is the part of the URL before `/gsma/rsp2/es2plus/`. `requester_id` is the object identifier by which
    /// the SM-DP+ knows us. Certificates and tokens belong to the connector.
    pub fn new(connector: SharedHttpConnector, base_url: &str, requester_id: &str) -> Self {
        Self {
            connector,
            base_url: base_url.trim_end_matches('/').to_owned(),
            requester_id: requester_id.to_owned(),
        }
    }

    /// Reserves the profile with this ICCID (SGP.22 section 5.3.1).
    ///
    /// # Errors
    /// `8.2.1/3.3` means that the profile is not available or already ordered. A response with another ICCID counts as
    /// a rejection with `8.2.1/3.10`.
    pub async fn download_order(&self, iccid: &Iccid, call_id: &str) -> Result<(), Es2PlusError> {
        let order = DownloadOrder {
            header: self.header(call_id),
            eid: None,
            iccid: Some(iccid.clone()),
            profile_type: None,
        };
        let (response, date): (DownloadOrderResponse, _) = self.call("downloadOrder", &order).await?;
        match response.iccid {
            Some(other) if other != *iccid => Err(Es2PlusError::rejected("8.2.1", "3.10", date)),
            _ => Ok(()),
        }
    }

    /// Confirms the order and releases the profile at once (SGP.22 section 5.3.2).
    ///
    /// # Errors
    /// A response with another matching id counts as a rejection with `8.2.6/3.10`, and one with an invalid server
    /// address as a rejection without codes.
    pub async fn confirm_order(
        &self,
        iccid: &Iccid,
        matching_id: &MatchingId,
        confirmation_code: Option<&ConfirmationCode>,
        call_id: &str,
    ) -> Result<Confirmed, Es2PlusError> {
        let order = ConfirmOrder {
            header: self.header(call_id),
            iccid: iccid.clone(),
            eid: None,
            matching_id: Some(matching_id.clone()),
            confirmation_code: confirmation_code.cloned(),
            smds_address: None,
            release_flag: true,
        };
        let (response, date): (ConfirmOrderResponse, _) = self.call("confirmOrder", &order).await?;
        if response.matching_id.is_some_and(|other| other != *matching_id) {
            return Err(Es2PlusError::rejected("8.2.6", "3.10", date));
        }
        let address = response.smdp_address.unwrap_or_default();
        let smdp = match address.trim() {
            "" => None,
            text => Some(SmDpAddress::normalized(text).map_err(|_| Es2PlusError::rejected("", "", date))?),
        };
        Ok(Confirmed { smdp, date })
    }

    /// Releases a profile whose order was confirmed without a release (SGP.22 section 5.3.4).
    pub async fn release_profile(&self, iccid: &Iccid, call_id: &str) -> Result<(), Es2PlusError> {
        let release = ReleaseProfile {
            header: self.header(call_id),
            iccid: iccid.clone(),
        };
        let _: (ReleaseProfileResponse, _) = self.call("releaseProfile", &release).await?;
        Ok(())
    }

    /// Cancels the order (SGP.22 section 5.3.3).
    ///
    /// # Errors
    /// `8.2.1/3.3` means that the profile is on a phone.
    pub async fn cancel_order(
        &self,
        iccid: &Iccid,
        matching_id: Option<&MatchingId>,
        final_status: FinalStatus,
        call_id: &str,
    ) -> Result<(), Es2PlusError> {
        let cancel = CancelOrder {
            header: self.header(call_id),
            iccid: iccid.clone(),
            eid: None,
            matching_id: matching_id.cloned(),
            final_profile_status_indicator: final_status,
        };
        let _: (CancelOrderResponse, _) = self.call("cancelOrder", &cancel).await?;
        Ok(())
    }

    /// Reads the status of a profile. `getProfileStatus` is not in the standard, so not every SM-DP+ has it. `None`
    /// means that the SM-DP+ does not list the profile.
    ///
    /// # Errors
    /// An SM-DP+ that does not have the function usually responds with a status code other than 200, which is
    /// transient.
    pub async fn profile_status(&self, iccid: &Iccid, call_id: &str) -> Result<Option<ProfileStatus>, Es2PlusError> {
        let request = GetProfileStatus {
            header: self.header(call_id),
            iccid_list: vec![ProfileIccid { iccid: iccid.clone() }],
        };
        let (response, _): (GetProfileStatusResponse, _) = self.call("getProfileStatus", &request).await?;
        let mut listed = response.profile_status_list.into_iter();
        let found = listed.find(|entry| entry.iccid == *iccid);
        Ok(found.map(|entry| ProfileStatus {
            state: ReportedState::of_word(&entry.state),
            since: entry.status_last_update_timestamp,
            eid: entry.eid.filter(|eid| !eid.trim().is_empty()),
        }))
    }

    fn header(&self, call_id: &str) -> RequestHeader {
        RequestHeader {
            function_requester_identifier: self.requester_id.clone(),
            function_call_identifier: call_id.to_owned(),
        }
    }

    /// Calls a function. Returns the response and its date.
    async fn call<A: DeserializeOwned>(
        &self,
        function: &str,
        request: &impl Serialize,
    ) -> Result<(A, Option<Timestamp>), Es2PlusError> {
        let reply = exchange(
            &self.connector,
            Call {
                method: "POST",
                url: &format!("{}{PATH}{function}", self.base_url),
                headers: &[ADMIN_PROTOCOL],
                body: serde_json::to_vec(request).expect("the request types are plain JSON"),
            },
        )
        .await?;
        if reply.status != 200 {
            tracing::warn!(function, status = reply.status, "the SM-DP+ did not respond with 200");
            let failure = TransientFailure::of_status(Peer::Smdp, reply.status, reply.retry_after);
            return Err(Es2PlusError::Transient(failure));
        }
        let response = parse_response(&reply).inspect_err(|error| match error {
            Es2PlusError::Rejected { .. } => tracing::info!(function, %error, "the SM-DP+ rejected the order"),
            Es2PlusError::Transient(_) => {
                tracing::warn!(function, %error, "the SM-DP+'s response decides nothing");
            }
        })?;
        Ok((response, reply.date))
    }
}

/// Reads a response: the header first, and the rest only if the header reports a success (SGP.22 section 6.5.1.4).
fn parse_response<A: DeserializeOwned>(reply: &Reply) -> Result<A, Es2PlusError> {
    #[derive(serde::Deserialize)]
    struct Head {
        header: ResponseHeader,
    }
    let head: Head = read_json(&reply.body).map_err(|_| Es2PlusError::unreadable())?;
    let status = head.header.function_execution_status;
    if status.is_success() {
        return read_json(&reply.body).map_err(|_| Es2PlusError::unreadable());
    }
    let (subject, reason) = status.codes();
    Err(match is_final(subject, reason) {
        true => Es2PlusError::rejected(subject, reason, reply.date),
        false => Es2PlusError::Transient(TransientFailure::of_codes(subject, reason)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector;
    use crate::http::tests::{peer, response, response_with};
    use serde_json::{Value, json};

    const OK: &str = r#"{"header":{"functionExecutionStatus":{"status":"Executed-Success"}}}"#;

    fn iccid() -> Iccid {
        Iccid::parse("8931087000000000012").unwrap()
    }

    fn matching_id() -> MatchingId {
        MatchingId::parse("QX7PD-3M8ZK-A91TR").unwrap()
    }

    fn client(url: &str) -> Es2Plus {
        Es2Plus::new(connector(), url, "1.3.6.1.4.1.99999.1")
    }

    async fn confirm(url: &str) -> Result<Confirmed, Es2PlusError> {
        let code = ConfirmationCode::parse("8E9!#").unwrap();
        client(url)
            .confirm_order(&iccid(), &matching_id(), Some(&code), "A1-cf")
            .await
    }

    fn body_of(request: &str) -> Value {
        serde_json::from_str(request.split_once("\r\n\r\n").unwrap().1).unwrap()
    }

    #[tokio::test]
    async fn download_order_is_sent_as_in_the_standard() {
        let (url, request) = peer(&response(
            "200 OK",
            r#"{"header":{"functionExecutionStatus":{"status":"Executed-Success"}},"iccid":"8931087000000000012F"}"#,
        ))
        .await;
        client(&url).download_order(&iccid(), "A1-dl").await.unwrap();
        let request = request.await.unwrap();
        assert!(request.starts_with("POST /gsma/rsp2/es2plus/downloadOrder HTTP/1.1\r\n"));
        assert!(request.to_lowercase().contains("x-admin-protocol: gsma/rsp/v2.5.0\r\n"));
        assert!(request.to_lowercase().contains("content-type: application/json\r\n"));
        assert_eq!(
            body_of(&request),
            json!({
                "header": {"functionRequesterIdentifier": "1.3.6.1.4.1.99999.1", "functionCallIdentifier": "A1-dl"},
                "iccid": "8931087000000000012F",
            })
        );
    }

    #[tokio::test]
    async fn confirm_order_is_sent_as_in_the_standard() {
        let (url, request) = peer(&response(
            "200 OK",
            r#"{"header":{"functionExecutionStatus":{"status":"Executed-Success"}},"matchingId":"QX7PD-3M8ZK-A91TR","smdpAddress":"smdp.example.test"}"#,
        ))
        .await;
        let confirmed = confirm(&url).await.unwrap();
        assert_eq!(confirmed.smdp.unwrap().as_str(), "smdp.example.test");
        assert_eq!(
            body_of(&request.await.unwrap()),
            json!({
                "header": {"functionRequesterIdentifier": "1.3.6.1.4.1.99999.1", "functionCallIdentifier": "A1-cf"},
                "iccid": "8931087000000000012F",
                "matchingId": "QX7PD-3M8ZK-A91TR",
                "confirmationCode": "8E9!#",
                "releaseFlag": true,
            })
        );
    }

    #[tokio::test]
    async fn cancel_order_and_release_profile_are_sent_as_in_the_standard() {
        let (url, request) = peer(&response("200 OK", OK)).await;
        client(&format!("{url}/"))
            .cancel_order(&iccid(), Some(&matching_id()), FinalStatus::Unavailable, "A1-cx")
            .await
            .unwrap();
        let request = request.await.unwrap();
        assert!(request.starts_with("POST /gsma/rsp2/es2plus/cancelOrder "));
        assert_eq!(body_of(&request)["finalProfileStatusIndicator"], "Unavailable");

        let (url, request) = peer(&response("200 OK", OK)).await;
        client(&url).release_profile(&iccid(), "A1-rl").await.unwrap();
        assert!(
            request
                .await
                .unwrap()
                .starts_with("POST /gsma/rsp2/es2plus/releaseProfile ")
        );
    }

    /// Checks the result of `confirm_order` for a response: `ok` with the address, if there is one, or the detail of a
    /// rejection, or the class and detail of a transient failure in brackets.
    async fn check(status: &str, body: &str, expected: &str) {
        let (url, _) = peer(&response(status, body)).await;
        let result = match confirm(&url).await {
            Ok(Confirmed { smdp: None, .. }) => "ok".to_owned(),
            Ok(Confirmed { smdp: Some(smdp), .. }) => format!("ok {}", smdp.as_str()),
            Err(error @ Es2PlusError::Rejected { .. }) => {
                assert_eq!(error.class(), FailureClass::Refused);
                error.detail()
            }
            Err(error @ Es2PlusError::Transient(_)) => {
                format!("({} {})", error.class().as_str(), error.detail())
            }
        };
        assert_eq!(result, expected, "{status} {body}");
    }

    /// A response body with this `functionExecutionStatus` and these fields after the header.
    fn body_with(status: &Value, rest: &Value) -> String {
        let mut body = json!({"header": {"functionExecutionStatus": status}});
        let rest = rest.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(rest);
        body.to_string()
    }

    #[tokio::test]
    async fn each_status_code_has_one_meaning() {
        for (status, expected) in [
            ("201 Created", "(unreadable 201)"),
            ("204 No Content", "(unreadable 204)"),
            ("302 Found", "(refused 302)"),
            ("400 Bad Request", "(refused 400)"),
            ("401 Unauthorized", "(unauthorized 401)"),
            ("403 Forbidden", "(forbidden 403)"),
            ("404 Not Found", "(refused 404)"),
            ("408 Request Timeout", "(refused 408)"),
            ("409 Conflict", "(refused 409)"),
            ("422 Unprocessable", "(refused 422)"),
            ("429 Too Many", "(throttled 429)"),
            ("500 Oops", "(failed 500)"),
            ("503 Busy", "(failed 503)"),
        ] {
            check(status, OK, expected).await;
        }
        let busy = response_with("503 Busy", "retry-after: 9\r\n", "");
        let (url, _) = peer(&busy).await;
        let Err(Es2PlusError::Transient(failure)) = confirm(&url).await else {
            panic!("503 is no rejection");
        };
        let wait = jiff::SignedDuration::from_secs(9);
        assert_eq!((failure.peer, failure.retry_after), (Peer::Smdp, Some(wait)));
        assert_eq!(failure.to_string(), "503");
        let error = confirm("http://no-such-host.invalid").await.unwrap_err();
        assert_eq!(error.class(), FailureClass::Unanswered);
        assert_eq!(error.detail(), "no answer");
    }

    #[tokio::test]
    async fn each_pair_of_codes_is_final_or_not() {
        for (subject, reason, is_final) in [
            ("8.1", "4.8", true),
            ("8.1", "6.1", true),
            ("8.1.1", "2.2", true),
            ("8.1.1", "3.9", true),
            ("8.1.1", "3.10", true),
            ("8.2", "1.2", true),
            ("8.2", "3.7", true),
            ("8.2.1", "1.2", true),
            ("8.2.1", "2.2", true),
            ("8.2.1", "3.3", true),
            ("8.2.1", "3.5", true),
            ("8.2.1", "3.9", true),
            ("8.2.1", "3.10", true),
            ("8.2.5", "1.2", true),
            ("8.2.5", "3.8", true),
            ("8.2.5", "3.9", true),
            ("8.2.6", "2.1", true),
            ("8.2.6", "2.2", true),
            ("8.2.6", "3.3", true),
            ("8.2.6", "3.10", true),
            ("8.2.7", "2.2", true),
            ("8.2.7", "3.8", true),
            ("8.2.7", "6.4", true),
            ("8.2.9", "2.1", true),
            ("8.8.5", "4.10", true),
            ("8.8.5", "6.4", true),
            ("8.2.5", "3.7", false),
            ("8.9", "4.2", false),
            ("8.9", "5.1", false),
            ("8.9", "3.9", false),
            ("8.2.1", "4.2", false),
            ("8.3", "3.9", false),
            ("1.2", "1.1", false),
        ] {
            let pair = format!("{subject}/{reason}");
            let expected = match is_final {
                true => pair.clone(),
                false => format!("(refused {pair})"),
            };
            for status in ["Failed", "Expired"] {
                let data = json!({"subjectCode": subject, "reasonCode": reason, "message": "s3cret"});
                let status = json!({"status": status, "statusCodeData": data});
                check("200 OK", &body_with(&status, &json!({})), &expected).await;
            }
            let failed = ExecutionStatus::failed(subject, reason, "s3cret");
            let reply = Reply {
                status: 200,
                retry_after: None,
                date: None,
                body: body_with(&json!(failed), &json!({})).into_bytes(),
            };
            let error = parse_response::<ConfirmOrderResponse>(&reply).unwrap_err();
            assert!(error.is(subject, reason) && !error.is(subject, "1.1.1"));
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
    }

    #[tokio::test]
    async fn codes_are_read_leniently() {
        for (data, expected) in [
            (json!({"subjectCode": "8.2.1", "reasonCode": 3.9}), "8.2.1/3.9"),
            (json!({"subjectCode": "8.2.1", "reasonCode": 3.10}), "8.2.1/3.10"),
            (json!({"subjectCode": 8.2, "reasonCode": 3.7}), "8.2/3.7"),
            (json!({"subjectCode": 8.9, "reasonCode": 4.2}), "(refused 8.9/4.2)"),
            (
                json!({"subjectCode": " 8.2.1 ", "reasonCode": "3.9", "x": 1}),
                "8.2.1/3.9",
            ),
            (
                json!({"subjectCode": "8.2.1", "reasonCode": "3.9", "subjectIdentifier": null, "message": 7}),
                "8.2.1/3.9",
            ),
            (json!(null), "(refused no code)"),
            (json!({}), "(refused no code)"),
            (json!("8.2.1"), "(refused no code)"),
            (json!({"subjectCode": "8.2.1"}), "(refused no code)"),
            (json!({"subjectCode": null, "reasonCode": "3.9"}), "(refused no code)"),
            (
                json!({"subjectCode": "QX7PD-3M8ZK-A91TR", "reasonCode": "3.9"}),
                "(refused no code)",
            ),
            (
                json!({"subjectCode": "123456", "reasonCode": "3.9"}),
                "(refused no code)",
            ),
            (
                json!({"subjectCode": "1.2.3.4.5.6.7.8.9", "reasonCode": "3.9"}),
                "(refused no code)",
            ),
            (json!({"subjectCode": "8..1", "reasonCode": "3.9"}), "(refused no code)"),
        ] {
            let status = json!({"status": "Failed", "statusCodeData": data});
            let rest = json!({"iccid": 7, "matchingId": [], "smdpAddress": {}});
            check("200 OK", &body_with(&status, &rest), expected).await;
        }
        check(
            "200 OK",
            &body_with(&json!({"status": "Failed"}), &json!({})),
            "(refused no code)",
        )
        .await;
    }

    #[tokio::test]
    async fn successes_are_read_leniently() {
        for (status, rest, expected) in [
            ("Executed-Success", json!({}), "ok"),
            ("Executed-WithWarning", json!({}), "ok"),
            ("executed-success", json!({}), "ok"),
            ("EXECUTED_SUCCESS", json!({}), "ok"),
            ("Executed success", json!({}), "ok"),
            ("ExecutedWithWarning", json!({}), "ok"),
            ("failed", json!({}), "(refused no code)"),
            ("Executed-Perhaps", json!({}), "(unreadable unreadable)"),
            ("", json!({}), "(unreadable unreadable)"),
            ("Executed-Success", json!({"matchingId": "QX7PD-3M8ZK-A91TR"}), "ok"),
            ("Executed-Success", json!({"matchingId": null, "eid": null}), "ok"),
            (
                "Executed-Success",
                json!({"matchingId": "", "eid": 89, "more": []}),
                "ok",
            ),
            ("Executed-Success", json!({"matchingId": "ANOTHER"}), "8.2.6/3.10"),
            (
                "Executed-Success",
                json!({"matchingId": "not one"}),
                "(unreadable unreadable)",
            ),
            ("Executed-Success", json!({"smdpAddress": null}), "ok"),
            ("Executed-Success", json!({"smdpAddress": " "}), "ok"),
            (
                "Executed-Success",
                json!({"smdpAddress": "smdp.example.com:8443"}),
                "ok smdp.example.com:8443",
            ),
            (
                "Executed-Success",
                json!({"smdpAddress": " HTTPS://SMDP.Example.com:8443/gsma "}),
                "ok smdp.example.com:8443",
            ),
            ("Executed-Success", json!({"smdpAddress": "not a host"}), "no address"),
            (
                "Executed-Success",
                json!({"smdpAddress": "smdp.example.com:0"}),
                "no address",
            ),
            ("Executed-Success", json!({"smdpAddress": 12}), "no address"),
            ("Executed-Success", json!({"smdpAddress": true}), "no address"),
            ("Executed-Success", json!({"smdpAddress": {}}), "no address"),
        ] {
            let status = json!({"status": status, "statusCodeData": null});
            check("200 OK", &body_with(&status, &rest), expected).await;
        }
        for body in ["<html>", "{}", "", "null", r#"{"header":null}"#] {
            check("200 OK", body, "(unreadable unreadable)").await;
        }
        check("200 OK", &format!("\u{feff}{OK}"), "ok").await;
        let error = Es2PlusError::rejected("", "", None);
        assert!(error.is("", ""));
    }

    #[tokio::test]
    async fn a_confirmation_and_a_rejection_have_the_date_of_the_response() {
        let header = "date: Sun, 22 Nov 2026 12:00:00 GMT\r\n";
        let noon: Option<Timestamp> = Some("2026-11-22T12:00:00Z".parse().unwrap());
        let failed = body_with(&json!(ExecutionStatus::failed("8.2.6", "3.3", "")), &json!({}));
        let success = json!({"status": "Executed-Success"});
        let other_id = body_with(&success, &json!({"matchingId": "ANOTHER"}));
        let no_address = body_with(&success, &json!({"smdpAddress": 12}));
        for (header, expected) in [(header, noon), ("date: today\r\n", None), ("", None)] {
            for body in [OK, &failed, &other_id, &no_address] {
                let (url, _) = peer(&response_with("200 OK", header, body)).await;
                let date = match confirm(&url).await {
                    Ok(confirmed) => confirmed.date,
                    Err(Es2PlusError::Rejected { date, .. }) => date,
                    Err(error @ Es2PlusError::Transient(_)) => panic!("{error}"),
                };
                assert_eq!(date, expected, "{header} {body}");
            }
        }
    }

    #[tokio::test]
    async fn profile_status_is_sent_as_the_vendors_document_it() {
        let body = body_with(
            &json!({"status": "Executed-Success"}),
            &json!({
                "profileStatusList": [{
                    "iccid": "8931087000000000012F", "eid": "89049032123451234512345678901235",
                    "state": "Installed", "acToken": "QX7PD-3M8ZK-A91TR", "lockFlag": false,
                    "status_last_update_timestamp": "2026-11-22T14:05:10Z",
                }],
                "completionTimestamp": "2026-11-22T14:06:00Z",
            }),
        );
        let (url, request) = peer(&response("200 OK", &body)).await;
        let status = client(&url).profile_status(&iccid(), "A1-st").await.unwrap();
        assert_eq!(
            status,
            Some(ProfileStatus {
                state: ReportedState::Installed,
                since: Some("2026-11-22T14:05:10Z".parse().unwrap()),
                eid: Some("89049032123451234512345678901235".to_owned()),
            })
        );
        let request = request.await.unwrap();
        assert!(request.starts_with("POST /gsma/rsp2/es2plus/getProfileStatus "));
        assert_eq!(
            body_of(&request),
            json!({
                "header": {"functionRequesterIdentifier": "1.3.6.1.4.1.99999.1", "functionCallIdentifier": "A1-st"},
                "iccidList": [{"iccid": "8931087000000000012F"}],
            })
        );
    }

    #[tokio::test]
    async fn the_status_of_a_profile_is_read_leniently() {
        let ours = |state: Value| json!({"iccid": "8931087000000000012", "state": state});
        let foreign = json!({"iccid": "8931087000000000020F", "state": "Deleted"});
        for (list, expected) in [
            (json!([ours(json!("AVAILABLE"))]), Some("Available")),
            (json!([ours(json!("allocated"))]), Some("Ordered")),
            (json!([ours(json!("Linked"))]), Some("Ordered")),
            (json!([ours(json!("CONFIRMED"))]), Some("Ordered")),
            (json!([ours(json!(" re-leased "))]), Some("Released")),
            (json!([ours(json!("down_loaded"))]), Some("Downloaded")),
            (json!([ours(json!("in stalled"))]), Some("Installed")),
            (json!([ours(json!("enabled"))]), Some("Enabled")),
            (json!([ours(json!("DISABLED"))]), Some("Disabled")),
            (json!([ours(json!("Deleted"))]), Some("Deleted")),
            (json!([ours(json!("Error"))]), Some("Failed")),
            (json!([ours(json!("UNAVAILABLE"))]), Some("Failed")),
            (json!([ours(json!("on the way"))]), Some("Unknown")),
            (json!([ours(json!(7))]), Some("Unknown")),
            (json!([ours(Value::Null)]), Some("Unknown")),
            (json!([{"iccid": 8_931_087_000_000_000_012_u64}]), Some("Unknown")),
            (
                json!([foreign, null, 7, {}, {"iccid": "?"}, ours(json!("Released"))]),
                Some("Released"),
            ),
            (ours(json!("Released")), Some("Released")),
            (json!([foreign]), None),
            (json!([]), None),
            (json!("none"), None),
            (Value::Null, None),
        ] {
            let body = body_with(
                &json!({"status": "Executed-Success"}),
                &json!({"profileStatusList": list}),
            );
            let (url, _) = peer(&response("200 OK", &body)).await;
            let status = client(&url).profile_status(&iccid(), "A1-st").await.unwrap();
            let state = status.as_ref().map(|status| format!("{:?}", status.state));
            assert_eq!(state.as_deref(), expected, "{list}");
            assert!(status.is_none_or(|status| status.since.is_none() && status.eid.is_none()));
        }

        let date = "status_last_update_timestamp";
        for (field, value, since, eid) in [
            (date, json!("2026-11-22 14:05:10"), true, None),
            (date, json!(1_795_356_310), true, None),
            (date, json!("yesterday"), false, None),
            (date, Value::Null, false, None),
            ("eid", json!("8904"), false, Some("8904")),
            ("eid", json!(8904), false, Some("8904")),
            ("eid", json!(" "), false, None),
            ("eid", Value::Null, false, None),
            ("eid", json!([]), false, None),
        ] {
            let mut entry = ours(json!("Installed"));
            entry[field] = value;
            let body = body_with(
                &json!({"status": "Executed-Success"}),
                &json!({"profileStatusList": [entry]}),
            );
            let (url, _) = peer(&response("200 OK", &body)).await;
            let status = client(&url).profile_status(&iccid(), "A1-st").await.unwrap().unwrap();
            let expected = since.then(|| "2026-11-22T14:05:10Z".parse().unwrap());
            assert_eq!((status.since, status.eid.as_deref()), (expected, eid), "{entry}");
        }

        let without_list = response("200 OK", OK);
        let unknown = ExecutionStatus::failed("8.2.1", "3.9", "");
        let unknown = response("200 OK", &body_with(&json!(unknown), &json!({})));
        for (response, expected) in [
            (without_list.as_str(), Ok(None)),
            (unknown.as_str(), Err("8.2.1/3.9")),
            (&response("404 Not Found", ""), Err("404")),
            (&response("200 OK", "<html>"), Err("unreadable")),
        ] {
            let (url, _) = peer(response).await;
            let status = client(&url).profile_status(&iccid(), "A1-st").await;
            assert_eq!(status.map_err(|error| error.detail()), expected.map_err(str::to_owned));
        }
    }

    #[tokio::test]
    async fn a_response_with_another_iccid_is_a_rejection() {
        for (returned, expected) in [
            (json!("8931087000000000012F"), Ok(())),
            (json!("8931087000000000012"), Ok(())),
            (json!(8_931_087_000_000_000_012_u64), Ok(())),
            (json!(null), Ok(())),
            (json!(""), Ok(())),
            (json!("8931087000000000020F"), Err("8.2.1/3.10")),
            (json!("another"), Err("unreadable")),
        ] {
            let success = json!({"status": "Executed-Success"});
            let body = body_with(&success, &json!({"iccid": returned}));
            let (url, _) = peer(&response("200 OK", &body)).await;
            let result = client(&url).download_order(&iccid(), "A1-dl").await;
            let result = result.map_err(|error| error.detail());
            assert_eq!(result, expected.map_err(str::to_owned), "{returned}");
        }
    }
}
