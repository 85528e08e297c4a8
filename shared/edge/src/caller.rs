//! Who asks: the claims that API Gateway's authorizer checked and put into the event.

use std::collections::HashMap;

use domain::{Caller, Scope};
use lambda_http::request::RequestContext;
use lambda_http::{Request, RequestExt};

/// The token is valid but gives no role that we know, or a role without the claim it needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the token's role is none of the three, or lacks its claim")]
pub struct NoCaller;

/// Reads the caller from the request's context. A function never sees a token.
pub fn caller(request: &Request) -> Result<Caller, NoCaller> {
    let Some(RequestContext::ApiGatewayV2(context)) = request.request_context_ref() else {
        return Err(NoCaller);
    };
    let jwt = context
        .authorizer
        .as_ref()
        .and_then(|authorizer| authorizer.jwt.as_ref());
    from_claims(&jwt.ok_or(NoCaller)?.claims)
}

fn from_claims(claims: &HashMap<String, String>) -> Result<Caller, NoCaller> {
    let claim = |name: &str| {
        claims
            .get(name)
            .filter(|text| !text.is_empty())
            .cloned()
            .ok_or(NoCaller)
    };
    let scope = match claim("role")?.as_str() {
        "OWNER" => Scope::Owner {
            customer: claim("customer")?,
        },
        "RESELLER" => Scope::Reseller {
            reseller: claim("reseller")?,
        },
        "ADMIN" => Scope::Admin,
        _ => return Err(NoCaller),
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
        let owner = Scope::Owner {
            customer: "C-1".into(),
        };
        let reseller = Scope::Reseller {
            reseller: "R-1".into(),
        };
        for (claims, scope) in [
            (
                vec![("sub", "a"), ("role", "OWNER"), ("customer", "C-1")],
                Some(owner),
            ),
            (
                vec![("sub", "a"), ("role", "RESELLER"), ("reseller", "R-1")],
                Some(reseller),
            ),
            (vec![("sub", "a"), ("role", "ADMIN")], Some(Scope::Admin)),
            (
                vec![("sub", "a"), ("role", "OWNER"), ("reseller", "R-1")],
                None,
            ),
            (
                vec![("sub", "a"), ("role", "OWNER"), ("customer", "")],
                None,
            ),
            (vec![("sub", "a"), ("role", "RESELLER")], None),
            (
                vec![("sub", "a"), ("role", "owner"), ("customer", "C-1")],
                None,
            ),
            (vec![("sub", "a"), ("role", "AUDITOR")], None),
            (vec![("role", "ADMIN")], None),
            (vec![], None),
        ] {
            let map = claims
                .iter()
                .map(|(k, v)| ((*k).to_owned(), (*v).to_owned()))
                .collect();
            assert_eq!(
                from_claims(&map).ok().map(|caller| caller.scope),
                scope,
                "{claims:?}"
            );
        }
    }
}
