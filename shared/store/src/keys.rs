//! The keys (`pk`, `sk`) of each kind of row, and the texts in other attributes that refer to rows. The other
//! attributes of a row are in `rows`.

use aws_sdk_dynamodb::types::AttributeValue::S;
use domain::{ActivationId, Holder, Iccid, Msisdn, NetworkName, Sim, SubscriptionId, SwapKind};
use jiff::Timestamp;
use ring::digest::{SHA256, digest};

use crate::StoreError;
use crate::attributes::{Item, Row, sortable};

// Each kind of row has its own sort key, so that a filter on the stream needs nothing else.

/// Sort key of a swap.
pub(crate) const ACTIVATION: &str = "activation";
/// Beginning of the sort key of a mail. The mail's number follows.
const DELIVERY: &str = "delivery#";
pub(crate) const LINE: &str = "line";
const PHONE: &str = "phone";
pub(crate) const SIM: &str = "sim";
const BRAND: &str = "brand";
const IDEMPOTENCY: &str = "idempotency";
/// Beginning of the sort key of a pool. The pool's name follows.
pub(crate) const POOL: &str = "pool#";
/// Beginning of the sort key of a data key. The key's number follows.
const DATA_KEY: &str = "key#";

/// Sort key of the row that says which form the table has.
const FORM: &str = "form";

/// Beginning of the sort key of an operator's action on the line or SIM with the same hash key. Its time follows.
pub(crate) const ACTION: &str = "action#";

/// Hash key of all data keys, so that one query finds the newest.
pub(crate) const DATA_KEYS: &str = "K#";

/// Hash key of all pools of free SIMs, so that one query lists them.
pub(crate) const POOLS: &str = "F#";

/// On a swap: its id, by which listings sort.
pub(crate) const SWAP_ID: &str = "swapId";
/// On a swap and its mails: their part of the indexes that all swaps share.
pub(crate) const SHARD: &str = "shard";
/// On a swap: its reseller, and its part of the reseller's listing.
pub(crate) const RESELLER_SHARD: &str = "resellerShard";

/// Hash key of a swap and of its mails.
pub(crate) fn activation_pk(id: &ActivationId) -> String {
    format!("A#{id}")
}

/// Hash key of a SIM.
pub(crate) fn sim_pk(iccid: &Iccid) -> String {
    format!("S#{iccid}")
}

/// Hash key of a line.
pub(crate) fn line_pk(id: &SubscriptionId) -> String {
    format!("L#{id}")
}

fn key(pk: String, sk: &str) -> Item {
    Item::from([("pk".to_owned(), S(pk)), ("sk".to_owned(), S(sk.to_owned()))])
}

pub(crate) fn activation_key(id: &ActivationId) -> Item {
    key(activation_pk(id), ACTIVATION)
}

pub(crate) fn delivery_key(id: &ActivationId, number: u32) -> Item {
    // A letter before a number of several digits makes the tenth mail sort after the ninth.
    let digits = number.to_string();
    let length = b"ABCDEFGHI".get(digits.len().wrapping_sub(2));
    let length = length.map_or(String::new(), |letter| char::from(*letter).to_string());
    key(activation_pk(id), &format!("{DELIVERY}{length}{digits}"))
}

/// The number of a mail, from its sort key.
pub(crate) fn delivery_number(sk: &str) -> Option<u32> {
    let number = sk.strip_prefix(DELIVERY)?;
    number.trim_start_matches(char::is_alphabetic).parse().ok()
}

pub(crate) fn line_key(id: &SubscriptionId) -> Item {
    key(line_pk(id), LINE)
}

pub(crate) fn phone_key(phone: &Msisdn) -> Item {
    key(format!("P#{}", phone.as_e164()), PHONE)
}

pub(crate) fn sim_key(iccid: &Iccid) -> Item {
    key(sim_pk(iccid), SIM)
}

pub(crate) fn brand_key(reseller: &str) -> Item {
    key(format!("B#{reseller}"), BRAND)
}

/// `digest` is one hash of the caller and the idempotency key, so that the table reveals neither.
pub(crate) fn idempotency_key(digest: &str) -> Item {
    key(format!("I#{digest}"), IDEMPOTENCY)
}

pub(crate) fn data_key(number: u32) -> Item {
    // Padded, so that the newest key sorts last.
    key(DATA_KEYS.to_owned(), &format!("{DATA_KEY}{number:010}"))
}

/// The number of a data key, from its row.
pub(crate) fn data_key_number(item: &Item) -> Result<u32, StoreError> {
    let sk = Row(item).text("sk")?;
    sk.strip_prefix(DATA_KEY)
        .and_then(|number| number.parse().ok())
        .ok_or(StoreError::Corrupt("sk"))
}

/// Key of the row that says which form the table has.
pub(crate) fn form_key() -> Item {
    key("V#".to_owned(), FORM)
}

/// `pk` is the hash key of a line or a SIM.
pub(crate) fn action_key(pk: String, at: Timestamp) -> Item {
    key(pk, &format!("{ACTION}{}", sortable(at)))
}

pub(crate) fn pool_key(pool: &str) -> Item {
    key(POOLS.to_owned(), &format!("{POOL}{pool}"))
}

