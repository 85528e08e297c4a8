//! ES2+ bodies of any bytes, as a request of ours, a callback, and an answer: what is read is written as it was read, and
//! no secret is in what is told of it.
#![no_main]

use std::sync::LazyLock;

use domain::{ConfirmationCode, Iccid, MatchingId};
use fuzz::{ambient, answer, request, round_trip, run, says, settings, store};
use libfuzzer_sys::fuzz_target;
use network_events::NetworkEvents;
use peers::es2plus::{
    CancelOrder, CancelOrderResponse, ConfirmOrder, ConfirmOrderResponse, DownloadOrder, DownloadOrderResponse,
    DownloadProgressInfo, ReleaseProfile, ReleaseProfileResponse,
};
use peers::{Es2Plus, FinalStatus, read_json};
use serde_json::Value;

static FUNCTION: LazyLock<NetworkEvents> =
    LazyLock::new(|| NetworkEvents::new(store(), ambient(), &settings()).expect("settings"));

const CODE: &str = "ZQ7KW9VXT3";
const MATCHING_ID: &str = "QX7PD-3M8ZK-A91TR";

fuzz_target!(|body: &[u8]| {
    if let Some(order) = round_trip::<ConfirmOrder>(body) {
        let shown = format!("{order:?}");
        assert!(order.matching_id.is_none() || shown.contains("MatchingId(##########)"));
        assert!(order.confirmation_code.is_none() || shown.contains("ConfirmationCode(##########)"));
    }
    round_trip::<DownloadOrder>(body);
    round_trip::<ReleaseProfile>(body);
    round_trip::<CancelOrder>(body);
    round_trip::<DownloadOrderResponse>(body);
    round_trip::<ConfirmOrderResponse>(body);
    round_trip::<ReleaseProfileResponse>(body);
    round_trip::<CancelOrderResponse>(body);
    round_trip::<DownloadProgressInfo>(body);
    let read = read_json::<DownloadProgressInfo>(body).ok();
    if let Some(info) = &read {
        // Every spelling means what our own does.
        let now = ambient().now();
        let fact = info.fact(now);
        let again: DownloadProgressInfo =
            serde_json::from_value(serde_json::to_value(info).expect("written")).expect("read");
        assert_eq!(again.fact(now), fact);
    }

    // A callback that can be read is taken, and no other.
    let path = "/gsma/rsp2/es2plus/handleDownloadProgressInfo";
    let (answered, _) = run(FUNCTION.handle(request("POST", path, b"", body)));
    let (status, answered) = answer(answered);
    match read {
        Some(_) => assert_eq!((status, answered), (204, Value::Null)),
        None => assert_eq!(status, 400, "{answered}"),
    }

    // An SM-DP+ that says this, whatever it is, is told of without our secrets.
    let iccid = Iccid::parse("8931086000000002019").expect("an ICCID");
    let matching_id = MatchingId::parse(MATCHING_ID).expect("a matching id");
    let code = ConfirmationCode::parse(CODE).expect("a code");
    for status in [200, 500] {
        let smdp = Es2Plus::new(says(status, body), "http://smdp", "1.2.3");
        let (told, logged) = run(async {
            [
                smdp.download_order(&iccid, "call").await.err(),
                smdp.confirm_order(&iccid, &matching_id, Some(&code), "call")
                    .await
                    .err(),
                smdp.cancel_order(&iccid, Some(&matching_id), FinalStatus::Available, "call")
                    .await
                    .err(),
            ]
        });
        assert!(status == 200 || told.iter().all(Option::is_some));
        let words: String = told
            .iter()
            .flatten()
            .map(|error| format!("{error} {error:?}"))
            .collect();
        for secret in [CODE, MATCHING_ID] {
            assert!(!words.contains(secret) && !logged.iter().any(|line| line.contains(secret)));
        }
    }
});
