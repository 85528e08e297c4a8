//! The API description under `/docs`, as a file and as a page that renders it. The page loads nothing from other hosts.
//! `/` leads to it.

use axum::Router;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_SECURITY_POLICY, CONTENT_TYPE, LOCATION};
use axum::routing::get;

/// The browser loads everything from this stack. Without this policy, the renderer would load its logo from another
/// host.
const POLICY: &str = "default-src 'self'; style-src 'unsafe-inline'; img-src data:";

const PAGE: &str = include_str!("../docs/index.html");
const RENDERER: &str = include_str!("../docs/redoc.standalone.js");
const DESCRIPTION: &str = include_str!("../../openapi.yaml");

/// The routes under `/docs`, and `/`.
pub(crate) fn router() -> Router {
    let page_headers = [
        (CONTENT_TYPE, "text/html; charset=utf-8"),
        (CONTENT_SECURITY_POLICY, POLICY),
    ];
    let script = [(CONTENT_TYPE, "text/javascript; charset=utf-8")];
    let yaml = [(CONTENT_TYPE, "application/yaml")];
    Router::new()
        .route("/", get((StatusCode::FOUND, [(LOCATION, "/docs")])))
        .route("/docs", get((page_headers, PAGE)))
        .route("/docs/redoc.standalone.js", get((script, RENDERER)))
        .route("/docs/openapi.yaml", get((yaml, DESCRIPTION)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::body::Body;
    use axum::http::Request;
    use lambda_http::tower::ServiceExt;

    #[tokio::test]
    async fn everything_that_the_page_loads_is_served() {
        let loaded = PAGE.split('"').filter(|text| text.starts_with("/docs/"));
        let paths: Vec<&str> = loaded.chain(["/docs"]).collect();
        assert_eq!(paths.len(), 3);
        for path in paths {
            let request = Request::get(path).body(Body::empty()).unwrap();
            let response = router().oneshot(request).await.unwrap();
            assert_eq!(response.status(), 200, "{path}");
        }
        let request = Request::get("/").body(Body::empty()).unwrap();
        let response = router().oneshot(request).await.unwrap();
        assert_eq!(
            (response.status().as_u16(), &response.headers()[LOCATION]),
            (302, &"/docs".parse().unwrap())
        );
    }
}
