//! What every world begins with: three lines, their SIMs and a few free ones, sealed once a process. Which swaps are asked
//! is not here.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use domain::{
    EmailAddress, FormFactor, Iccid, Imsi, Language, Line, LineState, Msisdn, NetworkName, Secret, Sim, SimState,
    SubscriptionId,
};
use edge::ClockAndRng;
use jiff::Timestamp;
use local::dynoxide::actions::scan::ScanRequest;
use local::dynoxide::{ImportOptions, Item};
use serde_json::{Value, json};
use store::{NewLine, Store};
use tokio::runtime::Builder;

use crate::fakes::Fakes;
use crate::sandbox::{TABLE, aws, store};
use crate::transport::{Call, Desk, Peer, Reply, Transport};

/// A line of service: id, number, customer, reseller, network, SIM, contact address.
pub(crate) struct StockLine {
    pub(crate) id: &'static str,
    pub(crate) phone: &'static str,
    pub(crate) customer: &'static str,
    reseller: &'static str,
    network: &'static str,
    pub(crate) sim: &'static str,
    pub(crate) email: &'static str,
}

pub(crate) const LINES: [StockLine; 3] = [
    StockLine {
        id: "65a1b2c3d4e5f60718293a01",
        phone: "+31612345601",
        customer: "C-100",
        reseller: "R-10",
        network: "KPN",
        sim: "8931086000000000013",
        email: "anna@contact.example",
    },
    StockLine {
        id: "65a1b2c3d4e5f60718293a02",
        phone: "+31612345602",
        customer: "C-100",
        reseller: "R-10",
        network: "KPN",
        sim: "8931086000000000021",
        email: "bram@contact.example",
    },
    StockLine {
        id: "1234567890abcdef12345678",
        phone: "+4520123401",
        customer: "C-300",
        reseller: "R-20",
        network: "TELENOR",
        sim: "8945020000000000012",
        email: "dorte@contact.example",
    },
];

/// The free SIMs: number, network, reseller, whether it is an eSIM.
pub(crate) const FREE: [(&str, &str, &str, bool); 6] = [
    ("8931086000000002019", "KPN", "R-10", true),
    ("8931086000000002027", "KPN", "R-10", true),
    ("8945020000000002018", "TELENOR", "R-20", true),
    ("8931086000000001011", "KPN", "R-10", false),
    ("8931086000000001029", "KPN", "R-10", false),
    ("1234567890123456789", "TELENOR", "R-20", false),
];

/// What stands in the secret fields of every SIM: PINs, PUKs and the supplier's code. Digits alone would be found in a time
/// now and then, and letters alone in base64.
pub(crate) const SECRETS: [&str; 5] = [
    "PIN-1-6048",
    "PIN-2-7159",
    "PUK-1-8260",
    "PUK-2-9371",
    "LPA:1$SUPPLIER.EXAMPLE$KP5NQ8RTVX",
];

/// What a world's table begins as.
struct Stock {
    /// The call that makes the table. It has no stream: who writes what is seen on the wire.
    table: Call,
    rows: Vec<Item>,
}

/// Made once a process: to seal secrets is the dear part of a world.
static STOCK: LazyLock<Stock> = LazyLock::new(|| {
    let filled = std::thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(seal())
    });
    filled.join().expect("the stock is sealed")
});

async fn seal() -> Stock {
    let ground = Arc::new(Fakes::new(&ClockAndRng::real(), Duration::ZERO));
    let store = observer(&ground);
    let table = create_table(&ground).await;
    for (iccid, network, reseller, esim) in FREE {
        let form = if esim { FormFactor::Esim } else { FormFactor::Nano };
        let sim = sim(iccid, network, reseller, form);
        store.add_sim(&sim).await.expect("a SIM is added");
    }
    for line in &LINES {
        let sim = sim(line.sim, line.network, line.reseller, FormFactor::Nano);
        let added = store.add_line(&line.line(), sim).await;
        assert_eq!(added.expect("a line is added"), NewLine::Added);
    }
    let rows = rows(&ground);
    Stock { table, rows }
}

