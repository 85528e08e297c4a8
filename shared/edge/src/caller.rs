//! Who asks: the claims that API Gateway's authorizer checked and put into the event.

use std::collections::HashMap;

use domain::{Caller, Scope, is_plain};
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt};

/// The token is valid but gives no role that we know, or a role without the claim it needs, or a claim that would act on the
/// screen of whoever reads it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token's role is none of the three, or lacks its claim")]
pub struct Unauthenticated;

/// Reads the caller from the request's context. A function never sees a token.
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

/// The path of the route that API Gateway matched, however the request spelled it: `/api/CancelActivation`.
pub fn route(request: &Request) -> &str {
    let matched = match request.request_context_ref() {
        Some(RequestContext::ApiGatewayV2(context)) => context.route_key.as_deref(),
        _ => None,
    };
    let path = matched.and_then(|key| key.split_once(' '));
    // `cargo lambda watch` matches routes by itself, and names none.
    path.map_or(request.raw_http_path(), |(_, path)| path)
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
    fn roles_and_the_claims_they_need() {
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
