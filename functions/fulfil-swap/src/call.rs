//! The calls out. Each may have been made before and its answer lost, so each is safe to make again; each gives the facts
//! that its answers are.

use domain::{
    Activation, ConfirmationCode, Fact, FailedCall, FailureCode, Imsi, MatchingId, NetworkOrder, Peer, Phase,
    ProfileOrder, SwapKind,
};
use edge::Metric;
use jiff::SignedDuration;
use peers::{Confirmed, Es2PlusError, FailureClass, FinalStatus, NewOrder, Order, OrderState, OrderingError};
use store::{StoreError, StoredSwap};

use crate::FulfilSwap;

/// The ICCID cannot be ordered: it is ordered already, or on a phone.
const IN_USE: (&str, &str) = ("8.2.1", "3.3");
/// The SM-DP+ does not know the ICCID.
const UNKNOWN: (&str, &str) = ("8.2.1", "3.9");
/// The matching id is that of an order already.
const MATCHING_ID_IN_USE: (&str, &str) = ("8.2.6", "3.3");

/// What the network shows of a swap's order.
enum OrderLookup {
    /// This.
    Found(Box<Order>),
    /// It does not know the id that it gave the order.
    Missing,
    /// Its search shows none. That proves nothing: a search may lag.
    NotListed,
}

impl FulfilSwap {
    /// Orders the profile, then the line's move. `swap` is as it was before it was claimed: a swap that was claimed
    /// before may have been ordered before. An error means that nothing was called.
    pub(crate) async fn order(&self, swap: &StoredSwap) -> Result<Vec<Fact>, StoreError> {
        let a = &swap.activation;
        let imsi = self.store.sim(&a.new_sim).await?.and_then(|sim| sim.imsi);
        let smdp = match a.kind {
            SwapKind::Physical => None,
            SwapKind::Esim => {
                let matching_id = self.store.matching_id(swap).await?;
                let code = self.store.confirmation_code(swap).await?;
                match self.order_profile(a, &matching_id, code.as_ref()).await {
                    Ok(confirmed) => Some(confirmed.smdp.unwrap_or_else(|| self.smdp_address.clone())),
                    Err(fact) => return Ok(vec![fact]),
                }
            }
        };
        Ok(match self.order_move(a, imsi.as_ref()).await {
            Ok(order) => {
                let ordered = Fact::Ordered {
                    order_number: order.id.clone(),
                    smdp,
                };
                let told = order.fact(self.ambient.now());
                [Some(ordered), told].into_iter().flatten().collect()
            }
            Err(facts) => facts,
        })
    }

    /// A repeat of what was ordered before is refused as such, and is as good as a success.
    async fn order_profile(
        &self,
        a: &Activation,
        matching_id: &MatchingId,
        code: Option<&ConfirmationCode>,
    ) -> Result<Confirmed, Fact> {
        let repeated = a.phase == Phase::Ordering;
        let iccid = &a.new_sim;
        let call = |step| format!("{}-{step}", a.id);
        match self.smdp.download_order(iccid, &call("download")).await {
            Err(error) if error.is(IN_USE.0, IN_USE.1) && repeated => {}
            Err(error) if error.is(IN_USE.0, IN_USE.1) => {
                failed_at_smdp(&error);
                return Err(Fact::ProfileTaken);
            }
            ordered => ordered.map_err(not_ordered)?,
        }
        let confirmed = self
            .smdp
            .confirm_order(iccid, matching_id, code, &call("confirm"))
            .await;
        match confirmed {
            Err(error)
                if repeated
                    && (error.is(IN_USE.0, IN_USE.1) || error.is(MATCHING_ID_IN_USE.0, MATCHING_ID_IN_USE.1)) =>
            {
                Ok(Confirmed { smdp: None })
            }
            confirmed => confirmed.map_err(not_ordered),
        }
    }

    /// A repeated order is looked up first; a network that has it all the same says so by 409.
    async fn order_move(&self, a: &Activation, imsi: Option<&Imsi>) -> Result<Order, Vec<Fact>> {
        let later = |error| vec![Fact::TryFailed(Some(failed_at_network(&error)))];
        if a.phase == Phase::Ordering
            && let OrderLookup::Found(order) = self.look(a).await.map_err(later)?
        {
            return Ok(*order);
        }
        match self.network.place(new_order(a, imsi)).await {
            Ok(order) => Ok(order),
            Err(error @ OrderingError::Rejected { .. }) => Err(vec![Fact::Refused {
                failure: FailureCode::NetworkRejected,
                call: failed_at_network(&error),
            }]),
            Err(error @ OrderingError::Conflict) => {
                let unseen = || vec![Fact::NetworkPlaced, Fact::TryFailed(Some(failed_at_network(&error)))];
                match self.look(a).await {
                    Ok(OrderLookup::Found(order)) => Ok(*order),
                    _ => Err(unseen()),
                }
            }
            Err(error) => Err(later(error)),
        }
    }

