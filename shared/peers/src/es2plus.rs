//! The ES2+ client (GSMA SGP.22 sections 5.3 and 6.5, v2 JSON). When to call what is not here.

mod progress;
mod wire;

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use domain::{ConfirmationCode, Iccid, MatchingId, SmDpAddress};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use progress::{DownloadProgressInfo, Progress};
pub use wire::{
    ADMIN_PROTOCOL, CancelOrder, CancelOrderResponse, ConfirmOrder, ConfirmOrderResponse, DownloadOrder,
    DownloadOrderResponse, ExecutionStatus, FinalStatus, FunctionStatus, ReleaseProfile, ReleaseProfileResponse,
    RequestHeader, ResponseHeader, StatusCodeData,
};

use crate::http::{Call, NoResponse, exchange};
use crate::lenient::read_json;
use crate::response::{FailureClass, Peer, TransientFailure, codes, is_final};

/// Where every ES2+ function is, in both directions.
pub const PATH: &str = "/gsma/rsp2/es2plus/";

/// Why a function was not surely carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Es2PlusError {
    /// The SM-DP+ says no: `Failed` or `Expired`, with a pair of codes of SGP.22 section 5.2.6 that is final. Both codes
    /// are empty where it took the order and names a server that has no such address: no phone would find the profile.
    #[error("refused by the SM-DP+: subject {subject:?}, reason {reason:?}")]
    Rejected {
        /// What the refusal is about: `8.2.1` is the ICCID.
        subject: String,
        /// What is wrong with it: `3.3` is "in use".
        reason: String,
    },
    /// Nothing about the order: try again later. The call may have been carried out.
    #[error("the SM-DP+ gave no usable answer: {0}")]
    Transient(TransientFailure),
}

impl Es2PlusError {
    /// Whether it is of these two codes, whether they are final or not.
    pub fn is(&self, subject: &str, reason: &str) -> bool {
        match self {
            Self::Rejected { subject: s, reason: r } => s == subject && r == reason,
            Self::Transient(not_now) => not_now.detail == codes(subject, reason),
        }
    }

    /// How the call failed.
    pub fn class(&self) -> FailureClass {
        match self {
            Self::Rejected { .. } => FailureClass::Refused,
            Self::Transient(not_now) => not_now.class,
        }
    }

    /// The codes, the status, or what else is told of it; never a peer's text.
    pub fn detail(&self) -> String {
        match self {
            Self::Rejected { subject, reason } => match (subject.as_str(), reason.as_str()) {
                ("", "") => "no address".to_owned(),
                (subject, reason) => codes(subject, reason),
            },
            Self::Transient(not_now) => not_now.detail.clone(),
        }
    }

    fn refused(subject: &str, reason: &str) -> Self {
        Self::Rejected {
            subject: subject.to_owned(),
            reason: reason.to_owned(),
        }
    }

    fn unreadable() -> Self {
        Self::Transient(TransientFailure::unreadable(Peer::Smdp))
    }
}

impl From<NoResponse> for Es2PlusError {
    fn from(_: NoResponse) -> Self {
        Self::Transient(TransientFailure::unanswered(Peer::Smdp))
    }
}

/// A confirmed and released order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// Where phones find the profile, if the SM-DP+ says so.
    pub smdp: Option<SmDpAddress>,
}

/// One SM-DP+, as its client. `call_id` names a call (`functionCallIdentifier`): the same one on a repeat, so that the
/// SM-DP+ can see that it is one.
#[derive(Debug, Clone)]
pub struct Es2Plus {
    connector: SharedHttpConnector,
    base_url: String,
    requester_id: String,
}

impl Es2Plus {
    /// `base_url` is what stands before `/gsma/rsp2/es2plus/`; `requester_id` is the object identifier by which the
    /// SM-DP+ knows us. Certificates are the connector's affair.
    pub fn new(connector: SharedHttpConnector, base_url: &str, requester_id: &str) -> Self {
        Self {
            connector,
            base_url: base_url.trim_end_matches('/').to_owned(),
            requester_id: requester_id.to_owned(),
        }
    }

