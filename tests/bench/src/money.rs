//! The cost of a million of each operation by the list prices of `prices.json`, from the figures of the other tables.

use serde_json::{Value, json};

use crate::BenchError;
use crate::report::{self, Table};

const PRICES: &str = include_str!("../prices.json");

/// The functions that API Gateway invokes.
const BEHIND_API: [&str; 5] = [
    "submit-swap",
    "query-activation",
    "change-sim",
    "manage-swap",
    "network-events",
];

/// The gigabytes of the functions that callers wait for, and of the others. `infra/template.yaml` has the same.
const MEMORY: f64 = 0.25;
const MEMORY_BEHIND: f64 = 0.125;

/// The instructions of a warm call of a function whose instructions are not counted: those of a submit.
const WARM: f64 = 3e6;

/// The operations by their names in the table of units, and the labels of this table.
const BILLED: [(&str, &str); 5] = [
    ("query by id", "a million queries by id"),
    ("submit an eSIM swap by id", "a million submits"),
    ("change SIM to any card", "a million changes of SIM"),
    (
        "a whole eSIM swap, submit to DONE",
        "a million eSIM swaps, submit to DONE",
    ),
    (
        "a whole card swap, submit to DONE",
        "a million card swaps, submit to DONE",
    ),
];

/// US dollars for a million of an operation.
struct Dollars {
    api: f64,
    lambda: f64,
    dynamodb: f64,
}

impl Dollars {
    fn of(cost: &Value, prices: &Value, counted: &Value) -> Self {
        let number = |value: &Value| value.as_f64().unwrap_or_default();
        let invoked = cost["invoked"].as_object();
        let invoked = |pick: &dyn Fn(&str) -> bool| -> f64 {
            let picked = invoked.into_iter().flatten().filter(|(name, _)| pick(name));
            picked.map(|(_, count)| number(count)).sum()
        };
        let (api, assumed) = (&prices["apiGateway"], &prices["assumed"]);
        let calls = invoked(&|name| BEHIND_API.contains(&name));
        let all = invoked(&|_| true);
        let instructions: f64 = cost["invoked"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(name, count)| number(count) * counted[name]["warm"].as_f64().unwrap_or(WARM))
            .sum();
        let mails = invoked(&|name| name == "mail-events").min(1.0);
        let lambda = &prices["lambda"];
        let behind = number(&cost["behind"]);
        let at_table = number(&assumed["dynamodbMilliseconds"]);
        let waited = (number(&cost["calls"]) - behind) * at_table * MEMORY
            + behind * at_table * MEMORY_BEHIND
            + number(&cost["peers"]) * number(&assumed["peerMilliseconds"]) * MEMORY_BEHIND
            + mails * number(&assumed["sesMilliseconds"]) * MEMORY_BEHIND;
        // A function with half the memory gets half the processor, so our own instructions cost the same with any
        // memory.
        let worked = instructions / 1e6 / number(&assumed["millionInstructionsAMillisecond"])
            * number(&lambda["wholeProcessorGigabytes"]);
        let gigabyte_seconds = (waited + worked) / 1000.0;
        let dynamodb = &prices["dynamodb"];
        Self {
            api: calls * number(&api["millionRequests"]),
            lambda: all * number(&lambda["millionRequests"])
                + gigabyte_seconds * 1e6 * number(&lambda["gigabyteSecond"]),
            dynamodb: number(&cost["reads"]) * number(&dynamodb["millionReadUnits"])
                + number(&cost["writes"]) * number(&dynamodb["millionWriteUnits"]),
        }
    }

    fn total(&self) -> f64 {
        self.api + self.lambda + self.dynamodb
    }
}

/// Publishes the table.
pub(crate) fn run() -> Result<(), BenchError> {
    let prices: Value = serde_json::from_str(PRICES)?;
    let costs = report::recorded("capacity")?;
    let counted = report::recorded("instructions")?;
    let mut table = Table::new(&["$", "API Gateway", "Lambda", "DynamoDB", "together"]);
    let mut figures = json!({});
    for (name, called) in BILLED {
        let dollars = Dollars::of(&costs[name], &prices, &counted);
        let cells = [dollars.api, dollars.lambda, dollars.dynamodb, dollars.total()];
        let mut row = vec![called.to_owned()];
        row.extend(cells.map(|cell| format!("{cell:.2}")));
        table.row(&row);
        figures[name] = json!({
            "api": dollars.api, "lambda": dollars.lambda, "dynamodb": dollars.dynamodb, "total": dollars.total(),
        });
    }
    table.publish("money")?;
    report::record("money", figures)
}