    /// The order as the network shows it: by the id that the network gave it once that is known, else by ours.
    async fn look(&self, a: &Activation) -> Result<OrderLookup, OrderingError> {
        if let Some(number) = &a.order_number {
            return match self.network.get(number).await {
                Ok(order) => Ok(OrderLookup::Found(order.into())),
                Err(OrderingError::NotFound) => Ok(OrderLookup::Missing),
                Err(error) => Err(error),
            };
        }
        if let Some(named) = &a.heard_number
            && let Ok(order) = self.network.get(named).await
            && order.external_id.as_deref().is_none_or(|id| id == a.id.as_str())
        {
            return Ok(OrderLookup::Found(order.into()));
        }
        let found = self.network.find(&a.id).await?;
        Ok(found.map_or(OrderLookup::NotListed, |order| OrderLookup::Found(order.into())))
    }

    /// Lets the network start, unless it has. One that said so too early may wait for it all the same.
    pub(crate) async fn start(&self, swap: &StoredSwap) -> Vec<Fact> {
        let a = &swap.activation;
        let order = match self.look(a).await {
            Ok(OrderLookup::Found(order)) => order,
            Ok(OrderLookup::Missing) => return vec![Fact::NetworkMissing, Fact::Asked(Vec::new())],
            Ok(OrderLookup::NotListed) => return vec![Fact::Asked(Vec::new())],
            Err(error) => return vec![Fact::TryFailed(Some(failed_at_network(&error)))],
        };
        let waits = matches!(
            order.settled_state(),
            OrderState::Acknowledged | OrderState::Pending | OrderState::Held
        );
        let told = order.fact(self.ambient.now());
        if !waits {
            let stands = match told {
                None => vec![FailedCall::new(Peer::Network, format!("{:?}", order.settled_state()))],
                Some(_) => Vec::new(),
            };
            return told.into_iter().chain([Fact::Asked(stands)]).collect();
        }
        match self.network.start(&order.id).await {
            Ok(started) => [
                Some(Fact::NetworkStarted),
                started.fact(self.ambient.now()),
                Some(Fact::Asked(Vec::new())),
            ]
            .into_iter()
            .flatten()
            .collect(),
            Err(error @ OrderingError::Rejected { .. }) => vec![Fact::Refused {
                failure: FailureCode::NetworkRejected,
                call: failed_at_network(&error),
            }],
            // Of a 409 the next look tells more: the order changed since this one.
            Err(error) => told
                .into_iter()
                .chain([Fact::TryFailed(Some(failed_at_network(&error)))])
                .collect(),
        }
    }

    /// Asks the network how its order is.
    pub(crate) async fn ask(&self, swap: &StoredSwap) -> Vec<Fact> {
        match self.look(&swap.activation).await {
            Ok(OrderLookup::Found(order)) => order
                .fact(self.ambient.now())
                .into_iter()
                .chain([Fact::Asked(Vec::new())])
                .collect(),
            Ok(OrderLookup::Missing) => vec![Fact::NetworkMissing, Fact::Asked(Vec::new())],
            Ok(OrderLookup::NotListed) => vec![Fact::Asked(Vec::new())],
            Err(error) => vec![Fact::Asked(vec![failed_at_network(&error)])],
        }
    }

    /// Settles the end with both peers, as far as each is not settled yet.
    pub(crate) async fn cancel(&self, swap: &StoredSwap) -> Result<Vec<Fact>, StoreError> {
        let a = &swap.activation;
        let mut facts = Vec::new();
        let mut failed = Vec::new();
        let ordered = !matches!(a.profile_order, ProfileOrder::Settled | ProfileOrder::Taken);
        if a.kind == SwapKind::Esim && ordered {
            match self.cancel_profile(swap).await? {
                Ok(fact) => facts.push(fact),
                Err(call) => failed.push(call),
            }
        }
        if a.network_order < NetworkOrder::Settled {
            match self.cancel_move(a).await {
                Ok(told) => facts.extend(told),
                Err(error) => failed.push(failed_at_network(&error)),
            }
        }
        facts.push(Fact::Asked(failed));
        Ok(facts)
    }

    async fn cancel_profile(&self, swap: &StoredSwap) -> Result<Result<Fact, FailedCall>, StoreError> {
        let a = &swap.activation;
        // The ICCID is enough to cancel: a matching id that cannot be opened must not keep the line for ever.
        let matching_id = match self.store.matching_id(swap).await {
            Ok(id) => Some(id),
            Err(error @ StoreError::Unavailable(_)) => return Err(error),
            Err(_) => None,
        };
        let call = format!("{}-cancel", a.id);
        let cancelled = self
            .smdp
            .cancel_order(&a.new_sim, matching_id.as_ref(), FinalStatus::Available, &call)
            .await;
        Ok(match cancelled {
            Ok(()) => Ok(Fact::ProfileSettled { on_phone: false }),
            Err(error) if error.is(IN_USE.0, IN_USE.1) => Ok(Fact::ProfileSettled { on_phone: true }),
            Err(error) if error.is(UNKNOWN.0, UNKNOWN.1) => Ok(Fact::ProfileSettled { on_phone: false }),
            Err(error) => Err(failed_at_smdp(&error)),
        })
    }

