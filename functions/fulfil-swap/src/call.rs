//! The calls out. Each may have been made before and its answer lost, so each is safe to make again; each gives the facts
//! that its answers are.

use domain::{Fact, Failure, Kind, NetworkOrder, Phase, ProfileOrder};
use network::{Confirmed, Es2PlusError, FinalStatus, NewOrder, Order, OrderState, OrderingError};
use store::{StoreError, StoredSwap};

use crate::FulfilSwap;

/// The ICCID cannot be ordered: it is already.
const IN_USE: (&str, &str) = ("8.2.1", "3.3");
/// The SM-DP+ does not know the ICCID.
const UNKNOWN: (&str, &str) = ("8.2.1", "3.9");
/// No profile of the type is left; more may come.
const NONE_LEFT: (&str, &str) = ("8.2.5", "3.7");

impl FulfilSwap {
    /// Orders the profile, then the line's move. `swap` is as it was before it was claimed: a swap that was claimed
    /// before may have been ordered before.
    pub(crate) async fn order(&self, swap: &StoredSwap) -> Result<Vec<Fact>, StoreError> {
        let a = &swap.activation;
        let repeated = a.phase == Phase::Ordering;
        let smdp = match a.kind {
            Kind::Physical => None,
            Kind::Esim => match self.order_profile(swap, repeated).await? {
                Ok(confirmed) => Some(confirmed.smdp.unwrap_or_else(|| self.smdp_address.clone())),
                Err(fact) => return Ok(vec![fact]),
            },
        };
        let imsi = self.store.sim(&a.new_sim).await?.and_then(|sim| sim.imsi);
        let new_order = NewOrder {
            external_id: &a.id,
            msisdn: &a.phone,
            old_iccid: &a.old_sim,
            new_iccid: &a.new_sim,
            new_imsi: imsi.as_ref(),
            hold: a.kind == Kind::Esim,
        };
        let order = match self.order_move(new_order, repeated).await {
            Ok(order) => order,
            Err(OrderingError::Refused { .. }) => {
                return Ok(vec![Fact::Refused(Failure::NetworkRejected)]);
            }
            Err(_) => return Ok(vec![Fact::TryFailed]),
        };
        let ordered = Fact::Ordered {
            order_number: order.id.clone(),
            smdp,
        };
        Ok([Some(ordered), order.fact(self.ambient.now())]
            .into_iter()
            .flatten()
            .collect())
    }

    async fn order_profile(
        &self,
        swap: &StoredSwap,
        repeated: bool,
    ) -> Result<Result<Confirmed, Fact>, StoreError> {
        let iccid = &swap.activation.new_sim;
        let matching_id = self.store.matching_id(swap).await?;
        let code = self.store.confirmation_code(swap).await?;
        let call = |step| format!("{}-{step}", swap.activation.id);
        let confirm = || async {
            match self.smdp.download_order(iccid, &call("download")).await {
                Err(error) if repeated && error.is(IN_USE.0, IN_USE.1) => {}
                Err(error) => return Err(error),
                Ok(()) => {}
            }
            self.smdp
                .confirm_order(iccid, &matching_id, code.as_ref(), &call("confirm"))
                .await
        };
        let mut confirmed = confirm().await;
        if repeated && matches!(confirmed, Err(Es2PlusError::Refused { .. })) {
            // It was confirmed before, perhaps: from the beginning, under the same names.
            confirmed = match self
                .smdp
                .cancel_order(
                    iccid,
                    Some(&matching_id),
                    FinalStatus::Available,
                    &call("reorder"),
                )
                .await
            {
                Ok(()) => confirm().await,
                Err(error) => Err(error),
            };
        }
        Ok(confirmed.map_err(|error| {
            tracing::warn!(%error, "the profile is not ordered");
            match error {
                Es2PlusError::Refused { .. } if !error.is(NONE_LEFT.0, NONE_LEFT.1) => {
                    Fact::Refused(Failure::ProfileRefused)
                }
                _ => Fact::TryFailed,
            }
        }))
    }

    /// A repeated order is looked up first; a network that has it all the same says so by 409.
    async fn order_move(
        &self,
        order: NewOrder<'_>,
        repeated: bool,
    ) -> Result<Order, OrderingError> {
        // A look that is refused says nothing of the order.
        let look = || async {
            let found = self.network.find(order.external_id).await;
            found.map_err(|_| OrderingError::Unanswered)
        };
        if repeated && let Some(placed) = look().await? {
            return Ok(placed);
        }
        match self.network.place(order).await {
            Err(OrderingError::Refused { status: 409 }) => {
                look().await?.ok_or(OrderingError::Unanswered)
            }
            placed => placed,
        }
    }

