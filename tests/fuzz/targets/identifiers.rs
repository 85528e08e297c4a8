//! Identifiers, addresses and codes: an accepted value complies with its rules, is accepted again in its written form,
//! and is not printed if it is secret.
#![no_main]

use domain::{
    ActivationCode, ActivationId, ConfirmationCode, EmailAddress, Iccid, Imsi, MatchingId, Msisdn, SmDpAddress,
    SubscriptionId,
};
use libfuzzer_sys::fuzz_target;
use percent_encoding::percent_decode_str;

fuzz_target!(|text: &str| {
    if let Ok(iccid) = Iccid::parse(text) {
        let digits = iccid.as_str();
        assert!((11..=20).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit()));
        assert_eq!(Iccid::parse(digits).as_ref(), Ok(&iccid));
        assert_eq!(Iccid::parse(&format!("{digits}F")).as_ref(), Ok(&iccid));
        // Exactly one last digit is the check digit.
        let front = &digits[..digits.len() - 1];
        let checked =
            (0..10).filter(|last| Iccid::parse(&format!("{front}{last}")).is_ok_and(|other| other.passes_luhn()));
        assert_eq!(checked.count(), 1);
    }
    if let Ok(phone) = Msisdn::parse(text) {
        let digits = phone.as_e164().strip_prefix('+').expect("E.164 has a plus");
        assert!(digits.len() <= 15 && digits.bytes().all(|b| b.is_ascii_digit()));
        assert_eq!(Msisdn::parse(phone.as_e164()).as_ref(), Ok(&phone));
        assert_eq!(Msisdn::parse(&phone.to_string()), Ok(phone));
    }
    if let Ok(email) = EmailAddress::parse(text) {
        let address = email.as_str();
        assert!(address.len() <= EmailAddress::MAX_LENGTH);
        assert_eq!(EmailAddress::parse(address).as_ref(), Ok(&email));
        assert!(
            address
                .bytes()
                .all(|b| b.is_ascii_graphic() && !b",;:<>()[]\\\"".contains(&b))
        );
        let (local, host) = address.rsplit_once('@').expect("an address has an at");
        let (given_local, given_host) = text.trim().rsplit_once('@').expect("a text has its at");
        // Only a host in Unicode is rewritten, as its A-labels.
        assert!(local == given_local && (host == given_host || !given_host.is_ascii()));
        let masked = format!("{}***@{host}", &address[..1]);
        assert_eq!(format!("{email} {email:?}"), format!("{masked} {masked}"));
    }
    if let Ok(code) = ActivationCode::parse(text) {
        let whole = code.expose();
        assert_eq!(ActivationCode::parse(&whole).as_ref(), Ok(&code));
        assert!(whole.starts_with("LPA:1$") && whole.len() <= 202);
        assert_eq!(whole.ends_with("$$1"), code.requires_confirmation());
        for link in [code.apple_link(), code.android_link()] {
            let (front, data) = link.split_once("carddata=").expect("a link has the code");
            assert!(front.starts_with("https://esimsetup."));
            assert_eq!(percent_decode_str(data).decode_utf8_lossy(), whole);
            assert!(!data.contains(['$', ':', '&', '#', '"', '<']));
        }
        let shown = format!("LPA:1${}$##########", code.smdp().as_str());
        assert_eq!(format!("{code:?}"), shown);
    }
    if let Ok(id) = MatchingId::parse(text) {
        assert_eq!(id.expose(), text);
        assert_eq!(format!("{id:?}"), "MatchingId(##########)");
    }
    if let Ok(code) = ConfirmationCode::parse(text) {
        assert!(code.expose() == text && text.len() <= ConfirmationCode::MAX_LENGTH);
        assert_eq!(format!("{code:?}"), "ConfirmationCode(##########)");
    }
    if let Ok(address) = SmDpAddress::parse(text) {
        assert!(address.as_str() == text && !text.contains('$'));
        let small = SmDpAddress::normalized(text).expect("an address");
        assert!(small.as_str().eq_ignore_ascii_case(text));
    }
    if let Ok(imsi) = Imsi::parse(text) {
        assert_eq!(imsi.as_str(), text);
    }
    if let Ok(id) = SubscriptionId::parse(text) {
        // 24 hexadecimal digits are the same identifier in either case.
        assert!(id.as_str().eq_ignore_ascii_case(text));
        assert_eq!(SubscriptionId::parse(id.as_str()), Ok(id));
    }
    if let Ok(id) = ActivationId::parse(text) {
        assert_eq!(id.as_str(), text);
    }
});
