//! What every world begins with: three lines, their SIMs and a few free ones, sealed once a process. Which swaps are asked
//! is not here.

use std::sync::{Arc, LazyLock};
use std::time::Duration;

use domain::{
    EmailAddress, FormFactor, Iccid, Imsi, Language, Line, LineState, Msisdn, NetworkName, Secret,
    Sim, SimState, SubscriptionId,
};
use edge::Ambient;
use jiff::Timestamp;
use local::dynoxide::actions::scan::ScanRequest;
use local::dynoxide::{ImportOptions, Item};
use store::{NewLine, Store};
use tokio::runtime::Builder;

use crate::ground::Ground;
use crate::sandbox::{TABLE, aws, store};
use crate::wire::{Desk, Direct, Peer, Wire};

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

/// What stands in the secret fields of every SIM: PINs, PUKs and the supplier's code.
pub(crate) const SECRETS: [&str; 5] = [
    "60482917",
    "71593826",
    "82604735",
    "93715648",
    "LPA:1$SUPPLIER.EXAMPLE$KP5NQ8RTVX",
];

/// The rows of the stock. Its secrets are sealed once a process: that is the dear part of a world.
static ROWS: LazyLock<Vec<Item>> = LazyLock::new(|| {
    let filled = std::thread::spawn(|| {
        let runtime = Builder::new_current_thread().enable_time().build();
        runtime.expect("a runtime").block_on(seal())
    });
    filled.join().expect("the stock is sealed")
});

async fn seal() -> Vec<Item> {
    let ground = Arc::new(Ground::new(&Ambient::real(), Duration::ZERO));
    let store = observer(&ground);
    create_table(&ground).await;
    for (iccid, network, reseller, esim) in FREE {
        let form = if esim {
            FormFactor::Esim
        } else {
            FormFactor::Nano
        };
        let sim = sim(iccid, network, reseller, form);
        store.add_sim(&sim).await.expect("a SIM is added");
    }
    for line in &LINES {
        let sim = sim(line.sim, line.network, line.reseller, FormFactor::Nano);
        let added = store.add_line(&line.line(), sim).await;
        assert_eq!(added.expect("a line is added"), NewLine::Added);
    }
    rows(&ground)
}

/// All rows of the table.
pub(crate) fn rows(ground: &Ground) -> Vec<Item> {
    let request = ScanRequest {
        table_name: TABLE.to_owned(),
        ..ScanRequest::default()
    };
    let page = ground.database.scan(request).expect("the table is read");
    assert!(page.last_evaluated_key.is_none(), "a world is one page");
    page.items.unwrap_or_default()
}

/// Makes the table and puts the stock into it.
pub(crate) async fn lay(ground: &Arc<Ground>) {
    create_table(ground).await;
    let put = ground
        .database
        .import_items(TABLE, ROWS.clone(), ImportOptions::default());
    put.expect("the rows are put");
}

/// A store that reads without the scheduler.
pub(crate) fn observer(ground: &Arc<Ground>) -> Store {
    store(&aws(&direct(ground)))
}

fn direct(ground: &Arc<Ground>) -> Wire {
    let ground = ground.clone();
    let direct: Direct = Arc::new(move |call| ground.perform(call));
    Wire {
        desk: Arc::new(Desk::default()),
        direct,
    }
}

async fn create_table(ground: &Arc<Ground>) {
    let config = aws_sdk_dynamodb::config::Builder::from(&aws(&direct(ground)))
        .endpoint_url(Peer::Table.url())
        .allow_no_auth()
        .build();
    let client = aws_sdk_dynamodb::Client::from_conf(config);
    let made = store::create_table(&client, TABLE).await;
    made.expect("the table is made");
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
    }
}
