//! The ES2+ client (GSMA SGP.22 sections 5.3 and 6.5, v2 JSON). When to call what is not here.

mod progress;
mod wire;

use aws_smithy_runtime_api::client::http::SharedHttpConnector;
use domain::{ConfirmationCode, Iccid, MatchingId, SmDpAddress};
use serde::Serialize;
use serde::de::DeserializeOwned;

pub use progress::{DownloadProgressInfo, Progress};
pub use wire::{
    ADMIN_PROTOCOL, AnswerHeader, CancelOrder, CancelOrderAnswer, ConfirmOrder, ConfirmOrderAnswer,
    DownloadOrder, DownloadOrderAnswer, ExecutionStatus, FinalStatus, Outcome, ReleaseProfile,
    ReleaseProfileAnswer, RequestHeader, StatusCodeData,
};

use crate::http::{Call, Unanswered, exchange};

/// Where every ES2+ function is, in both directions.
pub const PATH: &str = "/gsma/rsp2/es2plus/";

/// Why a function was not surely carried out.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Es2PlusError {
    /// The SM-DP+ says no: `Failed` or `Expired`, with the codes of SGP.22 section 5.2.6. Codes that are not such are
    /// left empty.
    #[error("refused by the SM-DP+: subject {subject:?}, reason {reason:?}")]
    Refused {
        /// What the refusal is about: `8.2.1` is the ICCID.
        subject: String,
        /// What is wrong with it: `3.3` is "in use".
        reason: String,
    },
    /// The call may have been carried out.
    #[error("the SM-DP+ gave no usable answer")]
    Unanswered,
}

impl Es2PlusError {
    /// Whether it is the refusal with these two codes.
    pub fn is(&self, subject: &str, reason: &str) -> bool {
        matches!(self, Self::Refused { subject: s, reason: r } if s == subject && r == reason)
    }

    fn refused(subject: &str, reason: &str) -> Self {
        Self::Refused {
            subject: subject.to_owned(),
            reason: reason.to_owned(),
        }
    }
}

impl From<Unanswered> for Es2PlusError {
    fn from(_: Unanswered) -> Self {
        Self::Unanswered
    }
}

/// A confirmed and released order.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Confirmed {
    /// Where phones find the profile, if the SM-DP+ says so in a host name.
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
        let answer: DownloadOrderAnswer = self.call("downloadOrder", &order).await?;
        match answer.iccid {
            Some(other) if other != *iccid => Err(Es2PlusError::refused("8.2.1", "3.10")),
            _ => Ok(()),
        }
    }

    /// Confirms the order and releases the profile at once (section 5.3.2). An answer with another matching id counts
    /// as refused with `8.2.6/3.10`.
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
        let answer: ConfirmOrderAnswer = self.call("confirmOrder", &order).await?;
        match answer.matching_id {
            Some(other) if other != *matching_id => Err(Es2PlusError::refused("8.2.6", "3.10")),
            _ => Ok(Confirmed {
                smdp: answer
                    .smdp_address
                    .and_then(|address| SmDpAddress::parse(&address).ok()),
            }),
        }
    }

    /// Releases a profile that was confirmed without (section 5.3.4).
    pub async fn release_profile(&self, iccid: &Iccid, call_id: &str) -> Result<(), Es2PlusError> {
        let release = ReleaseProfile {
            header: self.header(call_id),
            iccid: iccid.clone(),
        };
        let _: ReleaseProfileAnswer = self.call("releaseProfile", &release).await?;
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
        let _: CancelOrderAnswer = self.call("cancelOrder", &cancel).await?;
        Ok(())
    }

    fn header(&self, call_id: &str) -> RequestHeader {
        RequestHeader {
            function_requester_identifier: self.requester_id.clone(),
            function_call_identifier: call_id.to_owned(),
        }
    }

    async fn call<A: DeserializeOwned>(
        &self,
        function: &str,
        request: &impl Serialize,
    ) -> Result<A, Es2PlusError> {
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
            tracing::warn!(
                function,
                status = reply.status,
                "the SM-DP+ did not answer 200"
            );
            return Err(Es2PlusError::Unanswered);
        }
        read(&reply.body).inspect_err(|error| match error {
            Es2PlusError::Unanswered => {
                tracing::warn!(function, "the SM-DP+'s answer is not of ES2+");
            }
            _ => tracing::info!(function, %error, "refused"),
        })
    }
}

