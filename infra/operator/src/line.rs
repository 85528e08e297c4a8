//! What an operator changes about a line: the new values, what follows from them, and their description. Running the
//! command is in `commands.rs`.

use domain::{EmailAddress, Language, Line, LineState, Msisdn};

use crate::CommandError;

/// The values that an operator gives. `None` leaves a value as it is.
#[derive(Debug, Clone, Default)]
pub struct LineChange {
    /// The phone number.
    pub phone: Option<Msisdn>,
    /// The customer who owns the line.
    pub customer: Option<String>,
    /// The reseller of that customer; `Some(None)` for a direct customer.
    pub reseller: Option<Option<String>>,
    /// The contact address; `Some(None)` deletes it.
    pub email: Option<Option<EmailAddress>>,
    /// The language of e-mails.
    pub language: Option<Language>,
    /// The state.
    pub state: Option<LineState>,
    /// Whether the number is being ported.
    pub porting: Option<bool>,
    /// Whether the line is locked against swaps.
    pub locked: Option<bool>,
}

/// One value of a line that changes: its name, the value before, and the value after.
pub(crate) type Difference = (&'static str, String, String);

impl LineChange {
    /// The line after the change. The contact address of a previous customer is deleted. A kept SIM does not stay with
    /// the line, because the previous customer may have seen its codes, and the previous reseller has bought it.
    ///
    /// # Errors
    /// When the line has an open swap, which relies on what changes.
    pub(crate) fn apply(&self, before: &Line) -> Result<Line, CommandError> {
        let customer = self.customer.as_ref().unwrap_or(&before.customer);
        let reseller = self.reseller.as_ref().unwrap_or(&before.reseller);
        let phone = self.phone.as_ref().unwrap_or(&before.phone);
        let has_new_customer = *customer != before.customer;
        let has_new_owner = has_new_customer || *reseller != before.reseller;
        if let Some(open) = before
            .open_swap
            .as_ref()
            .filter(|_| has_new_owner || *phone != before.phone)
        {
            return Err(CommandError(format!(
                "line {} has the open swap {open}, which relies on its phone number, customer and reseller; cancel the \
                 swap, or wait for its end",
                before.id
            )));
        }
        let email = match (&self.email, has_new_customer) {
            (Some(email), _) => email.clone(),
            (None, true) => None,
            (None, false) => before.email.clone(),
        };
        let mut after = Line {
            phone: phone.clone(),
            customer: customer.clone(),
            reseller: reseller.clone(),
            email,
            language: self.language.unwrap_or(before.language),
            state: self.state.unwrap_or(before.state),
            porting: self.porting.unwrap_or(before.porting),
            locked: self.locked.unwrap_or(before.locked),
            ..before.clone()
        };
        if has_new_owner {
            after.kept_card = None;
            after.kept_esim = None;
        }
        Ok(after)
    }
}

/// What differs between a line before and after a change.
pub(crate) fn differences(before: &Line, after: &Line) -> Vec<Difference> {
    let values = |line: &Line| {
        let or_none = |value: Option<&str>| value.unwrap_or("none").to_owned();
        let kept = |kept: &Option<domain::KeptSim>| or_none(kept.as_ref().map(|kept| kept.iccid.as_str()));
        [
            ("phone number", line.phone.as_e164().to_owned()),
            ("customer", line.customer.clone()),
            ("reseller", or_none(line.reseller.as_deref())),
            (EMAIL, or_none(line.email.as_ref().map(EmailAddress::as_str))),
            ("language", line.language.as_str().to_owned()),
            ("state", line.state.as_str().to_owned()),
            ("porting", line.porting.to_string()),
            ("locked", line.locked.to_string()),
            ("kept card", kept(&line.kept_card)),
            ("kept eSIM", kept(&line.kept_esim)),
        ]
    };
    let both = values(before).into_iter().zip(values(after));
    let changed = both.filter(|((_, was), (_, is))| was != is);
    changed.map(|((name, was), (_, is))| (name, was, is)).collect()
}

const EMAIL: &str = "e-mail";

/// The differences in one sentence, for the record of the action. It has no address, because an address must not
/// outlive its customer.
pub(crate) fn describe(differences: &[Difference]) -> String {
    let parts = differences.iter().map(|(name, was, is)| match *name {
        EMAIL => format!("{name} changed"),
        _ => format!("{name} {was} → {is}"),
    });
    parts.collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use domain::{ActivationId, Iccid, KeptSim, NetworkName, SubscriptionId};
    use jiff::Timestamp;

    use super::*;

    fn line() -> Line {
        Line {
            id: SubscriptionId::parse("L-1").unwrap(),
            phone: Msisdn::parse("+31612345601").unwrap(),
            customer: "C-100".into(),
            reseller: Some("R-10".into()),
            network: NetworkName::parse("KPN").unwrap(),
            current_sim: Iccid::parse("8931086000000000013").unwrap(),
            email: Some(EmailAddress::parse("anna@example.com").unwrap()),
            language: Language::Nl,
            state: LineState::Active,
            porting: false,
            locked: false,
            open_swap: None,
            kept_card: None,
            kept_esim: Some(KeptSim {
                iccid: Iccid::parse("8931086000000002019").unwrap(),
                from: Timestamp::UNIX_EPOCH,
            }),
        }
    }

    #[test]
    fn what_concerns_the_previous_owner_does_not_follow_to_the_next() {
        let customer = |name: &str| LineChange {
            customer: Some(name.to_owned()),
            ..LineChange::default()
        };
        let kept = "kept eSIM 8931086000000002019 → none";
        let new_address = LineChange {
            email: Some(EmailAddress::parse("new@example.com").ok()),
            ..customer("C-200")
        };
        let reseller = LineChange {
            reseller: Some(None),
            ..LineChange::default()
        };
        let rest = LineChange {
            phone: Msisdn::parse("0612345602").ok(),
            language: Some(Language::Fr),
            state: Some(LineState::Blocked),
            porting: Some(true),
            locked: Some(true),
            ..LineChange::default()
        };
        for (change, address, described) in [
            (LineChange::default(), Some("anna@example.com"), String::new()),
            (customer("C-100"), Some("anna@example.com"), String::new()),
            (
                customer("C-200"),
                None,
                format!("customer C-100 → C-200, e-mail changed, {kept}"),
            ),
            (
                new_address,
                Some("new@example.com"),
                format!("customer C-100 → C-200, e-mail changed, {kept}"),
            ),
            (
                reseller,
                Some("anna@example.com"),
                format!("reseller R-10 → none, {kept}"),
            ),
            (
                rest,
                Some("anna@example.com"),
                "phone number +31612345601 → +31612345602, language nl → fr, state ACTIVE → BLOCKED, porting false → \
                 true, locked false → true"
                    .to_owned(),
            ),
        ] {
            let after = change.apply(&line()).unwrap();
            assert_eq!(after.email.as_ref().map(EmailAddress::as_str), address, "{change:?}");
            assert_eq!(describe(&differences(&line(), &after)), described);
        }
    }

    #[test]
    fn an_open_swap_prevents_only_what_it_relies_on() {
        let open = Line {
            open_swap: ActivationId::parse("A-1").ok(),
            ..line()
        };
        let none = LineChange::default;
        for (change, allowed) in [
            (
                LineChange {
                    locked: Some(true),
                    ..none()
                },
                true,
            ),
            (
                LineChange {
                    email: Some(None),
                    ..none()
                },
                true,
            ),
            // Not a change.
            (
                LineChange {
                    customer: Some("C-100".into()),
                    ..none()
                },
                true,
            ),
            (
                LineChange {
                    customer: Some("C-200".into()),
                    ..none()
                },
                false,
            ),
            (
                LineChange {
                    reseller: Some(None),
                    ..none()
                },
                false,
            ),
            (
                LineChange {
                    phone: Msisdn::parse("0612345602").ok(),
                    ..none()
                },
                false,
            ),
        ] {
            let applied = change.apply(&open).map_err(|error| error.to_string());
            assert_eq!(applied.is_ok(), allowed, "{change:?}");
        }
    }
}
