//! Shows one swap, line or SIM to an operator, as aligned text. Secrets are masked; times are UTC.

use std::fmt::Write;

use domain::{
    Activation, ActivationId, Delivery, EmailAddress, Holder, Iccid, Msisdn, Sim, SimState, SubscriptionId, SwapKind,
    TimelineEntry, escaped,
};
use jiff::Timestamp;
use store::{Store, StoreError};

use crate::StartError;
use crate::import::with_causes;

const MASK: &str = "##########";

/// Aligned columns; the last one is as wide as it is. Nothing in a cell acts on the terminal: much of it was written by
/// callers and peers.
#[derive(Default)]
struct Table(Vec<Vec<String>>);

impl Table {
    fn row(&mut self, cells: &[&str]) {
        let plain = cells.iter().map(|cell| escaped(cell).into_owned());
        self.0.push(plain.collect());
    }

    /// A field and its value; one that is absent is left out.
    fn field(&mut self, name: &str, value: Option<impl AsRef<str>>) {
        if let Some(value) = value {
            self.row(&[name, value.as_ref()]);
        }
    }

    fn write_to(&self, text: &mut String) {
        let columns = self.0.iter().map(Vec::len).max().unwrap_or(0);
        let widths: Vec<_> = (0..columns)
            .map(|column| {
                let cells = self.0.iter().filter_map(|row| row.get(column));
                cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
            })
            .collect();
        for row in &self.0 {
            let mut line = String::new();
            for (cell, width) in row.iter().zip(&widths) {
                let _ = write!(line, "{cell:width$}  ");
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
    }
}

/// A swap with its mails and its timeline.
///
/// # Errors
/// When there is none of this id, or the table does not answer.
pub async fn swap(store: &Store, id: &str) -> Result<String, StartError> {
    let unknown = || StartError(format!("there is no swap {}", escaped(id)));
    let parsed = ActivationId::parse(id).map_err(|_| unknown())?;
    let stored = store.swap_with_deliveries(&parsed).await.map_err(failed)?;
    let stored = stored.ok_or_else(unknown)?;
    let a = &stored.activation;
    let kind = match a.kind {
        SwapKind::Esim => "eSIM",
        SwapKind::Physical => "card",
    };
    let code = match (&stored.secrets.code, a.requested.has_code) {
        (Some(_), _) => Some(MASK),
        (None, true) => Some("erased"),
        (None, false) => None,
    };
    let failure = a.failure.map(|f| format!("{}: {}", f.code(), f.message()));
    let mut fields = Table::default();
    fields.row(&["swap", a.id.as_str()]);
    fields.row(&["status", a.status().as_str()]);
    fields.row(&["phase", a.phase.as_str()]);
    fields.field("failure", failure);
    fields.row(&["line", a.subscription.as_str()]);
    let phone = Some(a.phone.as_e164()).filter(|_| !a.is_anonymous());
    fields.row(&["phone number", phone.unwrap_or("erased")]);
    fields.row(&["customer", &a.customer]);
    fields.field("reseller", a.reseller.as_ref());
    fields.field("caller", Some(&stored.caller).filter(|c| !c.is_empty()));
    fields.row(&["network", a.network.as_str()]);
    fields.row(&["kind", kind]);
    fields.row(&["old SIM", a.old_sim.as_str()]);
    fields.row(&["new SIM", a.new_sim.as_str()]);
    fields.field("reference", Some(&a.requested.reference).filter(|r| !r.is_empty()));
    fields.field("e-mail", a.requested.email.as_ref().map(EmailAddress::as_str));
    fields.field("confirmation code", code);
    fields.field("matching id", stored.secrets.matching_id.as_ref().map(|_| MASK));
    fields.row(&["SM-DP+ order", a.profile_order.as_str()]);
    fields.field("profile", a.profile.map(|profile| profile.as_str()));
    fields.row(&["network order", a.network_order.as_str()]);
    fields.field("order number", a.order_number.as_ref());
    fields.field("disputed", a.disputed.then_some("the network has moved the number"));
    fields.row(&["created", &time(a.created_at)]);
    fields.row(&["modified", &time(a.modified_at)]);
    fields.field("activated", a.activated_at.map(time));
    fields.field("ended", a.ended_at.map(time));
    fields.field("claimed until", a.claim.as_ref().map(|claim| time(claim.until)));
    fields.field("looked at again", a.wake_at.map(time));
    fields.row(&["tries", &a.tries.to_string()]);
    let mut text = String::new();
    fields.write_to(&mut text);
    if !stored.deliveries.is_empty() {
        text.push('\n');
        mails(&stored.deliveries).write_to(&mut text);
    }
    text.push('\n');
    timeline(a, &stored.deliveries).write_to(&mut text);
    Ok(text)
}

fn mails(deliveries: &[Delivery]) -> Table {
    let mut mails = Table::default();
    mails.row(&["MAIL", "TO", "STATE", "MODIFIED", "MESSAGE ID"]);
    for mail in deliveries {
        mails.row(&[
            &mail.number.to_string(),
            mail.to.as_str(),
            mail.state.as_str(),
            &time(mail.modified_at),
            mail.message_id.as_deref().unwrap_or(""),
        ]);
    }
    mails
}

/// What happened to the swap and to its mails, in one order.
fn timeline(activation: &Activation, mails: &[Delivery]) -> Table {
    let of_swap = activation.timeline.iter().map(|event| {
        let (who, what) = who_and_what(&event.what);
        (event.at, who, again(event, what.to_owned()))
    });
    let of_mails = mails.iter().flat_map(|mail| {
        mail.timeline.iter().map(|event| {
            let (who, what) = who_and_what(&event.what);
            let what = format!("mail {} {what}", mail.number);
            (event.at, who, again(event, what))
        })
    });
    let mut events: Vec<_> = of_swap.chain(of_mails).collect();
    events.sort_by_key(|(at, ..)| *at);
    let mut timeline = Table::default();
    timeline.row(&["WHEN", "WHO", "WHAT"]);
    for (at, who, what) in events {
        timeline.row(&[&time(at), who, &what]);
    }
    timeline
}

/// How often it happened, and when last, if that was not once.
fn again(event: &TimelineEntry, what: String) -> String {
    match event.count {
        1 => what,
        count => format!("{what} ({count} times, last {})", time(event.last)),
    }
}

/// A line of the timeline names a peer before a colon, or the caller before what they asked; the rest is our doing.
fn who_and_what(text: &str) -> (&str, &str) {
    const ASKED: [&str; 3] = ["asked", "cancels", "asks for another mail"];
    if let Some((who @ ("smdp" | "network" | "SES"), what)) = text.split_once(": ") {
        return (who, what);
    }
    let by = |asked: &'static str| Some((text.strip_suffix(asked)?.strip_suffix(' ')?, asked));
    ASKED.into_iter().find_map(by).unwrap_or(("simswap", text))
}

/// A line, by its id or its phone number.
///
/// # Errors
/// When there is none, or the table does not answer.
pub async fn line(store: &Store, name: &str) -> Result<String, StartError> {
    let mut found = None;
    if let Ok(id) = SubscriptionId::parse(name) {
        found = store.line(&id).await.map_err(failed)?;
    }
    if found.is_none()
        && let Ok(phone) = Msisdn::parse(name)
        && let Some(entry) = store.phone(&phone).await.map_err(failed)?
    {
        found = store.line(&entry.subscription).await.map_err(failed)?;
    }
    let found = found.ok_or_else(|| StartError(format!("there is no line {}", escaped(name))))?;
    let line = &found.line;
    let mut fields = Table::default();
    fields.row(&["line", line.id.as_str()]);
    fields.row(&["phone number", line.phone.as_e164()]);
    fields.row(&["customer", &line.customer]);
    fields.field("reseller", line.reseller.as_ref());
    fields.row(&["network", line.network.as_str()]);
    fields.row(&["current SIM", line.current_sim.as_str()]);
    for kept in [&line.kept_card, &line.kept_esim] {
        fields.field("keeps SIM", kept.as_ref().map(|kept| kept.iccid.as_str()));
    }
    fields.field("e-mail", line.email.as_ref().map(EmailAddress::as_str));
    fields.row(&["language", line.language.as_str()]);
    fields.row(&["state", line.state.as_str()]);
    fields.row(&["porting", &line.porting.to_string()]);
    fields.row(&["locked", &line.locked.to_string()]);
    fields.field("disputed by swap", found.disputed_by.as_ref().map(ActivationId::as_str));
    fields.row(&[
        "open swap",
        line.open_swap.as_ref().map_or("none", ActivationId::as_str),
    ]);
    let mut text = String::new();
    fields.write_to(&mut text);
    Ok(text)
}

/// A SIM.
///
/// # Errors
/// When there is none of this number, or the table does not answer.
pub async fn sim(store: &Store, iccid: &str) -> Result<String, StartError> {
    let unknown = || StartError(format!("there is no SIM {}", escaped(iccid)));
    let parsed = Iccid::parse(iccid).map_err(|_| unknown())?;
    let found = store.sim_and_sealed(&parsed).await.map_err(failed)?;
    let (sim, sealed) = found.ok_or_else(unknown)?;
    let mut fields = Table::default();
    fields.row(&["SIM", sim.iccid.as_str()]);
    fields.row(&["state", sim.state.as_str()]);
    let holds = match sim.state {
        SimState::Free => "kept for",
        _ => "held by",
    };
    fields.field(holds, sim.holder.as_ref().map(holder));
    fields.field("free from", free_from(&sim));
    fields.row(&["form factor", sim.form_factor.as_str()]);
    fields.row(&["network", sim.network.as_str()]);
    fields.field("reseller", sim.reseller.as_ref());
    fields.row(&["auto-assign", &sim.auto_assign.to_string()]);
    fields.field("IMSI", sim.imsi.as_ref().map(|imsi| imsi.as_str()));
    fields.field("tag", sim.tag.as_ref());
    for (name, field) in [
        ("PIN 1", "pin1"),
        ("PIN 2", "pin2"),
        ("PUK 1", "puk1"),
        ("PUK 2", "puk2"),
        ("activation code", "supplierCode"),
    ] {
        fields.field(name, sealed.contains(&field).then_some(MASK));
    }
    let mut text = String::new();
    fields.write_to(&mut text);
    Ok(text)
}

fn holder(holder: &Holder) -> String {
    match holder {
        Holder::Swap(id) => format!("swap {id}"),
        Holder::Line(id) => format!("line {id}"),
    }
}

/// Only of a SIM that rested: one that never did is free from the beginning.
fn free_from(sim: &Sim) -> Option<String> {
    (sim.free_from > Timestamp::UNIX_EPOCH).then(|| time(sim.free_from))
}

fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

fn failed(error: StoreError) -> StartError {
    StartError(with_causes(&error))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timeline_says_who() {
        for (text, who, what) in [
            ("OWNER anna asked", "OWNER anna", "asked"),
            ("ADMIN x asks for another mail", "ADMIN x", "asks for another mail"),
            ("SES: bounced", "SES", "bounced"),
            ("smdp: downloaded", "smdp", "downloaded"),
            ("network: completed", "network", "completed"),
            ("ending: expired", "simswap", "ending: expired"),
            ("ordered as 7", "simswap", "ordered as 7"),
        ] {
            assert_eq!(who_and_what(text), (who, what));
        }
    }

    #[test]
    fn columns_are_aligned() {
        let mut table = Table::default();
        table.row(&["a", "b"]);
        table.row(&["long", "ü", "c"]);
        table.field("gone", None::<&str>);
        table.row(&["x\x1b[2J", "y\ny", "z"]);
        let mut text = String::new();
        table.write_to(&mut text);
        assert_eq!(
            text,
            "a           b\nlong        ü        c\nx\\u{1b}[2J  y\\u{a}y  z\n"
        );
    }
}
