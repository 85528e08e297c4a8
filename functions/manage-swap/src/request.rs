//! What a caller wants done to a swap: the parameters and the body of each operation.

use domain::{ActivationId, Caller, ConfirmationCode, EmailAddress, Malformed, Witness, is_plain};
use edge::{ErrorResponse, FieldError, Fields, idempotency_key, is_ignored_parameter, read_optional_body};
use lambda_http::{Request, RequestExt};
use store::caller_digest;

/// The longest note of a caller, in characters.
const NOTE_MAX_LENGTH: usize = 164;

/// The operations on a swap, by their routes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Operation {
    Cancel,
    Resend,
    Renew,
    Report,
}

impl Operation {
    /// The operation at a route.
    pub(crate) fn at(route: &str) -> Option<Self> {
        match route {
            "/api/CancelActivation" => Some(Self::Cancel),
            "/api/ResendEsim" => Some(Self::Resend),
            "/api/RenewEsim" => Some(Self::Renew),
            "/api/ReportInstalled" => Some(Self::Report),
            _ => None,
        }
    }
}

/// What a caller wants done.
#[derive(Debug)]
pub(crate) enum Wish {
    /// End the swap.
    Cancel,
    /// Send the QR code again, perhaps to another address.
    Resend { to: Option<EmailAddress> },
    /// Send a new QR code, perhaps to another address, and perhaps with a new confirmation code.
    Renew {
        to: Option<EmailAddress>,
        code: Option<ConfirmationCode>,
    },
    /// Believe that the eSIM is installed.
    Report { witness: Witness, note: String },
}

/// A request without faults.
#[derive(Debug)]
pub(crate) struct ManageRequest {
    pub(crate) id: ActivationId,
    pub(crate) wish: Wish,
    /// The caller's idempotency key.
    pub(crate) key: Option<String>,
}

impl ManageRequest {
    /// Reads a request. The error names all faults.
    pub(crate) fn read(request: &Request, operation: Operation) -> Result<Self, ErrorResponse> {
        // A cancellation has no body, so whatever a client sends is ignored.
        let mut fields = match operation {
            Operation::Cancel => Fields::default(),
            _ => read_optional_body(request)?,
        };
        let id = id_parameter(request);
        for fault in id.as_ref().err().into_iter().flatten() {
            fields.fault(fault.clone());
        }
        let key = idempotency_key(request.headers());
        if let Err(fault) = &key {
            fields.fault((**fault).clone());
        }
        let max = EmailAddress::MAX_LENGTH;
        let wish = match operation {
            Operation::Cancel => Some(Wish::Cancel),
            Operation::Resend => {
                let to = fields.bounded("email", 1, max, EmailAddress::parse);
                Some(Wish::Resend { to })
            }
            Operation::Renew => {
                let to = fields.bounded("email", 1, max, EmailAddress::parse);
                let max = ConfirmationCode::MAX_LENGTH;
                let code = fields.bounded("confirmationCode", 1, max, ConfirmationCode::parse);
                Some(Wish::Renew { to, code })
            }
            Operation::Report => {
                let note = fields
                    .bounded("note", 1, NOTE_MAX_LENGTH, parse_note)
                    .unwrap_or_default();
                let witness = fields.parsed("witness", str::parse);
                if witness.is_none() && !fields.is_faulty("witness") {
                    fields.fault(FieldError::not_empty("witness"));
                }
                witness.map(|witness| Wish::Report { witness, note })
            }
        };
        fields.finish()?;
        let (Some(wish), Ok(key)) = (wish, key) else {
            return Err(ErrorResponse::internal());
        };
        let id = id.map_err(ErrorResponse::invalid)?;
        Ok(Self { id, wish, key })
    }

    /// A text that equal requests of one caller have in common. The confirmation code is not in it.
    pub(crate) fn canonical(&self, caller: &Caller) -> String {
        let email = |to: &Option<EmailAddress>| to.as_ref().map_or_else(String::new, |to| to.as_str().to_lowercase());
        let wish = match &self.wish {
            Wish::Cancel => "cancel".to_owned(),
            Wish::Resend { to } => format!("resend\n{}", email(to)),
            Wish::Renew { to, .. } => format!("renew\n{}\n", email(to)),
            Wish::Report { witness, note } => format!("report\n{}\n{note}", witness.as_str()),
        };
        format!("{}\n{}\n{wish}", caller_digest(caller), self.id)
    }

    /// The confirmation code of the request.
    pub(crate) fn code(&self) -> Option<&ConfirmationCode> {
        match &self.wish {
            Wish::Renew { code, .. } => code.as_ref(),
            Wish::Cancel | Wish::Resend { .. } | Wish::Report { .. } => None,
        }
    }
}

fn parse_note(text: &str) -> Result<String, Malformed> {
    is_plain(text)
        .then(|| text.to_owned())
        .ok_or(Malformed("must not contain control or formatting characters"))
}

/// Reads `id`, the only query parameter of ours. Its name may be in any letter case.
fn id_parameter(request: &Request) -> Result<ActivationId, Vec<FieldError>> {
    let parameters = request.query_string_parameters();
    let mut faults = Vec::new();
    let mut ids = Vec::new();
    for (name, value) in parameters.iter() {
        if name.eq_ignore_ascii_case("id") {
            ids.push(value);
        } else if !is_ignored_parameter(name, value) {
            faults.push(FieldError::unknown(name));
        }
    }
    match ids[..] {
        [] | [""] => faults.insert(0, FieldError::not_empty("id")),
        [id] => match ActivationId::parse(id) {
            Ok(id) if faults.is_empty() => return Ok(id),
            Ok(_) => {}
            Err(malformed) => faults.insert(0, FieldError::invalid("id", malformed.0)),
        },
        _ => faults.insert(0, FieldError::invalid("id", "must be given once")),
    }
    Err(faults)
}
