//! ES2+ bodies of any bytes, as our request, a callback and a response. A body that can be parsed is written with the
//! same meaning, and nothing printed about it contains a secret.
#![no_main]

use std::sync::LazyLock;

use domain::{ConfirmationCode, Iccid, MatchingId};
use fuzz::{clock_and_rng, fixed_response, request, round_trip, run, settings, status_and_body, store};
use libfuzzer_sys::fuzz_target;
use network_events::NetworkEvents;
use peers::es2plus::{
    CALLBACKS, CancelOrder, CancelOrderResponse, ConfirmOrder, ConfirmOrderResponse, DownloadOrder,
    DownloadOrderResponse, DownloadProgressInfo, GetProfileStatus, GetProfileStatusResponse, PATH, ReleaseProfile,
    ReleaseProfileResponse,
};
use peers::{Es2Plus, FinalStatus, VendorPoints, read_json};
use serde_json::Value;

static FUNCTION: LazyLock<NetworkEvents> =
    LazyLock::new(|| NetworkEvents::new(store(), clock_and_rng(), &settings()).expect("settings"));

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
    round_trip::<GetProfileStatus>(body);
    round_trip::<GetProfileStatusResponse>(body);
    round_trip::<DownloadProgressInfo>(body);
    let read = read_json::<DownloadProgressInfo>(body).ok();
    if let Some(info) = &read {
        // Every spelling has the meaning of our own spelling.
        let now = clock_and_rng().now();
        let points = VendorPoints::parse("5=deleted,6=enabled").expect("a list");
        let fact = info.fact(now, &points);
        let again: DownloadProgressInfo =
            serde_json::from_value(serde_json::to_value(info).expect("written")).expect("read");
        assert_eq!(again.fact(now, &points), fact);
    }

    // A callback is accepted exactly if it can be parsed, by either name.
    for name in CALLBACKS {
        let path = format!("{PATH}{name}");
        let (response, _) = run(FUNCTION.handle(request("POST", &path, b"", body)));
        let (status, response) = status_and_body(response);
        match read {
            Some(_) => assert_eq!((status, response), (204, Value::Null)),
            None => assert_eq!(status, 400, "{response}"),
        }
    }

    // An error about this response, whatever it is, is printed without our secrets.
    let iccid = Iccid::parse("8931086000000002019").expect("an ICCID");
    let matching_id = MatchingId::parse(MATCHING_ID).expect("a matching id");
    let code = ConfirmationCode::parse(CODE).expect("a code");
    for status in [200, 500] {
        let smdp = Es2Plus::new(fixed_response(status, body), "http://smdp", "1.2.3");
        let (errors, logged) = run(async {
            [
                smdp.download_order(&iccid, "call").await.err(),
                smdp.confirm_order(&iccid, &matching_id, Some(&code), "call")
                    .await
                    .err(),
                smdp.cancel_order(&iccid, Some(&matching_id), FinalStatus::Available, "call")
                    .await
                    .err(),
                smdp.profile_status(&iccid, "call").await.err(),
            ]
        });
        assert!(status == 200 || errors.iter().all(Option::is_some));
        let words: String = errors
            .iter()
            .flatten()
            .map(|error| format!("{error} {error:?}"))
            .collect();
        for secret in [CODE, MATCHING_ID] {
            assert!(!words.contains(secret) && !logged.iter().any(|line| line.contains(secret)));
        }
    }
});
