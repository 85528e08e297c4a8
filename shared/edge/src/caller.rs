//! The caller and the route of a request, from what API Gateway adds to the event after it has checked the token.

use std::collections::HashMap;

use domain::{Caller, Scope, is_plain};
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt};

/// The token is valid, but its role is unknown or lacks the claim that it needs, or a claim contains control
/// characters, which could act on the terminal of its reader.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token's role is none of OWNER, RESELLER and ADMIN, or lacks its claim")]
pub struct Unauthenticated;

/// Reads the caller from the claims in the request's context. The function does not use the token.
pub fn caller(request: &Request) -> Result<Caller, Unauthenticated> {
    let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else {
        return Err(Unauthenticated);
    };
    let jwt = context
        .authorizer
        .as_ref()
        .and_then(|authorizer| authorizer.jwt.as_ref());
    from_claims(&jwt.ok_or(Unauthenticated)?.claims)
}

/// The path of the route that API Gateway matched, for example `/api/CancelActivation`, however the request spelled it.
pub fn route(request: &Request) -> &str {
    let matched = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.route_key.as_deref(),
        _ => None,
    };
    let path = matched.and_then(|key| key.split_once(' '));
    // `cargo lambda watch` matches routes itself and does not add them to the event.
    path.map_or(request.raw_http_path(), |(_, path)| path)
}

/// Whether this is a query parameter that ServiceStack's clients add to any request, and that changes nothing here:
/// responses are always JSON, in one form.
pub fn is_ignored_parameter(name: &str, value: &str) -> bool {
    let is_format = name.eq_ignore_ascii_case("format") && value.eq_ignore_ascii_case("json");
    is_format || name.eq_ignore_ascii_case("jsconfig") || name == "_"
}

fn from_claims(claims: &HashMap<String, String>) -> Result<Caller, Unauthenticated> {
    let claim = |name: &str| {
        claims
            .get(name)
            .filter(|text| !text.is_empty() && is_plain(text))
            .cloned()
            .ok_or(Unauthenticated)
    };
    let scope = match claim("role")?.as_str() {
        "OWNER" => Scope::Owner {
            customer: claim("customer")?,
        },
        "RESELLER" => Scope::Reseller {
            reseller: claim("reseller")?,
        },
        "ADMIN" => Scope::Admin,
        _ => return Err(Unauthenticated),
    };
    Ok(Caller {
        subject: claim("sub")?,
        scope,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_role_needs_its_claim() {
        let owner = Scope::Owner { customer: "C-1".into() };
        let reseller = Scope::Reseller { reseller: "R-1".into() };
        for (claims, scope) in [
            (vec![("sub", "a"), ("role", "OWNER"), ("customer", "C-1")], Some(owner)),
            (
                vec![("sub", "a"), ("role", "RESELLER"), ("reseller", "R-1")],
                Some(reseller),
            ),
            (vec![("sub", "a"), ("role", "ADMIN")], Some(Scope::Admin)),
            (vec![("sub", "a"), ("role", "OWNER"), ("reseller", "R-1")], None),
            (vec![("sub", "a"), ("role", "OWNER"), ("customer", "")], None),
            (vec![("sub", "a"), ("role", "RESELLER")], None),
            (vec![("sub", "a"), ("role", "owner"), ("customer", "C-1")], None),
            (vec![("sub", "a"), ("role", "AUDITOR")], None),
            (vec![("role", "ADMIN")], None),
            (vec![("sub", "a\x1b[2J"), ("role", "ADMIN")], None),
            (vec![("sub", "a\nADMIN b asked"), ("role", "ADMIN")], None),
            (vec![("sub", "a"), ("role", "OWNER"), ("customer", "C\u{202e}1")], None),
            (vec![], None),
        ] {
            let map = claims.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
            assert_eq!(from_claims(&map).ok().map(|caller| caller.scope), scope, "{claims:?}");
        }
    }
}
