//! Who may call back: only a peer whose certificate API Gateway has checked, and whose subject is the one that is set.

use edge::{Metric, SettingError, Settings};
use lambda_http::Request;
use lambda_http::RequestExt;
use lambda_http::request::RequestContext;

/// Who may call back.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Callers {
    /// The holders of certificates with these subjects.
    Known { smdp: String, network: String },
    /// Anybody. For an emulator alone: there are no certificates there.
    Anybody,
}

/// Which of the two calls.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    Smdp,
    Network,
}

impl Callers {
    /// Reads `SMDP_SUBJECT` and `NETWORK_SUBJECT`, or that `ALLOW_UNAUTHENTICATED_CALLBACKS` is `true`.
    pub(crate) fn read(settings: &Settings) -> Result<Self, SettingError> {
        match settings.flag("ALLOW_UNAUTHENTICATED_CALLBACKS")? {
            true => Ok(Self::Anybody),
            false => Ok(Self::Known {
                smdp: settings.text("SMDP_SUBJECT")?,
                network: settings.text("NETWORK_SUBJECT")?,
            }),
        }
    }

    /// Whether the caller may speak for the peer.
    pub(crate) fn include(&self, request: &Request, peer: Peer) -> bool {
        let shown = subject(request);
        let wanted = match (self, peer) {
            (Self::Anybody, _) => {
                Metric::CallbackUnauthenticated.record();
                return true;
            }
            (Self::Known { smdp, .. }, Peer::Smdp) => smdp,
            (Self::Known { network, .. }, Peer::Network) => network,
        };
        if shown.as_ref() != Some(wanted) {
            tracing::warn!(?peer, shown, "a callback is refused for its certificate");
        }
        shown.as_ref() == Some(wanted)
    }
}

/// The distinguished name that the caller proved to have.
fn subject(request: &Request) -> Option<String> {
    match request.request_context_ref()? {
        RequestContext::ApiGatewayV2(context) => {
            let shown = context.authentication.as_ref()?.client_cert.as_ref()?;
            shown.subject_dn.clone()
        }
        #[allow(unreachable_patterns, reason = "another crate of the build may add kinds")]
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
        Settings::new(move |asked| {
            let found = values.iter().find(|(name, _)| *name == asked);
            found.map(|(_, value)| (*value).to_owned())
        })
    }

    fn call(subject: Option<&str>) -> Request {
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
    fn each_peer_has_its_own_subject() {
        let callers = Callers::read(&settings(&[
            ("SMDP_SUBJECT", "CN=smdp,O=a"),
            ("NETWORK_SUBJECT", "CN=network,O=a"),
        ]))
        .unwrap();
        for (shown, smdp, network) in [
            (Some("CN=smdp,O=a"), true, false),
            (Some("CN=network,O=a"), false, true),
            (Some("CN=smdp,O=b"), false, false),
            (Some(""), false, false),
            (None, false, false),
        ] {
            let request = call(shown);
            assert_eq!(callers.include(&request, Peer::Smdp), smdp, "{shown:?}");
            assert_eq!(callers.include(&request, Peer::Network), network, "{shown:?}");
        }
    }

    #[test]
    fn anybody_is_taken_only_where_that_is_said() {
        let open = [("ALLOW_UNAUTHENTICATED_CALLBACKS", "true")];
        let callers = Callers::read(&settings(&open)).unwrap();
        assert!(callers.include(&call(None), Peer::Smdp));
        for (incomplete, missing) in [
            (vec![], "SMDP_SUBJECT is missing"),
            (vec![("SMDP_SUBJECT", "CN=a")], "NETWORK_SUBJECT is missing"),
            (
                vec![("ALLOW_UNAUTHENTICATED_CALLBACKS", "yes")],
                "ALLOW_UNAUTHENTICATED_CALLBACKS must be true or false",
            ),
        ] {
            let error = Callers::read(&settings(&incomplete)).unwrap_err();
            assert_eq!(error.to_string(), format!("the setting {missing}"));
        }
    }
}
