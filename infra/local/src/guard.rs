//! Who may call what the local stack serves beside the API: programs on this machine, and no page in its browser.

use std::net::IpAddr;

use axum::Router;
use axum::extract::Request;
use axum::http::header::{HOST, ORIGIN};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use axum::middleware::{self, Next};
use axum::response::IntoResponse;

/// The routes, for this machine alone.
pub(crate) fn guarded(router: Router) -> Router {
    router.layer(middleware::from_fn(async |request: Request, next: Next| {
        if is_ours(request.headers()) {
            next.run(request).await
        } else {
            (StatusCode::FORBIDDEN, "this is for programs on this machine").into_response()
        }
    }))
}

/// Whether the request names this machine, and comes from no page of another site: a browser here may be showing one, under
/// a name that leads to this machine too.
fn is_ours(headers: &HeaderMap) -> bool {
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
    fn who_is_at_this_machine() {
        for (host, origin, site, ours) in [
            ("127.0.0.1:9000", None, None, true),
            ("localhost:9000", None, Some("none"), true),
            ("LocalHost", None, None, true),
            ("127.0.0.9:9000", None, None, true),
            ("192.0.2.1:9000", None, None, false),
            ("[2001:db8::1]:9000", None, None, false),
            ("[::1]:9000", Some("http://[::1]:9000"), Some("same-origin"), true),
            ("simswap.thief.example:9000", None, None, false),
            ("127.0.0.1.thief.example", None, None, false),
            ("127.0.0.1:9000", Some("http://thief.example"), None, false),
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
            assert_eq!(is_ours(&headers), ours, "{host} {origin:?} {site:?}");
        }
        assert!(!is_ours(&HeaderMap::new()));
    }
}