    /// Cancelling is asynchronous: the number is certain to stay only when the order says so.
    async fn cancel_move(&self, a: &Activation) -> Result<Vec<Fact>, OrderingError> {
        if !a.may_be_ordered() {
            return Ok(vec![Fact::NetworkUnseen]);
        }
        let at = self.ambient.now();
        let order = match self.look(a).await? {
            OrderLookup::Found(order) => *order,
            OrderLookup::Missing => return Ok(vec![Fact::NetworkMissing]),
            // It is there, and no search shows it.
            OrderLookup::NotListed if a.network_order != NetworkOrder::None => {
                return Ok(Vec::new());
            }
            // A card's would have started. What may still come is the card's to wait for, not the line's.
            OrderLookup::NotListed if a.kind == SwapKind::Physical => {
                return Ok(vec![Fact::NetworkUnseen]);
            }
            OrderLookup::NotListed if a.network_doubt > Some(at) => return Ok(Vec::new()),
            OrderLookup::NotListed if a.missing_since.is_some() => {
                return Ok(vec![Fact::NetworkUnseen]);
            }
            // An eSIM's is held, so placing it once more tells what a search that knows nothing does not.
            OrderLookup::NotListed => match self.network.place(new_order(a, None)).await {
                Ok(order) => order,
                Err(OrderingError::Conflict) => return Ok(vec![Fact::NetworkPlaced]),
                Err(OrderingError::Rejected { .. }) => return Ok(vec![Fact::NetworkUnseen]),
                Err(error) => {
                    let failed = Fact::TryFailed(Some(failed_at_network(&error)));
                    return Ok(vec![Fact::NetworkMissing, failed]);
                }
            },
        };
        let found = a.order_number.is_none().then(|| Fact::OrderFound {
            order_number: order.id.clone(),
        });
        let told = order.fact(at);
        let settled = matches!(told, Some(Fact::NetworkCompleted { .. } | Fact::NetworkEnded(_)));
        let being_cancelled = matches!(
            order.settled_state(),
            OrderState::AssessingCancellation | OrderState::PendingCancellation
        );
        if !settled
            && !being_cancelled
            && let Err(error) = self.network.cancel(&order.id).await
        {
            // What was found is worth more than why it is not cancelled yet.
            failed_at_network(&error);
        }
        Ok(found.into_iter().chain(told).collect())
    }
}

fn new_order<'a>(a: &'a Activation, imsi: Option<&'a Imsi>) -> NewOrder<'a> {
    NewOrder {
        external_id: &a.id,
        msisdn: &a.phone,
        old_iccid: &a.old_sim,
        new_iccid: &a.new_sim,
        new_imsi: imsi,
        hold: a.kind == SwapKind::Esim,
    }
}

fn not_ordered(error: Es2PlusError) -> Fact {
    let call = failed_at_smdp(&error);
    match error {
        Es2PlusError::Rejected { .. } => Fact::Refused {
            failure: FailureCode::ProfileRefused,
            call,
        },
        Es2PlusError::Transient(_) => Fact::TryFailed(Some(call)),
    }
}

/// Counts it, and says what the timeline shows of it.
fn failed_at_smdp(error: &Es2PlusError) -> FailedCall {
    let retry_after = match error {
        Es2PlusError::Transient(not_now) => not_now.retry_after,
        Es2PlusError::Rejected { .. } => None,
    };
    failed(Peer::Smdp, error.class(), error.detail(), retry_after)
}

/// The same of the network.
fn failed_at_network(error: &OrderingError) -> FailedCall {
    let retry_after = match error {
        OrderingError::Transient(not_now) => not_now.retry_after,
        _ => None,
    };
    failed(Peer::Network, error.class(), error.detail(), retry_after)
}

fn failed(peer: Peer, class: FailureClass, detail: String, retry_after: Option<SignedDuration>) -> FailedCall {
    let (peer_name, class_name) = (peer.as_str(), class.as_str());
    tracing::warn!(peer = peer_name, class = class_name, detail, "a call to a peer failed");
    Metric::PeerCallFailed {
        peer: peer_name,
        class: class_name,
    }
    .record();
    FailedCall {
        peer,
        detail,
        retry_after,
        doubtful: matches!(
            class,
            FailureClass::Failed | FailureClass::Unreadable | FailureClass::Unanswered
        ),
    }
}
