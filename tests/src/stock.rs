//! Lines and stock in any number, under names that the sample data does not have, so that its stock plays no part.

use std::collections::HashMap;

use domain::{
    EmailAddress, FormFactor, Iccid, Language, Line, LineState, Msisdn, NetworkName, Secret, Sim, SimState,
    SubscriptionId,
};
use futures_util::{StreamExt, stream};
use jiff::Timestamp;
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::{AttributeValue, ImportOptions};
use store::SIMS_AT_ONCE;

use crate::TestStack;

/// Whose lines they are.
pub const CUSTOMER: &str = "C-SCALE";
/// Whose customer that is.
pub const RESELLER: &str = "R-SCALE";
const NETWORK: &str = "SCALE";
/// Rows under way at once.
const AT_ONCE: usize = 16;
/// SIMs of a stock that the store itself loads, secrets and all.
const LOADED: usize = 1000;

/// The id of line `number`.
pub fn line_id(number: usize) -> String {
    format!("5ca1e{number:019x}")
}

/// Its phone number.
pub fn phone(number: usize) -> String {
    format!("+3161{number:07}")
}

/// The ICCID of SIM `number` of this kind.
///
/// # Panics
/// Past 14 digits.
pub fn iccid(form: FormFactor, number: usize) -> Iccid {
    let series = match form {
        FormFactor::Esim => 2,
        _ => 1,
    };
    Iccid::parse(&format!("8931{series}{number:014}")).expect("an ICCID")
}

/// A free SIM that may be assigned.
fn sim(form: FormFactor, number: usize) -> Sim {
    sim_on(NETWORK, form, number)
}

fn sim_on(network: &str, form: FormFactor, number: usize) -> Sim {
    let secret = |text: &str| Some(Secret::new(text.to_owned()));
    Sim {
        iccid: iccid(form, number),
        imsi: None,
        network: NetworkName::parse(network).expect("a name"),
        reseller: Some(RESELLER.to_owned()),
        form_factor: form,
        auto_assign: true,
        state: SimState::Free,
        free_from: Timestamp::UNIX_EPOCH,
        holder: None,
        pin1: secret("1234"),
        pin2: secret("5678"),
        puk1: secret("12345678"),
        puk2: secret("87654321"),
        supplier_code: None,
        tag: None,
        codes_shown: false,
    }
}

/// Adds lines 0 to `count`.
///
/// # Panics
/// When the table refuses one.
pub async fn load_lines(world: &TestStack, count: usize) {
    let added = stream::iter(0..count).map(|number| load_line(world, NETWORK, number));
    added.buffer_unordered(AT_ONCE).collect::<()>().await;
}

async fn load_line(world: &TestStack, network: &str, number: usize) {
    let old = Sim {
        iccid: Iccid::parse(&format!("89319{number:014}")).expect("an ICCID"),
        auto_assign: false,
        ..sim_on(network, FormFactor::Nano, number)
    };
    let line = Line {
        id: SubscriptionId::parse(&line_id(number)).expect("an id"),
        phone: Msisdn::parse(&phone(number)).expect("a number"),
        customer: CUSTOMER.to_owned(),
        reseller: Some(RESELLER.to_owned()),
        network: NetworkName::parse(network).expect("a name"),
        current_sim: old.iccid.clone(),
        email: Some(EmailAddress::parse("scale@example.com").expect("an address")),
        language: Language::En,
        state: LineState::Active,
        porting: false,
        locked: false,
        open_swap: None,
        kept_card: None,
        kept_esim: None,
    };
    let added = world.stack.store.add_line(&line, old).await;
    added.expect("the line is new");
}

/// Cards of a line that stands apart.
pub const CARDS_APART: usize = 3;

/// Adds lines 0 to `count`, each on a network of its own, whose stock is one eSIM and [`CARDS_APART`] cards: which SIM a
/// line gets is known before it asks.
///
/// # Panics
/// When the table refuses one.
pub async fn load_apart(world: &TestStack, count: usize) {
    let added = stream::iter(0..count).map(|number| async move {
        let network = format!("APART-{number}");
        load_line(world, &network, number).await;
        let cards = (0..CARDS_APART).map(|card| card_apart(number, card));
        let sims = cards.map(|iccid| (FormFactor::Nano, iccid));
        for (form, iccid) in sims.chain([(FormFactor::Esim, iccid(FormFactor::Esim, number))]) {
            let sim = Sim {
                iccid,
                ..sim_on(&network, form, number)
            };
            let added = world.stack.store.add_sim(&sim).await;
            added.expect("the SIM is new");
        }
    });
    added.buffer_unordered(AT_ONCE).collect::<()>().await;
}

/// Card `card` of the line `number` that stands apart.
///
/// # Panics
/// Past 14 digits.
pub fn card_apart(number: usize, card: usize) -> Iccid {
    iccid(FormFactor::Nano, number * CARDS_APART + card)
}

/// Adds free SIMs 0 to `count`.
///
/// # Panics
/// When the table refuses one.
pub async fn load_sims(world: &TestStack, form: FormFactor, count: usize) {
    let sims: Vec<_> = (0..count).map(|number| sim(form, number)).collect();
    for sims in sims.chunks(SIMS_AT_ONCE) {
        let sims: Vec<_> = sims.iter().collect();
        let added = world.stack.store.add_sims(&sims).await;
        added.expect("the SIMs are new");
    }
}

/// Adds free SIMs 0 to `count`, in any number: most are copies of the first, whose secrets cannot be opened.
///
/// # Panics
/// When the table refuses one.
pub async fn load_stock(world: &TestStack, form: FormFactor, count: usize) {
    load_sims(world, form, count.min(LOADED)).await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let (database, table) = (&world.stack.database, &world.stack.endpoints.table);
    let first = GetItemRequest {
        table_name: table.clone(),
        key: HashMap::from([
            ("pk".to_owned(), text(&format!("S#{}", iccid(form, 0)))),
            ("sk".to_owned(), text("sim")),
        ]),
        ..GetItemRequest::default()
    };
    let first = database.get_item(first).expect("the table answers").item;
    let first = first.expect("the first is loaded");
    for start in (LOADED..count).step_by(50_000) {
        let copies = (start..count.min(start + 50_000)).map(|number| {
            let mut row = first.clone();
            row.insert("pk".to_owned(), text(&format!("S#{}", iccid(form, number))));
            // Free since a moment later, so that no page of candidates begins with it.
            row.insert("freeFrom".to_owned(), text("00000000000001"));
            row
        });
        let copies = copies.collect();
        database
            .import_items(table, copies, ImportOptions::default())
            .expect("the table takes copies");
    }
}