    /// Reserves the profile with this ICCID (section 5.3.1). `8.2.1/3.3`: it is not available, or ordered already. An
    /// answer about another ICCID counts as refused with `8.2.1/3.10`.
    pub async fn download_order(&self, iccid: &Iccid, call_id: &str) -> Result<(), Es2PlusError> {
        let order = DownloadOrder {
            header: self.header(call_id),
            eid: None,
            iccid: Some(iccid.clone()),
            profile_type: None,
        };
        let answer: DownloadOrderResponse = self.call("downloadOrder", &order).await?;
        match answer.iccid {
            Some(other) if other != *iccid => Err(Es2PlusError::refused("8.2.1", "3.10")),
            _ => Ok(()),
        }
    }

    /// Confirms the order and releases the profile at once (section 5.3.2). An answer with another matching id counts
    /// as refused with `8.2.6/3.10`, one that names a server by what is no address as refused without codes.
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
        let answer: ConfirmOrderResponse = self.call("confirmOrder", &order).await?;
        if answer.matching_id.is_some_and(|other| other != *matching_id) {
            return Err(Es2PlusError::refused("8.2.6", "3.10"));
        }
        let address = answer.smdp_address.unwrap_or_default();
        let smdp = match address.trim() {
            "" => None,
            text => Some(SmDpAddress::normalized(text).map_err(|_| Es2PlusError::refused("", ""))?),
        };
        Ok(Confirmed { smdp })
    }

    /// Releases a profile that was confirmed without (section 5.3.4).
    pub async fn release_profile(&self, iccid: &Iccid, call_id: &str) -> Result<(), Es2PlusError> {
        let release = ReleaseProfile {
            header: self.header(call_id),
            iccid: iccid.clone(),
        };
        let _: ReleaseProfileResponse = self.call("releaseProfile", &release).await?;
        Ok(())
    }

    /// Takes the order back (section 5.3.3). `8.2.1/3.3`: the profile is on a phone.
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
        let _: CancelOrderResponse = self.call("cancelOrder", &cancel).await?;
        Ok(())
    }

    fn header(&self, call_id: &str) -> RequestHeader {
        RequestHeader {
            function_requester_identifier: self.requester_id.clone(),
            function_call_identifier: call_id.to_owned(),
        }
    }

    async fn call<A: DeserializeOwned>(&self, function: &str, request: &impl Serialize) -> Result<A, Es2PlusError> {
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
            tracing::warn!(function, status = reply.status, "the SM-DP+ did not answer 200");
            let not_now = TransientFailure::of_status(Peer::Smdp, reply.status, reply.retry_after);
            return Err(Es2PlusError::Transient(not_now));
        }
        read(&reply.body).inspect_err(|error| match error {
            Es2PlusError::Rejected { .. } => tracing::info!(function, %error, "refused"),
            Es2PlusError::Transient(_) => {
                tracing::warn!(function, %error, "the SM-DP+'s answer decides nothing");
            }
        })
    }
}

