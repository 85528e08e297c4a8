//! Restricts what the local stack serves besides the API to programs on this machine; web pages of other sites cannot
//! call it.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{CACHE_CONTROL, HOST, ORIGIN, X_CONTENT_TYPE_OPTIONS};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};

/// The routes, restricted to this machine.
pub(crate) fn guarded(router: Router) -> Router {
    router.layer(middleware::from_fn(async |request: Request, next: Next| {
        if is_local(request.headers()) {
            next.run(request).await
        } else {
            (StatusCode::FORBIDDEN, "this is for programs on this machine").into_response()
        }
    }))
}

/// The routes under `/local`, restricted to this machine. Their responses contain tokens and e-mails, so no cache stores
/// them, and no page of another site can embed them, even in a browser that does not say where a request comes from.
pub(crate) fn private(router: Router) -> Router {
    const HEADERS: [(HeaderName, &str); 3] = [
        (CACHE_CONTROL, "no-store"),
        (X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    guarded(router).layer(middleware::map_response(async |response: Response| {
        (HEADERS, response).into_response()
    }))
}

/// Whether the request names this machine, and does not come from a page of another site. A browser on this machine may
/// show such a page, and its host name may also resolve to this machine (DNS rebinding).
fn is_local(headers: &HeaderMap) -> bool {
    let text = |name| headers.get(name).map(HeaderValue::to_str);
    let Some(Ok(host)) = text(HOST) else {
        return false;
    };
    let name = match host.rsplit_once(':') {
        Some((name, port)) if port.bytes().all(|b| b.is_ascii_digit()) => name,
        _ => host,
    };
    let address = name.trim_start_matches('[').trim_end_matches(']');
    let loopback = match address.parse::<IpAddr>() {
        Ok(address) => address.is_loopback(),
        Err(_) => name.eq_ignore_ascii_case("localhost"),
    };
    let origin = text(ORIGIN).is_none_or(|origin| origin.is_ok_and(|o| o == format!("http://{host}")));
    let site = text(HeaderName::from_static("sec-fetch-site"));
    let site = site.is_none_or(|site| site.is_ok_and(|site| ["same-origin", "none"].contains(&site)));
    loopback && origin && site
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_requests_of_this_machine_are_local() {
        for (host, origin, site, local) in [
            ("127.0.0.1:9000", None, None, true),
            ("localhost:9000", None, Some("none"), true),
            ("LocalHost", None, None, true),
            ("127.0.0.9:9000", None, None, true),
            ("192.0.2.1:9000", None, None, false),
            ("[2001:db8::1]:9000", None, None, false),
            ("[::1]:9000", Some("http://[::1]:9000"), Some("same-origin"), true),
            ("simswap.attacker.example:9000", None, None, false),
            ("127.0.0.1.attacker.example", None, None, false),
            ("127.0.0.1:9000", Some("http://attacker.example"), None, false),
            ("127.0.0.1:9000", Some("http://localhost:9000"), None, false),
            ("127.0.0.1:9000", Some("null"), None, false),
            ("127.0.0.1:9000", None, Some("cross-site"), false),
            ("127.0.0.1:9000", None, Some("same-site"), false),
            ("", None, None, false),
        ] {
            let mut headers = HeaderMap::new();
            let given = [("host", Some(host)), ("origin", origin), ("sec-fetch-site", site)];
            for (name, value) in given {
                if let Some(value) = value {
                    headers.insert(name, HeaderValue::from_static(value));
                }
            }
            assert_eq!(is_local(&headers), local, "{host} {origin:?} {site:?}");
        }
        assert!(!is_local(&HeaderMap::new()));
    }
}