    /// Lets the network start, unless it has.
    pub(crate) async fn start(&self, swap: &StoredSwap) -> Vec<Fact> {
        let found = match self.network.find(&swap.activation.id).await {
            Ok(found) => found,
            Err(_) => return vec![Fact::TryFailed],
        };
        let Some(order) = found else {
            return vec![Fact::NetworkEnded(Failure::NetworkFailed)];
        };
        let waits = matches!(
            order.settled_state(),
            OrderState::Acknowledged | OrderState::Pending | OrderState::Held
        );
        if !waits {
            return order
                .fact(self.ambient.now())
                .into_iter()
                .chain([Fact::TryFailed])
                .collect();
        }
        match self.network.start(&order.id).await {
            Ok(started) => [Some(Fact::NetworkStarted), started.fact(self.ambient.now())]
                .into_iter()
                .flatten()
                .collect(),
            // 409: it changed since we looked. The next look tells.
            Err(OrderingError::Refused { status }) if status != 409 => {
                vec![Fact::Refused(Failure::NetworkRejected)]
            }
            Err(_) => vec![Fact::TryFailed],
        }
    }

    /// Asks the network how its order is. One that has lost it will not carry it out.
    pub(crate) async fn ask(&self, swap: &StoredSwap) -> Vec<Fact> {
        match self.network.find(&swap.activation.id).await {
            Ok(Some(order)) => order
                .fact(self.ambient.now())
                .into_iter()
                .chain([Fact::Asked])
                .collect(),
            Ok(None) => vec![Fact::NetworkEnded(Failure::NetworkFailed)],
            Err(_) => vec![Fact::Asked],
        }
    }

    /// Settles the end with both peers, as far as each is not settled yet.
    pub(crate) async fn cancel(&self, swap: &StoredSwap) -> Result<Vec<Fact>, StoreError> {
        let a = &swap.activation;
        let mut facts = Vec::new();
        if a.kind == Kind::Esim && a.profile_order != ProfileOrder::Settled {
            facts.extend(self.cancel_profile(swap).await?);
        }
        if a.network_order < NetworkOrder::Settled {
            facts.extend(self.cancel_move(swap).await);
        }
        facts.push(Fact::Asked);
        Ok(facts)
    }

    async fn cancel_profile(&self, swap: &StoredSwap) -> Result<Option<Fact>, StoreError> {
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
            .cancel_order(
                &a.new_sim,
                matching_id.as_ref(),
                FinalStatus::Available,
                &call,
            )
            .await;
        Ok(match cancelled {
            Ok(()) => Some(Fact::ProfileSettled { on_phone: false }),
            Err(error) if error.is(IN_USE.0, IN_USE.1) => {
                Some(Fact::ProfileSettled { on_phone: true })
            }
            Err(error) if error.is(UNKNOWN.0, UNKNOWN.1) => {
                Some(Fact::ProfileSettled { on_phone: false })
            }
            // It refused to confirm, and refuses to cancel what it does not have.
            Err(Es2PlusError::Refused { .. }) if a.failure == Some(Failure::ProfileRefused) => {
                Some(Fact::ProfileSettled { on_phone: false })
            }
            Err(error) => {
                tracing::warn!(%error, "the profile is not cancelled yet");
                None
            }
        })
    }

    /// Cancelling is asynchronous: the number is certain to stay only when the order says so.
    async fn cancel_move(&self, swap: &StoredSwap) -> Option<Fact> {
        let a = &swap.activation;
        let gave_up = matches!(
            a.failure,
            Some(Failure::Unavailable | Failure::Internal | Failure::Cancelled)
        );
        let order = match self.network.find(&a.id).await {
            Ok(Some(order)) => order,
            // An order whose answer was lost a moment ago may be on its way there still: the next look tells.
            Ok(None) if gave_up && a.tries == 0 => return None,
            Ok(None) => return Some(Fact::NetworkEnded(Failure::NetworkCancelled)),
            Err(_) => return None,
        };
        let at = self.ambient.now();
        match order.fact(at) {
            Some(fact @ (Fact::NetworkCompleted { .. } | Fact::NetworkEnded(_))) => Some(fact),
            _ => {
                if let Err(error) = self.network.cancel(&order.id).await {
                    tracing::warn!(%error, "the network's order is not cancelled yet");
                }
                None
            }
        }
    }
}
