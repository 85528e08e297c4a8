//! Parses a request as `infra/openapi.yaml` describes it. Every field is checked, and all faults are reported in one
//! error. Not here: the checks that need the table (`lib.rs`).

use domain::{ConfirmationCode, EmailAddress, Iccid, Malformed, Msisdn, Requested, SubscriptionId, SwapKind, is_plain};
use edge::{ErrorResponse, FieldError, Fields, idempotency_key};
use lambda_http::http::HeaderMap;
use serde_json::json;

/// A swap as the caller requests it.
#[derive(Debug)]
pub(crate) struct Swap {
    pub(crate) target: Target,
    pub(crate) kind: SwapKind,
    pub(crate) requested: Requested,
    pub(crate) code: Option<ConfirmationCode>,
}

/// How the request names the line.
#[derive(Debug)]
pub(crate) enum Target {
    Id(SubscriptionId),
    Phone(Msisdn),
    Both(SubscriptionId, Msisdn),
}

const REFERENCE_MAX_LENGTH: usize = 15;
const ICCID_MAX_LENGTH: usize = 20;

/// Parses all fields and the idempotency key.
pub(crate) fn parse(mut fields: Fields, headers: &HeaderMap) -> Result<(Swap, Option<String>), ErrorResponse> {
    let id = fields.bounded("subscriptionId", 1, SubscriptionId::MAX_LENGTH, SubscriptionId::parse);
    let phone = fields.parsed("phoneNumber", Msisdn::parse);
    if id.is_none() && phone.is_none() && !fields.is_faulty("subscriptionId") && !fields.is_faulty("phoneNumber") {
        fields.fault(no_line());
    }
    let reference = fields.bounded("referenceNumber", 0, REFERENCE_MAX_LENGTH, reference);
    let new_sim = new_sim(&mut fields);
    let e_sim = fields.boolean("eSim");
    let kind = if e_sim == Some(true) {
        SwapKind::Esim
    } else {
        SwapKind::Physical
    };
    if kind == SwapKind::Physical
        && new_sim.is_none()
        && !fields.is_faulty("newSimCardNumber")
        && !fields.is_faulty("eSim")
    {
        let what = "is needed to swap to a card, or 'eSim': true to swap to an eSIM";
        fields.fault(FieldError::missing("newSimCardNumber", what));
    }
    let email = fields.bounded("email", 1, EmailAddress::MAX_LENGTH, EmailAddress::parse);
    require_for_esim(&mut fields, "email", kind, email.is_none());
    let code = confirmation_code(&mut fields);
    require_for_esim(&mut fields, "confirmationCode", kind, code.is_none());
    let key = idempotency_key(headers).unwrap_or_else(|fault| {
        fields.fault(*fault);
        None
    });
    fields.finish()?;

    let target = match (id, phone) {
        (Some(id), Some(phone)) => Target::Both(id, phone),
        (Some(id), None) => Target::Id(id),
        (None, Some(phone)) => Target::Phone(phone),
        (None, None) => {
            return Err(ErrorResponse::invalid(vec![no_line()]));
        }
    };
    let requested = Requested {
        reference: reference.unwrap_or_default(),
        e_sim,
        email,
        has_code: code.is_some(),
        new_sim,
    };
    Ok((
        Swap {
            target,
            kind,
            requested,
            code,
        },
        key,
    ))
}

fn no_line() -> FieldError {
    FieldError::missing("subscriptionId", "or 'phoneNumber' is needed to name the line")
}

/// Parses a reference. Screens show it unchanged, so it must not contain characters that act on a screen.
fn reference(text: &str) -> Result<String, Malformed> {
    is_plain(text)
        .then(|| text.to_owned())
        .ok_or(Malformed("must not have control or bidirectional characters"))
}

/// Parses the ICCID of the new SIM. A trailing filler `F` does not count towards its length.
fn new_sim(fields: &mut Fields) -> Option<Iccid> {
    const NAME: &str = "newSimCardNumber";
    let given = fields.text(NAME)?;
    let total = given.strip_suffix(['F', 'f']).unwrap_or(&given).chars().count();
    if total > ICCID_MAX_LENGTH {
        fields.fault(FieldError::too_long(NAME, 11, ICCID_MAX_LENGTH, total, &given));
        return None;
    }
    let iccid = fields.read(NAME, &given, Iccid::parse)?;
    if !iccid.passes_luhn() {
        tracing::warn!(%iccid, "newSimCardNumber has a wrong check digit");
    }
    Some(iccid)
}

/// Parses the confirmation code. No fault contains its value.
fn confirmation_code(fields: &mut Fields) -> Option<ConfirmationCode> {
    const NAME: &str = "confirmationCode";
    let given = fields.text(NAME)?;
    let total = given.chars().count();
    if total > ConfirmationCode::MAX_LENGTH {
        fields.fault(FieldError::too_long(
            NAME,
            1,
            ConfirmationCode::MAX_LENGTH,
            total,
            "##########",
        ));
        return None;
    }
    fields.read(NAME, &given, ConfirmationCode::parse)
}

/// Adds a fault if a field that an eSIM swap requires is missing.
fn require_for_esim(fields: &mut Fields, name: &'static str, kind: SwapKind, missing: bool) {
    if kind == SwapKind::Esim && missing && !fields.is_faulty(name) {
        fields.fault(FieldError::not_empty(name));
    }
}

impl Swap {
    /// The canonical form of the request: that of a repeat is equal. It consists of the parsed fields, with the line
    /// resolved and without the confirmation code.
    pub(crate) fn canonical(&self, line: &SubscriptionId) -> String {
        let r = &self.requested;
        json!([
            line.as_str(),
            r.reference,
            r.e_sim,
            r.email.as_ref().map(EmailAddress::as_str),
            // The place of the confirmation code.
            null,
            r.new_sim.as_ref().map(Iccid::as_str),
        ])
        .to_string()
    }

    /// 404: there is no SIM for this swap.
    pub(crate) fn no_sim(&self) -> ErrorResponse {
        match self.kind {
            SwapKind::Esim => ErrorResponse::out_of_stock(),
            SwapKind::Physical => ErrorResponse::not_found("newSimCardNumber"),
        }
    }
}
