//! The calls to the SM-DP+ and the network. Each returns the facts that follow from the responses. An earlier call may
//! have an unknown outcome, so each call is safe to repeat. Not here: claiming the swap and writing the facts
//! (`lib.rs`).

use domain::{
    Activation, ConfirmationCode, Fact, FailedCall, FailureCode, Imsi, MatchingId, NetworkOrder, Peer, Phase,
    ProfileOrder, SwapKind,
};
use edge::Metric;
use jiff::SignedDuration;
use peers::{Confirmed, Es2PlusError, FailureClass, FinalStatus, NewOrder, Order, OrderState, OrderingError};
use store::{StoreError, StoredSwap};

use crate::FulfilSwap;

/// ES2+ subject and reason codes (SGP.22 section 5.2.6): the profile is ordered already, or installed on a phone.
const IN_USE: (&str, &str) = ("8.2.1", "3.3");
/// The SM-DP+ does not know the ICCID.
const UNKNOWN: (&str, &str) = ("8.2.1", "3.9");
/// Another order has this matching id already.
const MATCHING_ID_IN_USE: (&str, &str) = ("8.2.6", "3.3");

/// The result of looking up a swap's order at the network.
enum OrderLookup {
    /// The order.
    Found(Box<Order>),
    /// The network does not know the id that it gave the order.
    Missing,
    /// The search by our id finds no order. This proves nothing, because a search may lag.
    NotListed,
}

