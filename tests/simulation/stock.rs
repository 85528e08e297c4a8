//! The initial rows of every run, as the first release wrote them: three lines, their SIMs and a few free ones, encrypted
//! once per process. What is
//! requested is in `workload`.

use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use domain::{
    EmailAddress, FormFactor, Iccid, Imsi, Language, Line, LineState, Msisdn, NetworkName, Secret, Sim, SubscriptionId,
};
use edge::ClockAndRng;
use jiff::SignedDuration;
use local::dynoxide::actions::scan::ScanRequest;
use local::dynoxide::{ImportOptions, Item};
use serde_json::{Value, json};
use store::{NewLine, SealingKey, Store};
use tokio::runtime::Builder;

use crate::fakes::Fakes;
use crate::sandbox::{TABLE, aws_config, store};
use crate::transport::{Call, Peer, PendingCalls, Reply, Transport};

/// A line of the initial rows.
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

/// The secret fields of every SIM: PINs, PUKs and the supplier's code. Digits alone would sometimes occur in a time,
/// and letters alone in base64.
pub(crate) const SECRETS: [&str; 5] = [
    "PIN-1-6048",
    "PIN-2-7159",
    "PUK-1-8260",
    "PUK-2-9371",
    "LPA:1$SUPPLIER.EXAMPLE$KP5NQ8RTVX",
];

/// The initial table.
struct Stock {
    /// The call that creates the table. The table has no stream: the simulation derives change records from the calls
    /// that it sees.
    table: Call,
    rows: Vec<Item>,
    /// The public key of the table's data key.
    sealing_key: SealingKey,
}

/// Built once per process: encrypting secrets is the expensive part of a run.
static STOCK: LazyLock<Stock> = LazyLock::new(|| {
    let filled = std::thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(build())
    });
    filled.join().expect("the initial rows are built")
});

async fn build() -> Stock {
    let fakes = Arc::new(Fakes::new(&ClockAndRng::real(), Duration::ZERO, SignedDuration::ZERO));
    let store = observer(&fakes);
    let table = create_table(&fakes).await;
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
    let mut rows = scan(&fakes);
    // Rows as the first release wrote them have no form.
    for row in &mut rows {
        row.remove("v");
    }
    let sealing_key = store.keyring().newest_sealing_key().await.expect("a data key");
    Stock {
        table,
        rows,
        sealing_key,
    }
}

/// All rows of the table.
pub(crate) fn scan(fakes: &Fakes) -> Vec<Item> {
    let request = ScanRequest {
        table_name: TABLE.to_owned(),
        ..ScanRequest::default()
    };
    let page = fakes.database.scan(request).expect("the table is read");
    assert!(page.last_evaluated_key.is_none(), "the table fits on one page");
    page.items.unwrap_or_default()
}

/// Creates the table and fills it with the initial rows.
pub(crate) fn load(fakes: &Fakes) {
    let created = fakes.perform(&STOCK.table);
    assert_eq!(created.status, 200, "the table is created");
    let imported = fakes
        .database
        .import_items(TABLE, STOCK.rows.clone(), ImportOptions::default());
    imported.expect("the rows are written");
}

/// The setting `SEALING_KEY` of the functions.
pub(crate) fn sealing_key() -> String {
    STOCK.sealing_key.to_string()
}

/// Whether a row is still one of the initial rows.
pub(crate) fn is_unchanged(row: &Item) -> bool {
    STOCK.rows.contains(row)
}

/// A store that reads without the scheduler.
pub(crate) fn observer(fakes: &Arc<Fakes>) -> Store {
    let fakes = fakes.clone();
    store(&aws_config(&direct_transport(move |call| fakes.perform(call))))
}

/// A transport that replies at once.
pub(crate) fn direct_transport(handler: impl Fn(&Call) -> Reply + Send + Sync + 'static) -> Transport {
    Transport {
        pending: Arc::new(PendingCalls::default()),
        direct: Arc::new(handler),
    }
}

/// Creates the table. Returns the call that created it, without the stream.
async fn create_table(fakes: &Arc<Fakes>) -> Call {
    let (recorded, engine) = (Arc::new(Mutex::new(None)), fakes.clone());
    let record = recorded.clone();
    let transport = direct_transport(move |call| {
        if call.operation == "CreateTable" {
            *record.lock().expect("no thread panics while it holds the lock") = Some(call.clone());
        }
        engine.perform(call)
    });
    let config = aws_sdk_dynamodb::config::Builder::from(&aws_config(&transport))
        .endpoint_url(Peer::DynamoDb.url())
        .allow_no_auth()
        .build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let created = store::create_table(&client, TABLE).await;
    created.expect("the table is created");
    let mut call = recorded
        .lock()
        .expect("no thread panics while it holds the lock")
        .take()
        .expect("a call that creates the table");
    let mut request: Value = serde_json::from_slice(&call.body).expect("it is JSON");
    request["StreamSpecification"] = json!({"StreamEnabled": false});
    call.body = request.to_string().into_bytes();
    call
}

impl StockLine {
    pub(crate) fn reseller(&self) -> &'static str {
        self.reseller
    }

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
    let iccid = Iccid::parse(iccid).expect("an ICCID");
    let network = NetworkName::parse(network).expect("a network");
    Sim {
        imsi: Imsi::parse("204080000000201").ok(),
        reseller: Some(reseller.to_owned()),
        auto_assign: true,
        pin1,
        pin2,
        puk1,
        puk2,
        supplier_code,
        ..Sim::free(iccid, network, form_factor)
    }
}