/// The name of a pool: `<network>#<reseller>#<kind>`, where the kind is `esim` or `card`.
pub(crate) fn pool_name(network: &NetworkName, reseller: Option<&str>, kind: SwapKind) -> String {
    let kind = match kind {
        SwapKind::Esim => "esim",
        SwapKind::Physical => "card",
    };
    format!("{}#{}#{kind}", network.as_str(), reseller.unwrap_or(""))
}

/// The name of the pool that a SIM is in while it is free. `None` for a card that is assigned only to a caller who
/// gives its number.
pub(crate) fn pool_of(sim: &Sim) -> Option<String> {
    let kind = sim.kind();
    (kind == SwapKind::Esim || sim.auto_assign).then(|| pool_name(&sim.network, sim.reseller.as_deref(), kind))
}

/// Attribute `holder` of a SIM: the hash key of the swap or line that has it.
pub(crate) fn holder(holder: &Holder) -> String {
    match holder {
        Holder::Swap(id) => activation_pk(id),
        Holder::Line(id) => line_pk(id),
    }
}

/// Attribute `holder` of a SIM that a line has.
pub(crate) fn line_holder(id: &SubscriptionId) -> String {
    line_pk(id)
}

/// Reads what [`holder`] wrote.
pub(crate) fn parse_holder(text: &str) -> Result<Holder, domain::Malformed> {
    let (prefix, name) = text.split_at_checked(2).ok_or(domain::Malformed("holder"))?;
    match prefix {
        "A#" => ActivationId::parse(name).map(Holder::Swap),
        _ => SubscriptionId::parse(name).map(Holder::Line),
    }
}

/// One of the parts into which an index is divided that contains the swaps of many lines, so that their writes do not
/// meet in one partition of DynamoDB, which takes a thousand writes per second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Shard(u8);

impl Shard {
    const COUNT: u8 = 16;

    /// Shards that are read side by side. Each read at a time needs a connection of its own, with a TLS handshake.
    pub const AT_ONCE: usize = 4;

    /// All shards.
    pub fn all() -> impl Iterator<Item = Self> {
        (0..Self::COUNT).map(Self)
    }

    /// The shard of a swap and its mails, by a hash of its id.
    pub fn of(id: &ActivationId) -> Self {
        Self(digest(&SHA256, id.as_str().as_bytes()).as_ref()[0] % Self::COUNT)
    }

    /// Attribute `shard`: a hexadecimal digit.
    pub fn key(self) -> String {
        format!("{:x}", self.0)
    }

    /// Attribute `resellerShard`.
    pub fn reseller_key(self, reseller: &str) -> String {
        format!("{reseller}#{:x}", self.0)
    }
}

/// A text that sorts directly before the id of every swap requested at `at` or later.
pub(crate) fn first_id_at(at: Timestamp) -> String {
    ActivationId::from_random(at, 0).to_string()
}

/// A changed row, identified by the keys in a change record of the table's stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangedRow {
    /// A swap.
    Swap(ActivationId),
    /// A mail of a swap, by its number.
    Delivery(ActivationId, u32),
    /// Any other row.
    Other,
}

impl ChangedRow {
    /// Parses the keys of a row.
    pub fn from_keys(pk: &str, sk: &str) -> Self {
        let Some(id) = pk.strip_prefix("A#").and_then(|id| ActivationId::parse(id).ok()) else {
            return Self::Other;
        };
        match delivery_number(sk) {
            Some(number) => Self::Delivery(id, number),
            None if sk == ACTIVATION => Self::Swap(id),
            None => Self::Other,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn swaps_spread_over_all_shards() {
        let at = Timestamp::UNIX_EPOCH;
        let mut counts = [0; Shard::COUNT as usize];
        for random in 0..16_000 {
            counts[usize::from(Shard::of(&ActivationId::from_random(at, random)).0)] += 1;
        }
        assert!(counts.iter().all(|count| (800..1200).contains(count)), "{counts:?}");
        let keys: Vec<_> = Shard::all().map(Shard::key).collect();
        assert_eq!(keys.concat(), "0123456789abcdef");
        assert_eq!(Shard(15).reseller_key("R#1"), "R#1#f");
    }

    #[test]
    fn mails_sort_by_their_number() {
        let id = ActivationId::parse("X").unwrap();
        let sk = |number| delivery_key(&id, number)["sk"].as_s().unwrap().clone();
        assert_eq!((sk(2), sk(10)), ("delivery#2".to_owned(), "delivery#A10".to_owned()));
        assert!(sk(9) < sk(10) && sk(99) < sk(100));
        for number in [1, 10, 12345, u32::MAX] {
            assert_eq!(delivery_number(&sk(number)), Some(number));
        }
    }

    #[test]
    fn changed_rows_are_identified_by_their_keys() {
        assert_eq!(
            ChangedRow::from_keys("A#X", "activation"),
            ChangedRow::Swap(ActivationId::parse("X").unwrap())
        );
        assert_eq!(
            ChangedRow::from_keys("A#X", "delivery#2"),
            ChangedRow::Delivery(ActivationId::parse("X").unwrap(), 2)
        );
        for (pk, sk) in [
            ("L#X", "line"),
            ("A#", "activation"),
            ("A#X", "delivery#x"),
            ("A#X", "other"),
        ] {
            assert_eq!(ChangedRow::from_keys(pk, sk), ChangedRow::Other);
        }
    }
}
