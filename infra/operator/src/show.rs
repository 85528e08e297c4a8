//! Formats one swap, line or SIM as aligned text. Secrets are masked, and times are in UTC.

use std::fmt::Write;

use domain::{
    Activation, ActivationId, Delivery, EmailAddress, Holder, Iccid, Msisdn, Sim, SimState, SubscriptionId, SwapKind,
    TimelineEntry, escaped,
};
use jiff::Timestamp;
use store::{Store, StoreError};

use crate::CommandError;

const MASK: &str = "##########";

/// A table with aligned columns. Cells are escaped, because callers and peers wrote much of their content, and control
/// characters would act on the terminal.
#[derive(Default)]
struct Table(Vec<Vec<String>>);

impl Table {
    fn row(&mut self, cells: &[&str]) {
        let plain = cells.iter().map(|cell| escaped(cell).into_owned());
        self.0.push(plain.collect());
    }

    /// Adds a field and its value, unless the value is absent.
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

/// Formats a swap, with its mails and its timeline.
///
/// # Errors
/// When no swap has this id, or the table cannot be read.
pub async fn swap(store: &Store, id: &str) -> Result<String, CommandError> {
    let unknown = || CommandError(format!("there is no swap {}", escaped(id)));
    let parsed = ActivationId::parse(id).map_err(|_| unknown())?;
    let stored = store.swap_with_deliveries(&parsed).await.map_err(table_error)?;
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
    let failure = a.failure.map(|f| format!("{}: {}", f.as_str(), f.message()));
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
    fields.field("waits until", a.wake_at.map(time));
    fields.row(&["attempts", &a.tries.to_string()]);
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

/// The timelines of the swap and of its mails, merged by time.
fn timeline(activation: &Activation, mails: &[Delivery]) -> Table {
    let of_swap = activation.timeline.iter().map(|event| {
        let (who, what) = who_and_what(&event.what);
        (event.at, who, with_count(event, what.to_owned()))
    });
    let of_mails = mails.iter().flat_map(|mail| {
        mail.timeline.iter().map(|event| {
            let (who, what) = who_and_what(&event.what);
            let what = format!("mail {} {what}", mail.number);
            (event.at, who, with_count(event, what))
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

/// Appends the count and the time of the last occurrence, if there was more than one.
fn with_count(event: &TimelineEntry, what: String) -> String {
    match event.count {
        1 => what,
        count => format!("{what} ({count} times, last {})", time(event.last)),
    }
}

/// Splits a timeline entry into who acted and what happened. An entry begins with a peer and a colon, or consists of a
/// caller and the request; all other entries are our own actions.
fn who_and_what(text: &str) -> (&str, &str) {
    const REQUESTS: [&str; 3] = ["asked", "cancels", "asks for another mail"];
    if let Some((who @ ("smdp" | "network" | "SES"), what)) = text.split_once(": ") {
        return (who, what);
    }
    let split = |request: &'static str| Some((text.strip_suffix(request)?.strip_suffix(' ')?, request));
    REQUESTS.into_iter().find_map(split).unwrap_or(("simswap", text))
}

/// Formats a line, found by its id or its phone number.
///
/// # Errors
/// When there is no such line, or the table cannot be read.
pub async fn line(store: &Store, name: &str) -> Result<String, CommandError> {
    let mut found = None;
    if let Ok(id) = SubscriptionId::parse(name) {
        found = store.line(&id).await.map_err(table_error)?;
    }
    if found.is_none()
        && let Ok(phone) = Msisdn::parse(name)
        && let Some(entry) = store.phone(&phone).await.map_err(table_error)?
    {
        found = store.line(&entry.subscription).await.map_err(table_error)?;
    }
    let found = found.ok_or_else(|| CommandError(format!("there is no line {}", escaped(name))))?;
    let line = &found.line;
    let mut fields = Table::default();
    fields.row(&["line", line.id.as_str()]);
    fields.row(&["phone number", line.phone.as_e164()]);
    fields.row(&["customer", &line.customer]);
    fields.field("reseller", line.reseller.as_ref());
    fields.row(&["network", line.network.as_str()]);
    fields.row(&["current SIM", line.current_sim.as_str()]);
    for kept in [&line.kept_card, &line.kept_esim] {
        fields.field("kept SIM", kept.as_ref().map(|kept| kept.iccid.as_str()));
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

/// Formats a SIM.
///
/// # Errors
/// When no SIM has this ICCID, or the table cannot be read.
pub async fn sim(store: &Store, iccid: &str) -> Result<String, CommandError> {
    let unknown = || CommandError::unknown_sim(iccid);
    let parsed = Iccid::parse(iccid).map_err(|_| unknown())?;
    let found = store.sim_and_sealed(&parsed).await.map_err(table_error)?;
    let (sim, sealed) = found.ok_or_else(unknown)?;
    let mut fields = Table::default();
    fields.row(&["SIM", sim.iccid.as_str()]);
    fields.row(&["state", sim.state.as_str()]);
    let relation = match sim.state {
        SimState::Free => "kept for",
        _ => "held by",
    };
    fields.field(relation, sim.holder.as_ref().map(holder));
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

/// The time from which the SIM may be used again; `None` if it has never cooled down.
fn free_from(sim: &Sim) -> Option<String> {
    (sim.free_from > Timestamp::UNIX_EPOCH).then(|| time(sim.free_from))
}

fn time(at: Timestamp) -> String {
    format!("{at:.3}")
}

fn table_error(error: StoreError) -> CommandError {
    CommandError::with_causes(&error)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_is_split_into_who_and_what() {
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