impl FulfilSwap {
    /// Orders the profile, then places the network's order. `swap` is the row from before the claim: its phase tells
    /// whether an earlier claim may have ordered. An error means that no call was made.
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
        Ok(match self.place_network_order(a, imsi.as_ref()).await {
            Ok(order) => {
                let ordered = Fact::Ordered {
                    order_number: order.id.clone(),
                    smdp,
                };
                let reported = order.fact(self.clock.now());
                [Some(ordered), reported].into_iter().flatten().collect()
            }
            Err(facts) => facts,
        })
    }

    /// Orders and confirms the profile (ES2+, SGP.22 sections 5.3.1 and 5.3.2). If the SM-DP+ rejects a repeated order
    /// as in use, the earlier call succeeded.
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
                record_smdp_failure(&error);
                return Err(Fact::ProfileTaken);
            }
            ordered => ordered.map_err(failed_order_fact)?,
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
            confirmed => confirmed.map_err(failed_order_fact),
        }
    }

    /// Places the network's order. A repeat looks the order up first. If the lookup misses the order, the network
    /// responds with 409.
    async fn place_network_order(&self, a: &Activation, imsi: Option<&Imsi>) -> Result<Order, Vec<Fact>> {
        let retry_later = |error| vec![Fact::TryFailed(Some(record_network_failure(&error)))];
        if a.phase == Phase::Ordering
            && let OrderLookup::Found(order) = self.look_up_order(a).await.map_err(retry_later)?
        {
            return Ok(*order);
        }
        match self.network.place(new_order(a, imsi)).await {
            Ok(order) => Ok(order),
            Err(error @ OrderingError::Rejected { .. }) => Err(vec![Fact::OrderRejected {
                failure: FailureCode::NetworkRejected,
                call: record_network_failure(&error),
            }]),
            Err(error @ OrderingError::Conflict) => {
                let not_found = || {
                    vec![
                        Fact::NetworkPlaced,
                        Fact::TryFailed(Some(record_network_failure(&error))),
                    ]
                };
                match self.look_up_order(a).await {
                    Ok(OrderLookup::Found(order)) => Ok(*order),
                    _ => Err(not_found()),
                }
            }
            Err(error) => Err(retry_later(error)),
        }
    }

    /// Looks up the order at the network: by the network's id if it is known, else by ours.
    async fn look_up_order(&self, a: &Activation) -> Result<OrderLookup, OrderingError> {
        if let Some(number) = &a.order_number {
            return match self.network.get(number).await {
                Ok(order) => Ok(OrderLookup::Found(order.into())),
                Err(OrderingError::NotFound) => Ok(OrderLookup::Missing),
                Err(error) => Err(error),
            };
        }
        if let Some(named) = &a.unconfirmed_order_number
            && let Ok(order) = self.network.get(named).await
            && order.external_id.as_deref().is_none_or(|id| id == a.id.as_str())
        {
            return Ok(OrderLookup::Found(order.into()));
        }
        let found = self.network.find(&a.id).await?;
        Ok(found.map_or(OrderLookup::NotListed, |order| OrderLookup::Found(order.into())))
    }

    /// Starts the order that the network holds, unless it has left that state. The state is always looked up, because a
    /// network that reported the start too early may still be waiting for it.
    pub(crate) async fn start(&self, swap: &StoredSwap) -> Vec<Fact> {
        let a = &swap.activation;
        let order = match self.look_up_order(a).await {
            Ok(OrderLookup::Found(order)) => order,
            Ok(OrderLookup::Missing) => return vec![Fact::NetworkMissing, Fact::Polled(Vec::new())],
            Ok(OrderLookup::NotListed) => return vec![Fact::Polled(Vec::new())],
            Err(error) => return vec![Fact::TryFailed(Some(record_network_failure(&error)))],
        };
        let is_waiting = matches!(
            order.settled_state(),
            OrderState::Acknowledged | OrderState::Pending | OrderState::Held
        );
        let reported = order.fact(self.clock.now());
        if !is_waiting {
            let unexpected_state = match reported {
                None => vec![FailedCall::new(Peer::Network, format!("{:?}", order.settled_state()))],
                Some(_) => Vec::new(),
            };
            return reported.into_iter().chain([Fact::Polled(unexpected_state)]).collect();
        }
        match self.network.start(&order.id).await {
            Ok(started) => [
                Some(Fact::NetworkStarted),
                started.fact(self.clock.now()),
                Some(Fact::Polled(Vec::new())),
            ]
            .into_iter()
            .flatten()
            .collect(),
            Err(error @ OrderingError::Rejected { .. }) => vec![Fact::OrderRejected {
                failure: FailureCode::NetworkRejected,
                call: record_network_failure(&error),
            }],
            // A 409 means that the order has changed since the lookup. The next poll reports its state.
            Err(error) => reported
                .into_iter()
                .chain([Fact::TryFailed(Some(record_network_failure(&error)))])
                .collect(),
        }
    }

    /// Polls the network for the state of its order.
    pub(crate) async fn poll(&self, swap: &StoredSwap) -> Vec<Fact> {
        match self.look_up_order(&swap.activation).await {
            Ok(OrderLookup::Found(order)) => order
                .fact(self.clock.now())
                .into_iter()
                .chain([Fact::Polled(Vec::new())])
                .collect(),
            Ok(OrderLookup::Missing) => vec![Fact::NetworkMissing, Fact::Polled(Vec::new())],
            Ok(OrderLookup::NotListed) => vec![Fact::Polled(Vec::new())],
            Err(error) => vec![Fact::Polled(vec![record_network_failure(&error)])],
        }
    }

    /// Cancels the orders at both peers, as far as they are not settled yet.
    pub(crate) async fn cancel(&self, swap: &StoredSwap) -> Result<Vec<Fact>, StoreError> {
        let a = &swap.activation;
        let mut facts = Vec::new();
        let mut failed = Vec::new();
        let unsettled = !matches!(a.profile_order, ProfileOrder::Settled | ProfileOrder::Taken);
        if a.kind == SwapKind::Esim && unsettled {
            match self.cancel_profile(swap).await? {
                Ok(fact) => facts.push(fact),
                Err(call) => failed.push(call),
            }
        }
        if a.network_order < NetworkOrder::Settled {
            match self.cancel_network_order(a).await {
                Ok(reported) => facts.extend(reported),
                Err(error) => failed.push(record_network_failure(&error)),
            }
        }
        facts.push(Fact::Polled(failed));
        Ok(facts)
    }

    /// Cancels the profile order (ES2+, SGP.22 section 5.3.3). An inner `Err` is a failed call.
    async fn cancel_profile(&self, swap: &StoredSwap) -> Result<Result<Fact, FailedCall>, StoreError> {
        let a = &swap.activation;
        // The ICCID is enough to cancel. A matching id that cannot be decrypted must not block the line for ever.
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
            Err(error) => Err(record_smdp_failure(&error)),
        })
    }

    /// Cancels the network's order. Cancelling is asynchronous: only the order's state confirms that the number stays
    /// on the old SIM.
    async fn cancel_network_order(&self, a: &Activation) -> Result<Vec<Fact>, OrderingError> {
        if !a.may_be_ordered() {
            return Ok(vec![Fact::NetworkUnseen]);
        }
        let at = self.clock.now();
        let order = match self.look_up_order(a).await? {
            OrderLookup::Found(order) => *order,
            OrderLookup::Missing => return Ok(vec![Fact::NetworkMissing]),
            // The order is known to exist, although the search does not find it.
            OrderLookup::NotListed if a.network_order != NetworkOrder::None => {
                return Ok(Vec::new());
            }
            // The network does not hold a card's order, so it would have started by now. A call that may still be
            // carried out does not block the line; the card cools down for that long instead.
            OrderLookup::NotListed if a.kind == SwapKind::Physical => {
                return Ok(vec![Fact::NetworkUnseen]);
            }
            OrderLookup::NotListed if a.network_unknown_until > Some(at) => return Ok(Vec::new()),
            OrderLookup::NotListed if a.missing_since.is_some() => {
                return Ok(vec![Fact::NetworkUnseen]);
            }
            // The network holds an eSIM's order, so placing it again is safe. The response tells whether the order
            // exists, which the search does not.
            OrderLookup::NotListed => match self.network.place(new_order(a, None)).await {
                Ok(order) => order,
                Err(OrderingError::Conflict) => return Ok(vec![Fact::NetworkPlaced]),
                Err(OrderingError::Rejected { .. }) => return Ok(vec![Fact::NetworkUnseen]),
                Err(error) => {
                    let failed = Fact::TryFailed(Some(record_network_failure(&error)));
                    return Ok(vec![Fact::NetworkMissing, failed]);
                }
            },
        };
        let found = a.order_number.is_none().then(|| Fact::OrderFound {
            order_number: order.id.clone(),
        });
        let reported = order.fact(at);
        let settled = matches!(reported, Some(Fact::NetworkCompleted { .. } | Fact::NetworkEnded(_)));
        let being_cancelled = matches!(
            order.settled_state(),
            OrderState::AssessingCancellation | OrderState::PendingCancellation
        );
        if !settled
            && !being_cancelled
            && let Err(error) = self.network.cancel(&order.id).await
        {
            // The facts found so far are still returned; the cancel is retried later.
            record_network_failure(&error);
        }
        Ok(found.into_iter().chain(reported).collect())
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

/// The fact that follows from a failed order at the SM-DP+.
fn failed_order_fact(error: Es2PlusError) -> Fact {
    let call = record_smdp_failure(&error);
    match error {
        Es2PlusError::Rejected { .. } => Fact::OrderRejected {
            failure: FailureCode::ProfileRefused,
            call,
        },
        Es2PlusError::Transient(_) => Fact::TryFailed(Some(call)),
    }
}

/// Logs and counts a failed call to the SM-DP+, and returns its timeline entry.
fn record_smdp_failure(error: &Es2PlusError) -> FailedCall {
    let retry_after = match error {
        Es2PlusError::Transient(failure) => failure.retry_after,
        Es2PlusError::Rejected { .. } => None,
    };
    record_failure(Peer::Smdp, error.class(), error.detail(), retry_after)
}

/// Logs and counts a failed call to the network, and returns its timeline entry.
fn record_network_failure(error: &OrderingError) -> FailedCall {
    let retry_after = match error {
        OrderingError::Transient(failure) => failure.retry_after,
        _ => None,
    };
    record_failure(Peer::Network, error.class(), error.detail(), retry_after)
}

fn record_failure(peer: Peer, class: FailureClass, detail: String, retry_after: Option<SignedDuration>) -> FailedCall {
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
