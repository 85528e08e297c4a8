//! Authenticates callbacks. API Gateway verifies the client certificate; its subject must be the one that is set for
//! the peer. Not here: what a callback says (`lib.rs`).

use edge::{Metric, SettingError, Settings};
use lambda_http::Request;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;

/// Who may send callbacks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum AllowedCallers {
    /// The peers whose certificates have these subjects (distinguished names).
    BySubject { smdp: String, network: String },
    /// Anyone. Only for an emulator, which has no client certificates.
    Anyone,
}

/// The peer whose callback it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Smdp,
    Network,
}

impl AllowedCallers {
    /// Reads `SMDP_SUBJECT` and `NETWORK_SUBJECT`, unless `ALLOW_UNAUTHENTICATED_CALLBACKS` is `true`.
    pub(crate) fn from_settings(settings: &Settings) -> Result<Self, SettingError> {
        match settings.flag("ALLOW_UNAUTHENTICATED_CALLBACKS")? {
            true => Ok(Self::Anyone),
            false => Ok(Self::BySubject {
                smdp: settings.text("SMDP_SUBJECT")?,
                network: settings.text("NETWORK_SUBJECT")?,
            }),
        }
    }

    /// Whether the sender of the request may call back as this peer.
    pub(crate) fn may_call(&self, request: &Request, peer: Peer) -> bool {
        let subject = client_subject(request);
        let expected = match (self, peer) {
            (Self::Anyone, _) => {
                Metric::CallbackUnauthenticated.record();
                return true;
            }
            (Self::BySubject { smdp, .. }, Peer::Smdp) => smdp,
            (Self::BySubject { network, .. }, Peer::Network) => network,
        };
        if subject.as_ref() != Some(expected) {
            tracing::warn!(?peer, subject, "a callback is rejected because of its certificate");
        }
        subject.as_ref() == Some(expected)
    }
}

/// The subject (distinguished name) of the client certificate that API Gateway has verified.
fn client_subject(request: &Request) -> Option<String> {
    match request.request_context_ref()? {
        RequestContext::ApiGatewayV2(context) => {
            let certificate = context.authentication.as_ref()?.client_cert.as_ref()?;
            certificate.subject_dn.clone()
        }
        #[allow(
            unreachable_patterns,
            reason = "a feature of another crate in the build may add variants"
        )]
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lambda_http::request::LambdaRequest;
    use serde_json::json;

    fn settings(values: &[(&'static str, &'static str)]) -> Settings {
        let values = values.to_vec();
        Settings::new(move |setting| {
            let found = values.iter().find(|(name, _)| *name == setting);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn request_with(subject: Option<&str>) -> Request {
        let mut event = json!({"version": "2.0", "routeKey": "POST /a", "rawPath": "/a", "rawQueryString": "",
            "headers": {}, "isBase64Encoded": false,
            "requestContext": {"stage": "$default", "http": {"method": "POST", "path": "/a"}}});
        if let Some(subject) = subject {
            event["requestContext"]["authentication"] = json!({"clientCert": {
                "clientCertPem": "-----BEGIN CERTIFICATE-----", "subjectDN": subject, "issuerDN": "CN=ca",
                "serialNumber": "1", "validity": {"notBefore": "a", "notAfter": "b"}}});
        }
        let event: LambdaRequest = serde_json::from_value(event).unwrap();
        event.into()
    }

    #[test]
    fn each_peer_needs_its_own_subject() {
        let callers = AllowedCallers::from_settings(&settings(&[
            ("SMDP_SUBJECT", "CN=smdp,O=a"),
            ("NETWORK_SUBJECT", "CN=network,O=a"),
        ]))
        .unwrap();
        for (subject, smdp, network) in [
            (Some("CN=smdp,O=a"), true, false),
            (Some("CN=network,O=a"), false, true),
            (Some("CN=smdp,O=b"), false, false),
            (Some(""), false, false),
            (None, false, false),
        ] {
            let request = request_with(subject);
            assert_eq!(callers.may_call(&request, Peer::Smdp), smdp, "{subject:?}");
            assert_eq!(callers.may_call(&request, Peer::Network), network, "{subject:?}");
        }
    }

    #[test]
    fn anyone_may_call_only_if_the_setting_allows_it() {
        let open = [("ALLOW_UNAUTHENTICATED_CALLBACKS", "true")];
        let callers = AllowedCallers::from_settings(&settings(&open)).unwrap();
        assert!(callers.may_call(&request_with(None), Peer::Smdp));
        for (values, message) in [
            (vec![], "SMDP_SUBJECT is missing"),
            (vec![("SMDP_SUBJECT", "CN=a")], "NETWORK_SUBJECT is missing"),
            (
                vec![("ALLOW_UNAUTHENTICATED_CALLBACKS", "yes")],
                "ALLOW_UNAUTHENTICATED_CALLBACKS must be true or false",
            ),
        ] {
            let error = AllowedCallers::from_settings(&settings(&values)).unwrap_err();
            assert_eq!(error.to_string(), format!("the setting {message}"));
        }
    }
}