/// Reads an answer: the header first, and the rest only after a success (SGP.22 section 6.5.1.4).
fn read<A: DeserializeOwned>(body: &[u8]) -> Result<A, Es2PlusError> {
    #[derive(serde::Deserialize)]
    struct Head {
        header: ResponseHeader,
    }
    let head: Head = read_json(body).map_err(|_| Es2PlusError::unreadable())?;
    let status = head.header.function_execution_status;
    if status.is_success() {
        return read_json(body).map_err(|_| Es2PlusError::unreadable());
    }
    let (subject, reason) = status.codes();
    Err(match is_final(subject, reason) {
        true => Es2PlusError::refused(subject, reason),
        false => Es2PlusError::Transient(TransientFailure::of_codes(subject, reason)),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector;
    use crate::http::tests::{answer, answer_with, peer};
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
    async fn the_worked_exchange_downloads() {
        let (url, request) = peer(&answer(
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
    async fn the_worked_exchange_confirms() {
        let (url, request) = peer(&answer(
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
    async fn cancel_and_release_on_the_wire() {
        let (url, request) = peer(&answer("200 OK", OK)).await;
        client(&format!("{url}/"))
            .cancel_order(&iccid(), Some(&matching_id()), FinalStatus::Unavailable, "A1-cx")
            .await
            .unwrap();
        let request = request.await.unwrap();
        assert!(request.starts_with("POST /gsma/rsp2/es2plus/cancelOrder "));
        assert_eq!(body_of(&request)["finalProfileStatusIndicator"], "Unavailable");

        let (url, request) = peer(&answer("200 OK", OK)).await;
        client(&url).release_profile(&iccid(), "A1-rl").await.unwrap();
        assert!(
            request
                .await
                .unwrap()
                .starts_with("POST /gsma/rsp2/es2plus/releaseProfile ")
        );
    }

    /// What an answer to a confirmOrder is: `ok`, with the address if there is one, or class and detail, in brackets if
    /// the order is not refused by it.
    async fn check(status: &str, body: &str, expected: &str) {
        let (url, _) = peer(&answer(status, body)).await;
        let told = match confirm(&url).await {
            Ok(Confirmed { smdp: None }) => "ok".to_owned(),
            Ok(Confirmed { smdp: Some(smdp) }) => format!("ok {}", smdp.as_str()),
            Err(error @ Es2PlusError::Rejected { .. }) => {
                assert_eq!(error.class(), FailureClass::Refused);
                error.detail()
            }
            Err(error @ Es2PlusError::Transient(_)) => {
                format!("({} {})", error.class().as_str(), error.detail())
            }
        };
        assert_eq!(told, expected, "{status} {body}");
    }

    /// An answer with this `functionExecutionStatus`, and more after the header.
    fn answered(status: &Value, rest: &Value) -> String {
        let mut body = json!({"header": {"functionExecutionStatus": status}});
        let rest = rest.as_object().unwrap().clone();
        body.as_object_mut().unwrap().extend(rest);
        body.to_string()
    }

    #[tokio::test]
    async fn what_each_status_is() {
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
        let busy = answer_with("503 Busy", "retry-after: 9\r\n", "");
        let (url, _) = peer(&busy).await;
        let Err(Es2PlusError::Transient(not_now)) = confirm(&url).await else {
            panic!("it is not refused");
        };
        let wait = jiff::SignedDuration::from_secs(9);
        assert_eq!((not_now.peer, not_now.retry_after), (Peer::Smdp, Some(wait)));
        assert_eq!(not_now.to_string(), "503");
        let nobody = confirm("http://no-such-host.invalid").await.unwrap_err();
        assert_eq!(nobody.class(), FailureClass::Unanswered);
        assert_eq!(nobody.detail(), "no answer");
    }

    #[tokio::test]
    async fn what_each_pair_of_codes_is() {
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
                check("200 OK", &answered(&status, &json!({})), &expected).await;
            }
            let failed = ExecutionStatus::failed(subject, reason, "s3cret");
            let failed = answered(&json!(failed), &json!({}));
            let error = read::<ConfirmOrderResponse>(failed.as_bytes()).unwrap_err();
            assert!(error.is(subject, reason) && !error.is(subject, "1.1.1"));
            assert!(!format!("{error} {error:?}").contains("s3cret"));
        }
    }

    #[tokio::test]
    async fn codes_are_read_as_vendors_write_them() {
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
            check("200 OK", &answered(&status, &rest), expected).await;
        }
        check(
            "200 OK",
            &answered(&json!({"status": "Failed"}), &json!({})),
            "(refused no code)",
        )
        .await;
    }

    #[tokio::test]
    async fn what_each_success_is() {
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
            check("200 OK", &answered(&status, &rest), expected).await;
        }
        for body in ["<html>", "{}", "", "null", r#"{"header":null}"#] {
            check("200 OK", body, "(unreadable unreadable)").await;
        }
        check("200 OK", &format!("\u{feff}{OK}"), "ok").await;
        let error = Es2PlusError::refused("", "");
        assert!(error.is("", ""));
    }

    #[tokio::test]
    async fn the_iccid_in_an_answer() {
        for (iccid_there, expected) in [
            (json!("8931087000000000012F"), Ok(())),
            (json!("8931087000000000012"), Ok(())),
            (json!(8_931_087_000_000_000_012_u64), Ok(())),
            (json!(null), Ok(())),
            (json!(""), Ok(())),
            (json!("8931087000000000020F"), Err("8.2.1/3.10")),
            (json!("another"), Err("unreadable")),
        ] {
            let success = json!({"status": "Executed-Success"});
            let body = answered(&success, &json!({"iccid": iccid_there}));
            let (url, _) = peer(&answer("200 OK", &body)).await;
            let answered = client(&url).download_order(&iccid(), "A1-dl").await;
            let answered = answered.map_err(|error| error.detail());
            assert_eq!(answered, expected.map_err(str::to_owned), "{iccid_there}");
        }
    }
}
