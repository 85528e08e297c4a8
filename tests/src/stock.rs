//! Lines and SIMs for tests: a builder for each, and loaders for any number. Their ids and network names are not those
//! of the sample data, so the sample data's SIMs are never assigned to these lines.

use std::collections::HashMap;

use domain::{
    EmailAddress, FormFactor, Iccid, Language, Line, LineState, Msisdn, NetworkName, Secret, Sim, SubscriptionId,
};
use futures_util::{StreamExt, stream};
use local::dynoxide::actions::get_item::GetItemRequest;
use local::dynoxide::{AttributeValue, ImportOptions};
use store::SIMS_AT_ONCE;

use crate::TestStack;

/// The customer of the loaded lines.
pub const CUSTOMER: &str = "C-SCALE";
/// The reseller of the loaded lines and SIMs.
pub const RESELLER: &str = "R-SCALE";
const NETWORK: &str = "SCALE";
/// How many rows are written at the same time.
const CONCURRENCY: usize = 16;
/// How many SIMs the store itself adds, with encrypted secrets.
const ADDED_BY_STORE: usize = 1000;

/// A free SIM of any reseller without secrets, which can be assigned by its number only.
///
/// # Panics
/// When the network or the ICCID is not valid.
pub fn free_sim(network: &str, iccid: &str, form_factor: FormFactor) -> Sim {
    let iccid = Iccid::parse(iccid).expect("an ICCID");
    Sim::free(
        iccid,
        NetworkName::parse(network).expect("a network's name"),
        form_factor,
    )
}

/// An active line on `sim`, with the SIM's network and reseller.
///
/// # Panics
/// When the id or the phone number is not valid.
pub fn active_line(id: &str, phone: &str, sim: &Sim) -> Line {
    Line {
        id: SubscriptionId::parse(id).expect("a line's id"),
        phone: Msisdn::parse(phone).expect("a phone number"),
        customer: CUSTOMER.to_owned(),
        reseller: sim.reseller.clone(),
        network: sim.network.clone(),
        current_sim: sim.iccid.clone(),
        email: EmailAddress::parse("customer@example.com").ok(),
        language: Language::En,
        state: LineState::Active,
        porting: false,
        locked: false,
        open_swap: None,
        kept_card: None,
        kept_esim: None,
    }
}

/// The id of line `number`.
pub fn line_id(number: usize) -> String {
    format!("5ca1e{number:019x}")
}

/// The phone number of line `number`.
pub fn phone(number: usize) -> String {
    format!("+3161{number:07}")
}

/// The ICCID of SIM `number` of this form factor.
///
/// # Panics
/// When `number` has more than 14 digits.
pub fn iccid(form: FormFactor, number: usize) -> Iccid {
    let series = match form {
        FormFactor::Esim => 2,
        _ => 1,
    };
    Iccid::parse(&format!("8931{series}{number:014}")).expect("an ICCID")
}

/// A free SIM of [`RESELLER`] with secrets, which can be assigned automatically.
fn stock_sim(network: &str, form: FormFactor, iccid: &Iccid) -> Sim {
    let secret = |text: &str| Some(Secret::new(text.to_owned()));
    Sim {
        reseller: Some(RESELLER.to_owned()),
        auto_assign: true,
        pin1: secret("1234"),
        pin2: secret("5678"),
        puk1: secret("12345678"),
        puk2: secret("87654321"),
        ..free_sim(network, iccid.as_str(), form)
    }
}

/// Adds the lines from 0 to `count`, without the last.
///
/// # Panics
/// When the table rejects a line.
pub async fn load_lines(service: &TestStack, count: usize) {
    let added = stream::iter(0..count).map(|number| load_line(service, NETWORK, number));
    added.buffer_unordered(CONCURRENCY).collect::<()>().await;
}

async fn load_line(service: &TestStack, network: &str, number: usize) {
    let iccid = Iccid::parse(&format!("89319{number:014}")).expect("an ICCID");
    let old = Sim {
        auto_assign: false,
        ..stock_sim(network, FormFactor::Nano, &iccid)
    };
    let line = Line {
        email: EmailAddress::parse("scale@example.com").ok(),
        ..active_line(&line_id(number), &phone(number), &old)
    };
    let added = service.stack.store.add_line(&line, old).await;
    added.expect("the line is new");
}

/// How many cards a line of [`load_separate`] has.
pub const SEPARATE_CARDS: usize = 3;

/// Adds the lines from 0 to `count`, without the last. Each is on a network of its own, whose stock is one eSIM and
/// [`SEPARATE_CARDS`] cards. So a test knows which SIM a line gets.
///
/// # Panics
/// When the table rejects a line or a SIM.
pub async fn load_separate(service: &TestStack, count: usize) {
    let added = stream::iter(0..count).map(|number| async move {
        let network = format!("APART-{number}");
        load_line(service, &network, number).await;
        let cards = (0..SEPARATE_CARDS).map(|card| separate_card(number, card));
        let sims = cards.map(|iccid| (FormFactor::Nano, iccid));
        for (form, iccid) in sims.chain([(FormFactor::Esim, iccid(FormFactor::Esim, number))]) {
            let sim = stock_sim(&network, form, &iccid);
            let added = service.stack.store.add_sim(&sim).await;
            added.expect("the SIM is new");
        }
    });
    added.buffer_unordered(CONCURRENCY).collect::<()>().await;
}

/// Card `card` of the line `number` of [`load_separate`].
///
/// # Panics
/// When the card's number has more than 14 digits.
pub fn separate_card(number: usize, card: usize) -> Iccid {
    iccid(FormFactor::Nano, number * SEPARATE_CARDS + card)
}

/// Adds the free SIMs from 0 to `count`, without the last.
///
/// # Panics
/// When the table rejects a SIM.
pub async fn load_sims(service: &TestStack, form: FormFactor, count: usize) {
    let sims: Vec<_> = (0..count)
        .map(|number| stock_sim(NETWORK, form, &iccid(form, number)))
        .collect();
    for sims in sims.chunks(SIMS_AT_ONCE) {
        let sims: Vec<_> = sims.iter().collect();
        let added = service.stack.store.add_sims(&sims).await;
        added.expect("the SIMs are new");
    }
}

/// Adds the free SIMs from 0 to `count`, without the last, fast enough for a million. Most are copies of the first SIM,
/// so their secrets cannot be decrypted.
///
/// # Panics
/// When the table rejects a SIM.
pub async fn load_stock(service: &TestStack, form: FormFactor, count: usize) {
    load_sims(service, form, count.min(ADDED_BY_STORE)).await;
    let text = |text: &str| AttributeValue::S(text.to_owned());
    let (database, table) = (&service.stack.database, &service.stack.endpoints.table);
    let first = GetItemRequest {
        table_name: table.clone(),
        key: HashMap::from([
            ("pk".to_owned(), text(&format!("S#{}", iccid(form, 0)))),
            ("sk".to_owned(), text("sim")),
        ]),
        ..GetItemRequest::default()
    };
    let first = database.get_item(first).expect("the table can be read").item;
    let first = first.expect("the first SIM was added");
    for start in (ADDED_BY_STORE..count).step_by(50_000) {
        let copies = (start..count.min(start + 50_000)).map(|number| {
            let mut row = first.clone();
            row.insert("pk".to_owned(), text(&format!("S#{}", iccid(form, number))));
            // Free since a moment later than the first SIMs, so that no page of candidates begins with a copy.
            row.insert("freeFrom".to_owned(), text("00000000000001"));
            row
        });
        let copies = copies.collect();
        database
            .import_items(table, copies, ImportOptions::default())
            .expect("the table accepts copies");
    }
}
