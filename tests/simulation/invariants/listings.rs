//! What must be true of listings when a run has ended: a caller who follows the cursors sees each swap once.

use domain::{Activation, Delivery};
use local::functions::Handler;
use serde_json::Value;

use crate::scheduler::Scheduler;
use crate::workload::Request;

/// Reads all swaps and those of one reseller, two on a page and in both orders.
pub(super) async fn check_listings(scheduler: &Scheduler, swaps: &[(Activation, Vec<Delivery>)]) -> Vec<String> {
    let Some(query) = scheduler.unscheduled_query() else {
        return Vec::new();
    };
    let mut violations = Vec::new();
    for by_desk in [true, false] {
        let visible = swaps.iter().map(|(swap, _)| swap);
        let visible = visible.filter(|swap| by_desk || swap.reseller.as_deref() == Some("R-10"));
        let mut expected: Vec<_> = visible.map(|swap| swap.id.to_string()).collect();
        expected.sort();
        for order in ["orderBy", "orderByDesc"] {
            let seen = read_pages(&query, by_desk, order).await;
            if seen != expected {
                violations.push(format!("a listing has {seen:?} instead of {expected:?}"));
            }
            expected.reverse();
        }
    }
    violations
}

async fn read_pages(query: &Handler, by_desk: bool, order: &str) -> Vec<String> {
    let mut seen = Vec::new();
    let mut cursor = String::new();
    loop {
        let request = Request::listing(by_desk, format!("take=2&{order}=createdAt{cursor}"));
        let response = query(request.event().to_string()).await.expect("a response");
        let response: Value = serde_json::from_str(&response).expect("it is JSON");
        let body = response["body"].as_str().unwrap_or_default();
        let page: Value = serde_json::from_str(body).expect("it is JSON");
        let swaps = page["results"].as_array().expect("a page");
        seen.extend(
            swaps
                .iter()
                .map(|swap| swap["id"].as_str().unwrap_or_default().to_owned()),
        );
        match page["meta"]["next"].as_str() {
            Some(next) => cursor = format!("&cursor={next}"),
            None => return seen,
        }
    }
}