/// All rows of the table.
pub(crate) fn rows(ground: &Fakes) -> Vec<Item> {
    let request = ScanRequest {
        table_name: TABLE.to_owned(),
        ..ScanRequest::default()
    };
    let page = ground.database.scan(request).expect("the table is read");
    assert!(page.last_evaluated_key.is_none(), "a world is one page");
    page.items.unwrap_or_default()
}

/// Makes the table and puts the stock into it.
pub(crate) fn lay(ground: &Fakes) {
    let made = ground.perform(&STOCK.table);
    assert_eq!(made.status, 200, "the table is made");
    let put = ground
        .database
        .import_items(TABLE, STOCK.rows.clone(), ImportOptions::default());
    put.expect("the rows are put");
}

/// Whether a row is as it was laid.
pub(crate) fn is_as_laid(row: &Item) -> bool {
    STOCK.rows.contains(row)
}

/// A store that reads without the scheduler.
pub(crate) fn observer(ground: &Arc<Fakes>) -> Store {
    let ground = ground.clone();
    store(&aws(&direct(move |call| ground.perform(call))))
}

fn direct(answer: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Transport {
    Transport {
        desk: Arc::new(Desk::default()),
        direct: Arc::new(answer),
    }
}

/// Makes the table, and tells by which call, without the stream.
async fn create_table(ground: &Arc<Fakes>) -> Call {
    let (kept, engine) = (Arc::new(Mutex::new(None)), ground.clone());
    let keep = kept.clone();
    let wire = direct(move |call| {
        if call.operation == "CreateTable" {
            *keep.lock().expect("nobody panics with it") = Some(call.clone());
        }
        engine.perform(call)
    });
    let config = aws_sdk_dynamodb::config::Builder::from(&aws(&wire))
        .endpoint_url(Peer::Table.url())
        .allow_no_auth()
        .build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let made = store::create_table(&client, TABLE).await;
    made.expect("the table is made");
    let mut call = kept
        .lock()
        .expect("nobody panics with it")
        .take()
        .expect("a call made it");
    let mut request: Value = serde_json::from_slice(&call.body).expect("it is JSON");
    request["StreamSpecification"] = json!({"StreamEnabled": false});
    call.body = request.to_string().into_bytes();
    call
}

impl StockLine {
    fn line(&self) -> Line {
        Line {
            id: SubscriptionId::parse(self.id).expect("an id"),
            phone: Msisdn::parse(self.phone).expect("a number"),
            customer: self.customer.to_owned(),
            reseller: Some(self.reseller.to_owned()),
            network: NetworkName::parse(self.network).expect("a network"),
            current_sim: Iccid::parse(self.sim).expect("an ICCID"),
            email: Some(EmailAddress::parse(self.email).expect("an address")),
            language: Language::En,
            state: LineState::Active,
            porting: false,
            locked: false,
            open_swap: None,
            kept_card: None,
            kept_esim: None,
        }
    }
}

fn sim(iccid: &str, network: &str, reseller: &str, form_factor: FormFactor) -> Sim {
    let [pin1, pin2, puk1, puk2, supplier_code] = SECRETS.map(|text| Some(Secret::new(text)));
    Sim {
        iccid: Iccid::parse(iccid).expect("an ICCID"),
        imsi: Imsi::parse("204080000000201").ok(),
        network: NetworkName::parse(network).expect("a network"),
        reseller: Some(reseller.to_owned()),
        form_factor,
        auto_assign: true,
        state: SimState::Free,
        free_from: Timestamp::UNIX_EPOCH,
        holder: None,
        pin1,
        pin2,
        puk1,
        puk2,
        supplier_code,
        tag: None,
        codes_shown: false,
    }
}
