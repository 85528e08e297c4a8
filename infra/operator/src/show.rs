//! Formats one swap, line or SIM as aligned text. Secrets are masked, and times are in the zone that is given.

use domain::{
    Activation, ActivationId, Delivery, EmailAddress, Holder, Iccid, Msisdn, Sim, SimState, SubscriptionId, SwapKind,
    escaped, merge_timelines,
};
use edge::format_time;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use store::{Action, Listing, Span, Store, StoreError, StoredLine};

use crate::CommandError;
use crate::columns::Table;

const MASK: &str = "##########";

/// The maximum number of actions of operators that are shown.
const ACTIONS: i32 = 20;

/// Formats a swap, with its mails and its timeline.
///
/// # Errors
/// When no swap has this id, or the table cannot be read.
pub async fn swap(store: &Store, zone: &TimeZone, id: &str) -> Result<String, CommandError> {
    let unknown = || CommandError(format!("there is no swap {}", escaped(id)));
    let parsed = ActivationId::parse(id).map_err(|_| unknown())?;
    let stored = store.swap_with_deliveries(&parsed).await.map_err(table_error)?;
    let stored = stored.ok_or_else(unknown)?;
    let a = &stored.activation;
    let code = match (&stored.secrets.code, a.requested.has_code) {
        (Some(_), _) => Some(MASK),
        (None, true) => Some("erased"),
        (None, false) => None,
    };
    let time = |at| format_time(at, zone);
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
    fields.row(&["kind", kind_name(a.kind)]);
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
        mails(&stored.deliveries, zone).write_to(&mut text);
    }
    text.push('\n');
    timeline(a, &stored.deliveries, zone).write_to(&mut text);
    Ok(text)
}

fn mails(deliveries: &[Delivery], zone: &TimeZone) -> Table {
    let mut mails = Table::default();
    mails.row(&["MAIL", "TO", "STATE", "ATTEMPTS", "MODIFIED", "MESSAGE ID"]);
    for mail in deliveries {
        mails.row(&[
            &mail.number.to_string(),
            mail.to.as_str(),
            mail.state.as_str(),
            &mail.attempt.as_ref().map_or(0, |attempt| attempt.number).to_string(),
            &format_time(mail.modified_at, zone),
            mail.message_id.as_deref().unwrap_or(""),
        ]);
    }
    mails
}

/// The timelines of the swap and of its mails, merged by time.
fn timeline(activation: &Activation, mails: &[Delivery], zone: &TimeZone) -> Table {
    let mut timeline = Table::default();
    timeline.row(&["WHEN", "WHO", "WHAT", "DETAIL"]);
    for (entry, parts) in merge_timelines(activation, mails) {
        // An operator may read a text that has no word of its own.
        let text = if parts.what == "other" { &entry.what } else { "" };
        let repeats = match entry.count {
            1 => String::new(),
            count => format!("({count} times, last {})", format_time(entry.last, zone)),
        };
        let details = [&*parts.detail, text, &repeats];
        let details: Vec<_> = details.into_iter().filter(|detail| !detail.is_empty()).collect();
        timeline.row(&[&format_time(entry.at, zone), parts.by, parts.what, &details.join(" ")]);
    }
    timeline
}

/// Formats a line, found by its id or its phone number.
///
/// # Errors
/// When there is no such line, or the table cannot be read.
pub async fn line(store: &Store, zone: &TimeZone, name: &str) -> Result<String, CommandError> {
    let Some(found) = find_line(store, name).await? else {
        return removed_line(store, zone, name).await;
    };
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
    last_swaps(store, zone, &line.id, &mut text).await?;
    let done = store.line_actions(&line.id, ACTIONS).await.map_err(table_error)?;
    actions(&done, zone, &mut text);
    Ok(text)
}

/// Finds a line by its id or its phone number.
pub(crate) async fn find_line(store: &Store, name: &str) -> Result<Option<StoredLine>, CommandError> {
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
    Ok(found)
}

