//! The schedule that invokes the sweeper. In a deployment it is an EventBridge rule.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use serde_json::json;

use crate::functions::Functions;
use crate::request_id::request_id;

/// Invokes the sweeper at this interval until `stop` completes.
pub(crate) async fn run(functions: Arc<Functions>, every: Duration, stop: impl Future<Output = ()>) {
    let mut stop = pin!(stop);
    loop {
        tokio::select! {
            biased;
            () = &mut stop => return,
            () = tokio::time::sleep(every) => {}
        }
        let event = json!({
            "version": "0",
            "id": request_id(),
            "detail-type": "Scheduled Event",
            "source": "aws.events",
            "time": Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string(),
            "resources": [],
            "detail": {},
        });
        if let Err(error) = functions.invoke("sweep-swaps", event.to_string()).await {
            tracing::warn!(%error, "the sweeper failed");
        }
    }
}