/// Reads an answer: the header first, and the rest only after a success (SGP.22 section 6.5.1.4).
fn read<A: DeserializeOwned>(body: &[u8]) -> Result<A, Es2PlusError> {
    #[derive(serde::Deserialize)]
    struct Head {
        header: AnswerHeader,
    }
    let head: Head = serde_json::from_slice(body).map_err(|_| Es2PlusError::Unanswered)?;
    let status = head.header.function_execution_status;
    if status.is_success() {
        return serde_json::from_slice(body).map_err(|_| Es2PlusError::Unanswered);
    }
    let (subject, reason) = status.codes();
    Err(Es2PlusError::refused(subject, reason))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::connector;
    use crate::http::tests::{answer, peer};
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
        client(&url)
            .download_order(&iccid(), "A1-dl")
            .await
            .unwrap();
        let request = request.await.unwrap();
        assert!(request.starts_with("POST /gsma/rsp2/es2plus/downloadOrder HTTP/1.1\r\n"));
        assert!(
            request
                .to_lowercase()
                .contains("x-admin-protocol: gsma/rsp/v2.5.0\r\n")
        );
        assert!(
            request
                .to_lowercase()
                .contains("content-type: application/json\r\n")
        );
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
            .cancel_order(
                &iccid(),
                Some(&matching_id()),
                FinalStatus::Unavailable,
                "A1-cx",
            )
            .await
            .unwrap();
        let request = request.await.unwrap();
        assert!(request.starts_with("POST /gsma/rsp2/es2plus/cancelOrder "));
        assert_eq!(
            body_of(&request)["finalProfileStatusIndicator"],
            "Unavailable"
        );

        let (url, request) = peer(&answer("200 OK", OK)).await;
        client(&url)
            .release_profile(&iccid(), "A1-rl")
            .await
            .unwrap();
        assert!(
            request
                .await
                .unwrap()
                .starts_with("POST /gsma/rsp2/es2plus/releaseProfile ")
        );
    }

    #[tokio::test]
    async fn what_each_answer_to_a_confirm_order_is() {
        let refused = Es2PlusError::refused;
        let body = |status: &str, data: &str, rest: &str| {
            format!(
                r#"{{"header":{{"functionExecutionStatus":{{"status":"{status}"{data}}}}}{rest}}}"#
            )
        };
        let unknown = r#","statusCodeData":{"subjectCode":"8.2.1","reasonCode":"3.9","message":"ICCID not in stock"}"#;
        let none = Ok(Confirmed { smdp: None });
        for (status, body, expected) in [
            ("200 OK", body("Executed-WithWarning", "", ""), none.clone()),
            (
                "200 OK",
                body(
                    "Executed-Success",
                    "",
                    r#","matchingId":"QX7PD-3M8ZK-A91TR","smdpAddress":"not a host""#,
                ),
                none.clone(),
            ),
            (
                "200 OK",
                body("Executed-Success", "", r#","matchingId":"ANOTHER""#),
                Err(refused("8.2.6", "3.10")),
            ),
            (
                "200 OK",
                body("Failed", unknown, r#","iccid":7,"matchingId":[]"#),
                Err(refused("8.2.1", "3.9")),
            ),
            (
                "200 OK",
                body("Expired", unknown, ""),
                Err(refused("8.2.1", "3.9")),
            ),
            ("200 OK", body("Failed", "", ""), Err(refused("", ""))),
            (
                "200 OK",
                body(
                    "Failed",
                    r#","statusCodeData":{"subjectCode":"QX7PD-3M8ZK-A91TR","reasonCode":"3.9"}"#,
                    "",
                ),
                Err(refused("", "3.9")),
            ),
            (
                "200 OK",
                body("Executed-Perhaps", "", ""),
                Err(Es2PlusError::Unanswered),
            ),
            ("200 OK", "<html>".to_owned(), Err(Es2PlusError::Unanswered)),
            ("200 OK", "{}".to_owned(), Err(Es2PlusError::Unanswered)),
            ("500 Oops", OK.to_owned(), Err(Es2PlusError::Unanswered)),
            (
                "404 Not Found",
                OK.to_owned(),
                Err(Es2PlusError::Unanswered),
            ),
        ] {
            let (url, _) = peer(&answer(status, &body)).await;
            assert_eq!(confirm(&url).await, expected, "{status} {body}");
        }
    }

    #[tokio::test]
    async fn another_iccid_is_refused_and_nobody_there_is_no_answer() {
        let (url, _) = peer(&answer(
            "200 OK",
            r#"{"header":{"functionExecutionStatus":{"status":"Executed-Success"}},"iccid":"8931087000000000020F"}"#,
        ))
        .await;
        let error = client(&url)
            .download_order(&iccid(), "A1-dl")
            .await
            .unwrap_err();
        assert!(error.is("8.2.1", "3.10"));
        assert_eq!(
            confirm("http://no-such-host.invalid").await,
            Err(Es2PlusError::Unanswered)
        );
    }
}