/// Formats what operators did to a line before one of them removed it.
async fn removed_line(store: &Store, zone: &TimeZone, name: &str) -> Result<String, CommandError> {
    let unknown = || CommandError::unknown_line(name);
    let id = SubscriptionId::parse(name).map_err(|_| unknown())?;
    let done = store.line_actions(&id, ACTIONS).await.map_err(table_error)?;
    if done.is_empty() {
        return Err(unknown());
    }
    let mut text = format!("line {id} is removed\n");
    last_swaps(store, zone, &id, &mut text).await?;
    actions(&done, zone, &mut text);
    Ok(text)
}

/// Adds the last swaps of a line, newest first.
async fn last_swaps(
    store: &Store,
    zone: &TimeZone,
    id: &SubscriptionId,
    text: &mut String,
) -> Result<(), CommandError> {
    const AT_MOST: usize = 10;
    let listed = store.list(Listing::Line(id), &Span::default(), AT_MOST).await;
    let ids: Vec<_> = listed.map_err(table_error)?.into_iter().map(|swap| swap.id).collect();
    let mut swaps = store.swaps(&ids).await.map_err(table_error)?;
    if swaps.is_empty() {
        return Ok(());
    }
    let mut table = Table::default();
    table.row(&["SWAP", "CREATED", "STATUS", "KIND", "NEW SIM", "FAILURE"]);
    for swap in ids.iter().filter_map(|id| swaps.remove(id)) {
        let a = &swap.activation;
        table.row(&[
            a.id.as_str(),
            &format_time(a.created_at, zone),
            a.status().as_str(),
            kind_name(a.kind),
            a.new_sim.as_str(),
            a.failure.map_or("", |failure| failure.as_str()),
        ]);
    }
    text.push('\n');
    table.write_to(text);
    Ok(())
}

/// Adds what operators did, newest first.
fn actions(done: &[Action], zone: &TimeZone, text: &mut String) {
    if done.is_empty() {
        return;
    }
    let mut table = Table::default();
    table.row(&["WHEN", "OPERATOR", "ACTION"]);
    for action in done {
        table.row(&[&format_time(action.at, zone), &action.by, &action.what]);
    }
    text.push('\n');
    table.write_to(text);
}

/// Formats a SIM.
///
/// # Errors
/// When no SIM has this ICCID, or the table cannot be read.
pub async fn sim(store: &Store, zone: &TimeZone, iccid: &str) -> Result<String, CommandError> {
    let unknown = || CommandError::unknown_sim(iccid);
    let parsed = Iccid::parse(iccid).map_err(|_| unknown())?;
    let done = store.sim_actions(&parsed, ACTIONS).await.map_err(table_error)?;
    let mut text = String::new();
    let Some((sim, sealed)) = store.sim_and_sealed(&parsed).await.map_err(table_error)? else {
        if done.is_empty() {
            return Err(unknown());
        }
        text = format!("SIM {parsed} is removed\n");
        actions(&done, zone, &mut text);
        return Ok(text);
    };
    let mut fields = Table::default();
    fields.row(&["SIM", sim.iccid.as_str()]);
    fields.row(&["state", sim.state.as_str()]);
    let relation = match sim.state {
        SimState::Free => "kept for",
        _ => "held by",
    };
    fields.field(relation, sim.holder.as_ref().map(holder));
    fields.field("free from", free_from(&sim, zone));
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
    if sim.codes_shown {
        fields.row(&["codes shown", "to a caller whose swap failed"]);
    }
    fields.write_to(&mut text);
    actions(&done, zone, &mut text);
    Ok(text)
}

pub(crate) fn holder(holder: &Holder) -> String {
    match holder {
        Holder::Swap(id) => format!("swap {id}"),
        Holder::Line(id) => format!("line {id}"),
    }
}

pub(crate) fn kind_name(kind: SwapKind) -> &'static str {
    match kind {
        SwapKind::Esim => "eSIM",
        SwapKind::Physical => "card",
    }
}

/// The time from which the SIM may be used again; `None` if it has never cooled down.
pub(crate) fn free_from(sim: &Sim, zone: &TimeZone) -> Option<String> {
    (sim.free_from > Timestamp::UNIX_EPOCH).then(|| format_time(sim.free_from, zone))
}

pub(crate) fn table_error(error: StoreError) -> CommandError {
    CommandError::with_causes(&error)
}
