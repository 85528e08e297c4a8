//! The calls to the SM-DP+ and the network. Each returns the facts that follow from the responses. An earlier call may
//! have an unknown outcome, so each call is safe to repeat. Not here: claiming the swap and writing the facts
//! (`lib.rs`).

use domain::{
    Activation, ConfirmationCode, Fact, FailedCall, FailureCode, Imsi, MatchingId, NetworkOrder, Peer, Phase,
    PhoneState, ProfileOrder, ProfileRequestKind, ProfileRequestState, ProfileState, SwapKind,
};
use edge::Metric;
use jiff::SignedDuration;
use peers::{
    Confirmed, Es2PlusError, FailureClass, FinalStatus, NewOrder, Order, OrderState, OrderingError, ProfileStatus,
    ReportedState,
};
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
                Ok(Confirmed { smdp: None, date: None })
            }
            confirmed => confirmed.map_err(failed_order_fact),
        }
    }

    /// Places the network's order. A repeat looks the order up first. If the lookup misses the order, the network
    /// responds with 409.
    async fn place_network_order(&self, a: &Activation, imsi: Option<&Imsi>) -> Result<Order, Vec<Fact>> {
        let retry_later = |error| vec![Fact::TryFailed(Some(record_network_failure(&error)))];
        let not_looked_up = |error| vec![Fact::TryFailed(Some(record_lookup_failure(&error)))];
        if a.phase == Phase::Ordering
            && let OrderLookup::Found(order) = self.look_up_order(a).await.map_err(not_looked_up)?
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
            Ok(OrderLookup::Missing) => return vec![Fact::NetworkMissing, Fact::TryFailed(None)],
            Ok(OrderLookup::NotListed) => return vec![Fact::TryFailed(None)],
            Err(error) => return vec![Fact::TryFailed(Some(record_lookup_failure(&error)))],
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

    /// Polls the network for the state of its order, and the SM-DP+, if it can be asked, for that of a profile whose
    /// installation has not been reported.
    pub(crate) async fn poll(&self, swap: &StoredSwap) -> Vec<Fact> {
        let a = &swap.activation;
        let mut failed = Vec::new();
        let mut facts = self.poll_network(a).await.unwrap_or_else(|call| {
            failed.push(call);
            Vec::new()
        });
        let is_on_phone = a.profile == Some(ProfileState::Installed);
        if self.smdp_has_status && a.kind == SwapKind::Esim && a.phase.is_open() && !is_on_phone {
            match self.profile_status(a).await {
                Ok(status) => facts.extend(self.status_facts(a, status.as_ref())),
                Err(error) => failed.push(record_smdp_failure(&error)),
            }
        }
        facts.push(Fact::Polled(failed));
        facts
    }

    /// Polls the network for the state of its order. A poll that fails leaves nothing in doubt.
    async fn poll_network(&self, a: &Activation) -> Result<Vec<Fact>, FailedCall> {
        match self.look_up_order(a).await {
            Ok(OrderLookup::Found(order)) => Ok(order.fact(self.clock.now()).into_iter().collect()),
            Ok(OrderLookup::Missing) => Ok(vec![Fact::NetworkMissing]),
            Ok(OrderLookup::NotListed) => Ok(Vec::new()),
            Err(error) => Err(record_lookup_failure(&error)),
        }
    }

    /// Asks the SM-DP+ for the state of the profile. Each call has an identifier of its own, so that the SM-DP+ does not
    /// repeat an earlier response.
    async fn profile_status(&self, a: &Activation) -> Result<Option<ProfileStatus>, Es2PlusError> {
        let call = format!("{}-status-{}", a.id, a.version);
        self.smdp.profile_status(&a.new_sim, &call).await
    }

    /// What the state of a profile at the SM-DP+ adds to what its callbacks have reported. It is dated now, because it
    /// is the current one.
    fn status_facts(&self, a: &Activation, status: Option<&ProfileStatus>) -> Vec<Fact> {
        let now = self.clock.now();
        // The clock of the SM-DP+, which dated the renewal, may be ahead.
        let dated = a
            .renewed_at
            .map_or(now, |renewed| now.max(renewed + SignedDuration::from_secs(1)));
        let changed = |state| Fact::PhoneChanged { state, dated };
        match status.map(|status| status.state) {
            Some(ReportedState::Installed) => vec![Fact::Installed { dated }],
            Some(ReportedState::Enabled) => vec![Fact::Installed { dated }, changed(PhoneState::Enabled)],
            Some(ReportedState::Disabled) => vec![Fact::Installed { dated }, changed(PhoneState::Disabled)],
            Some(ReportedState::Deleted) => vec![changed(PhoneState::Deleted)],
            Some(ReportedState::Downloaded) if a.profile < Some(ProfileState::Downloaded) => {
                vec![Fact::Downloaded { dated }]
            }
            Some(ReportedState::Failed) if a.profile_failure.is_none() => vec![Fact::ProfileFailed {
                dated,
                failure: FailureCode::ProfileFailed,
                codes: String::new(),
            }],
            _ => Vec::new(),
        }
    }

    /// Carries out what a caller wants to be done about the profile. While the network moves the number, it is polled
    /// first.
    pub(crate) async fn carry_out_request(&self, swap: &StoredSwap) -> Result<Vec<Fact>, StoreError> {
        let a = &swap.activation;
        let mut facts = Vec::new();
        // Before anything is cancelled at the SM-DP+: an order that has ended needs no new code.
        if a.phase == Phase::Started && a.network_order < NetworkOrder::Settled && !a.has_no_code_yet() {
            match self.poll_network(a).await {
                Ok(reported) => facts.extend(reported),
                Err(call) => return Ok(vec![Fact::TryFailed(Some(call))]),
            }
            let has_ended = |fact: &Fact| matches!(fact, Fact::NetworkCompleted { .. } | Fact::NetworkEnded(_));
            if facts.iter().any(has_ended) {
                facts.push(Fact::TryFailed(None));
                return Ok(facts);
            }
        }
        let Some(request) = a.request else {
            return Ok(facts);
        };
        match (request.kind, request.state) {
            (ProfileRequestKind::Report, _) => facts.extend(self.check_report(a).await),
            (ProfileRequestKind::Renew, ProfileRequestState::Cancelled) => facts.push(self.order_new_code(swap).await?),
            (ProfileRequestKind::Renew, _) => facts.extend(self.cancel_old_code(swap).await?),
        }
        // Releases the claim if none of the facts applies any more.
        facts.push(Fact::TryFailed(None));
        Ok(facts)
    }

    /// Asks the SM-DP+ about a profile that is said to be installed.
    async fn check_report(&self, a: &Activation) -> Vec<Fact> {
        // The setting may have changed since the report.
        if !self.smdp_has_status {
            return vec![Fact::ReportChecked { on_phone: false }];
        }
        match self.profile_status(a).await {
            Ok(status) => {
                let on_phone = status.as_ref().is_some_and(is_on_phone);
                let mut facts = self.status_facts(a, status.as_ref());
                facts.push(Fact::ReportChecked { on_phone });
                facts
            }
            Err(error) => vec![Fact::TryFailed(Some(record_smdp_failure(&error)))],
        }
    }

    /// Cancels the profile order with the old activation code (ES2+, SGP.22 section 5.3.3), so that nobody can use the
    /// code any more.
    async fn cancel_old_code(&self, swap: &StoredSwap) -> Result<Vec<Fact>, StoreError> {
        let a = &swap.activation;
        // A renewal that was refused after its cancellation may have left a code that we do not know.
        let old = match a.code_dead {
            true => None,
            false => Some(self.store.matching_id(swap).await?),
        };
        let cancelled = self
            .smdp
            .cancel_order(
                &a.new_sim,
                old.as_ref(),
                FinalStatus::Available,
                &renewal_call(a, "cancel"),
            )
            .await;
        let error = match cancelled {
            Ok(()) => return Ok(vec![Fact::CodeCancelled]),
            Err(error) => error,
        };
        let call = record_smdp_failure(&error);
        Ok(match error {
            _ if error.is(UNKNOWN.0, UNKNOWN.1) => vec![Fact::CodeCancelled],
            // An earlier call may have cancelled the order, and there is nothing left to cancel.
            Es2PlusError::Rejected { .. } if a.renewal_unknown => self.find_out_whether_cancelled(a).await,
            _ if error.is(IN_USE.0, IN_USE.1) && a.renewal_unknown => self.find_out_whether_cancelled(a).await,
            _ if error.is(IN_USE.0, IN_USE.1) => vec![Fact::RenewalRefused { on_phone: true }],
            Es2PlusError::Rejected { .. } => vec![Fact::RenewalRefused { on_phone: false }],
            Es2PlusError::Transient(_) => vec![Fact::TryFailed(Some(call))],
        })
    }

    /// Finds out whether an earlier call has cancelled the order: then the profile can be ordered again, or the SM-DP+
    /// says so.
    async fn find_out_whether_cancelled(&self, a: &Activation) -> Vec<Fact> {
        let refused = |on_phone| Fact::RenewalRefused { on_phone };
        let error = match self.smdp.download_order(&a.new_sim, &renewal_call(a, "download")).await {
            Ok(()) => return vec![Fact::CodeCancelled],
            Err(error) => error,
        };
        let call = record_smdp_failure(&error);
        if !error.is(IN_USE.0, IN_USE.1) {
            return vec![match error {
                Es2PlusError::Rejected { .. } => refused(false),
                Es2PlusError::Transient(_) => Fact::TryFailed(Some(call)),
            }];
        }
        if !self.smdp_has_status {
            return vec![refused(false)];
        }
        match self.profile_status(a).await {
            Ok(Some(status)) => match status.state {
                ReportedState::Available | ReportedState::Ordered => vec![Fact::CodeCancelled],
                ReportedState::Released | ReportedState::Failed => vec![Fact::TryFailed(Some(call))],
                ReportedState::Unknown => vec![refused(false)],
                _ => {
                    let mut facts = self.status_facts(a, Some(&status));
                    facts.push(refused(true));
                    facts
                }
            },
            Ok(None) => vec![refused(false)],
            Err(error) => vec![Fact::TryFailed(Some(record_smdp_failure(&error)))],
        }
    }

    /// Orders and confirms the profile with the new activation code. The old order is certainly cancelled, so a profile
    /// in use is in use by this renewal.
    async fn order_new_code(&self, swap: &StoredSwap) -> Result<Fact, StoreError> {
        let a = &swap.activation;
        let (matching_id, code) = self.store.renewed_secrets(swap).await?;
        let repeated = a.tries > 0 || a.profile_unknown_until.is_some();
        match self.smdp.download_order(&a.new_sim, &renewal_call(a, "download")).await {
            Err(error) if !error.is(IN_USE.0, IN_USE.1) => return Ok(failed_renewal_fact(error)),
            _ => {}
        }
        let confirmed = self
            .smdp
            .confirm_order(&a.new_sim, &matching_id, code.as_ref(), &renewal_call(a, "confirm"))
            .await;
        let now = self.clock.now();
        Ok(match confirmed {
            Ok(confirmed) => Fact::Renewed {
                smdp: confirmed.smdp,
                dated: confirmed.date.unwrap_or(now),
            },
            Err(error)
                if repeated
                    && (error.is(IN_USE.0, IN_USE.1) || error.is(MATCHING_ID_IN_USE.0, MATCHING_ID_IN_USE.1)) =>
            {
                Fact::Renewed {
                    smdp: None,
                    dated: error.date().unwrap_or(now),
                }
            }
            Err(error) => failed_renewal_fact(error),
        })
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
        // The ICCID is enough to cancel. A matching id that cannot be decrypted must not block the line for ever, and
        // after a renewal that was interrupted we do not know which one the SM-DP+ has.
        let matching_id = match self.store.matching_id(swap).await {
            Ok(_) if !a.renewals.is_empty() => None,
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
            // An earlier call may have placed one that the search does not show yet, or may still place it.
            OrderLookup::NotListed if a.network_unknown_until > Some(at) => return Ok(Vec::new()),
            // Placing a card's order again would move the number.
            OrderLookup::NotListed if a.kind == SwapKind::Physical || a.missing_since.is_some() => {
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

/// Whether a phone has the profile.
fn is_on_phone(status: &ProfileStatus) -> bool {
    matches!(
        status.state,
        ReportedState::Downloaded | ReportedState::Installed | ReportedState::Enabled | ReportedState::Disabled
    )
}

/// The `functionCallIdentifier` of a call for the current renewal: the SM-DP+ must not take it for the same call of an
/// earlier one.
fn renewal_call(a: &Activation, step: &str) -> String {
    format!("{}-r{}-{step}", a.id, a.renewals.len())
}

/// The fact that follows when the profile cannot be ordered with its new activation code.
fn failed_renewal_fact(error: Es2PlusError) -> Fact {
    let call = record_smdp_failure(&error);
    match error {
        Es2PlusError::Rejected { .. } => Fact::RenewalRefused { on_phone: false },
        Es2PlusError::Transient(_) => Fact::TryFailed(Some(call)),
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

/// Does the same for a failed lookup, which leaves no doubt about the order.
fn record_lookup_failure(error: &OrderingError) -> FailedCall {
    FailedCall {
        doubtful: false,
        ..record_network_failure(error)
    }
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
