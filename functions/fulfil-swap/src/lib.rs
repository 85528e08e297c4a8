//! Takes a swap further: reads its row, asks the domain what is next, does it, writes the outcome. The only one that calls
//! the SM-DP+ and the network.

mod call;
mod clients;

use std::pin::pin;
use std::time::Duration;

use aws_lambda_events::event::dynamodb::Event;
use aws_lambda_events::streams::DynamoDbEventResponse;
use domain::{
    Activation, ActivationId, Claim, Deadlines, Delivery, Fact, FailureCode, Phase, ProfileState, SimFate, SmDpAddress,
    Step, SwapKind, apply, next,
};
use edge::{ClockAndRng, Metric, SettingError, Settings, for_each_row, log_cause, record_activation};
use lambda_runtime::LambdaEvent;
use peers::{Es2Plus, ServiceOrdering};
use store::{ChangedRow, Saved, Store, StoreError, StoredSwap};
use tokio::time::{Instant, timeout};

pub use crate::clients::{CredentialError, Peers};

/// The function with all it needs, built once a process.
#[derive(Debug)]
pub struct FulfilSwap {
    store: Store,
    smdp: Es2Plus,
    /// Where phones find profiles, unless the SM-DP+ names another place.
    smdp_address: SmDpAddress,
    network: ServiceOrdering,
    ambient: ClockAndRng,
    deadlines: Deadlines,
}

/// Steps of one swap in one invocation at most. A swap has fewer; the bound is against a defect that would spin.
const STEPS: usize = 20;

/// How long the calls of one claim may take: four that are answered at the last moment.
const CALLS_WITHIN: Duration = Duration::from_secs(125);

impl FulfilSwap {
    /// Reads `SMDP_URL`, `SMDP_ADDRESS`, `SMDP_REQUESTER_ID`, `NETWORK_URL` and the deadlines.
    pub fn new(store: Store, peers: Peers, ambient: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        let requester = settings.text("SMDP_REQUESTER_ID")?;
        Ok(Self {
            store,
            smdp: Es2Plus::new(peers.smdp, &settings.text("SMDP_URL")?, &requester),
            smdp_address: settings.parsed("SMDP_ADDRESS", SmDpAddress::parse)?,
            network: ServiceOrdering::new(peers.network, &settings.text("NETWORK_URL")?),
            ambient,
            deadlines: settings.deadlines()?,
        })
    }

    /// Takes every swap of the batch as far as it goes now.
    pub async fn handle(&self, event: LambdaEvent<Event>) -> DynamoDbEventResponse {
        for_each_row(event, async |pk, sk| match ChangedRow::from_keys(&pk, &sk) {
            ChangedRow::Swap(id) => self.advance(&id).await,
            _ => Ok(()),
        })
        .await
    }

    async fn advance(&self, id: &ActivationId) -> Result<(), StoreError> {
        record_activation(id);
        // The row as we wrote it: nobody has to read what he wrote himself.
        let mut written = None;
        for _ in 0..STEPS {
            let read = match written.take() {
                Some(swap) => Some(swap),
                None => self.store.swap(id).await?,
            };
            let Some(swap) = read else {
                tracing::warn!("there is no such swap");
                return Ok(());
            };
            let now = self.ambient.now();
            let step = next(&swap.activation, &self.deadlines, now);
            if step.calls_out() && swap.activation.is_stuck(now) {
                tracing::error!(?step, "a swap waits for a peer for over an hour");
                Metric::SwapStuck.record();
            }
            written = match step {
                Step::Rest => return Ok(()),
                Step::WaitUntil(_) => {
                    self.save(&swap, &[Fact::Postponed]).await?;
                    return Ok(());
                }
                Step::GiveUp(failure) => self.save(&swap, &[Fact::GivenUp(failure)]).await?.row(),
                Step::Finish => self.finish(&swap).await?,
                Step::Erase => {
                    self.erase(&swap).await?;
                    None
                }
                Step::Anonymise => {
                    self.anonymise(swap).await?;
                    None
                }
                Step::Order | Step::Start | Step::Ask | Step::Cancel => self.claim_and_call(&swap, step).await?,
            };
        }
        tracing::error!("a swap took too many steps at once");
        Ok(())
    }

    /// Nobody calls out without a claim that is written. Whoever does not get it has nothing to do. Gives the row with
    /// what came of the calls.
    async fn claim_and_call(&self, swap: &StoredSwap, step: Step) -> Result<Option<StoredSwap>, StoreError> {
        let claim = Claim {
            token: self.ambient.token(),
            until: self.ambient.now() + self.deadlines.lease,
        };
        let claimed = Fact::Claimed(claim.clone());
        let Some(claimed) = self.save(swap, &[claimed]).await?.row() else {
            return Ok(None);
        };
        // What ends is looked at as it is with the claim: one that lapsed may have ordered, and is in doubt from then on.
        let calls = async {
            match step {
                Step::Order => self.order(swap).await,
                Step::Start => Ok(self.start(&claimed).await),
                Step::Ask if swap.activation.profile == Some(ProfileState::Installed) => Ok(self.start(&claimed).await),
                Step::Ask => Ok(self.ask(&claimed).await),
                _ => self.cancel(&claimed).await,
            }
        };
        let row = claimed.clone();
        let (mut now, called) = self.call_within_claim(row, &claim, calls).await;
        let mut facts = called.unwrap_or_else(|error| {
            log_cause("a swap's calls out were not all made", &error);
            vec![Fact::TryFailed(None)]
        });
        loop {
            let held = now.activation.claim.as_ref();
            if held.is_none_or(|held| held.token != claim.token) {
                // A fact ended the claim, or it lapsed: what to make of our tries is another's now, but an order that
                // stands has to be known.
                facts.retain(|fact| matches!(fact, Fact::Ordered { .. }));
            }
            match self.save(&now, &facts).await? {
                SaveResult::Saved(row) => return Ok(Some(*row)),
                SaveResult::Unchanged => return Ok(None),
                SaveResult::Conflict => {}
            }
            let Some(changed) = self.store.swap(&swap.activation.id).await? else {
                return Ok(None);
            };
            now = changed;
        }
    }

    /// Makes calls, renewing the claim while they last: a slow answer counts, and a process that dies is noticed within a
    /// lease. Gives the row as it is then.
    async fn call_within_claim(
        &self,
        mut row: StoredSwap,
        claim: &Claim,
        calls: impl Future<Output = Result<Vec<Fact>, StoreError>>,
    ) -> (StoredSwap, Result<Vec<Fact>, StoreError>) {
        let lease = Duration::try_from(self.deadlines.lease).unwrap_or(Duration::ZERO);
        let end = Instant::now() + CALLS_WITHIN;
        let mut calls = pin!(calls);
        let mut renewed = true;
        while Instant::now() < end {
            // A call that outlived the claim could reach a peer when the swap has ended: a fifth of the lease is left for
            // the last one to be carried out, and for its outcome to be written.
            let wait = if renewed { lease / 2 } else { lease * 3 / 10 };
            if let Ok(called) = timeout(wait, &mut calls).await {
                return (row, called);
            }
            if !renewed {
                break;
            }
            renewed = self.renew(&mut row, claim).await;
        }
        (row, Ok(vec![Fact::CutOff]))
    }

    /// Whether the claim is still ours, and holds for another lease. `row` becomes what it is now.
    async fn renew(&self, row: &mut StoredSwap, claim: &Claim) -> bool {
        loop {
            let renewed = Fact::Claimed(Claim {
                token: claim.token.clone(),
                until: self.ambient.now() + self.deadlines.lease,
            });
            let ours = row.activation.claim.as_ref();
            if ours.is_none_or(|ours| ours.token != claim.token) {
                return false;
            }
            let read = match self.save(row, &[renewed]).await {
                Ok(SaveResult::Saved(written)) => {
                    *row = *written;
                    return true;
                }
                Ok(SaveResult::Unchanged) => return false,
                Ok(SaveResult::Conflict) => self.store.swap(&row.activation.id).await,
                Err(error) => Err(error),
            };
            match read {
                Ok(Some(changed)) => *row = changed,
                Ok(None) => return false,
                Err(error) => {
                    log_cause("a claim is not renewed", &error);
                    return false;
                }
            }
        }
    }

    /// Writes what the facts make of a swap.
    async fn save(&self, before: &StoredSwap, facts: &[Fact]) -> Result<SaveResult, StoreError> {
        let at = self.ambient.now();
        let mut after = before.activation.clone();
        for fact in facts {
            match apply(&after, fact, &self.deadlines, at) {
                Ok(next) => after = next,
                Err(refused) => {
                    tracing::debug!(%refused, "a fact changes nothing")
                }
            }
        }
        if after.version == before.activation.version {
            return Ok(SaveResult::Unchanged);
        }
        let newly_ordered =
            before.activation.phase == Phase::Ordering && matches!(after.phase, Phase::Ordered | Phase::Started);
        let saved = match after.mail_to() {
            Some(email) if newly_ordered && after.kind == SwapKind::Esim => {
                let lease = self.deadlines.lease;
                let mail = Delivery::new(&after, after.mails, email.clone(), lease, at);
                self.store.save_with_mail(before, &after, &mail).await?
            }
            _ => self.store.save(before, &after).await?,
        };
        if saved == Saved::Written && before.activation.phase != after.phase {
            tracing::info!(phase = after.phase.as_str(), "swap moved");
        }
        Ok(SaveResult::of(saved, before, after))
    }

    async fn erase(&self, swap: &StoredSwap) -> Result<(), StoreError> {
        let at = self.ambient.now();
        if let Ok(after) = apply(&swap.activation, &Fact::Erased, &self.deadlines, at)
            && self.store.save_erased(swap, &after).await? == Saved::Written
        {
            tracing::info!("a swap's secrets are erased");
        }
        Ok(())
    }

    /// Its mails name a person too.
    async fn anonymise(&self, mut swap: StoredSwap) -> Result<(), StoreError> {
        let at = self.ambient.now();
        let Ok(after) = apply(&swap.activation, &Fact::Anonymised, &self.deadlines, at) else {
            return Ok(());
        };
        for number in 1..=swap.activation.mails {
            let mail = self.store.delivery(&swap.activation.id, number).await?;
            swap.deliveries.extend(mail);
        }
        if self.store.save_anonymous(&swap, &after).await? == Saved::Written {
            tracing::info!("a swap's record names nobody any more");
        }
        Ok(())
    }

    async fn finish(&self, swap: &StoredSwap) -> Result<Option<StoredSwap>, StoreError> {
        let at = self.ambient.now();
        let Ok(after) = apply(&swap.activation, &Fact::Finished, &self.deadlines, at) else {
            return self.dispute(swap).await;
        };
        let saved = match (after.phase, swap.activation.phase) {
            (Phase::Done, Phase::Error) => self.store.finish_late(swap, &after).await?,
            (Phase::Done, _) => self.store.finish_done(swap, &after).await?,
            _ => {
                let sim = self.store.sim(&after.new_sim).await?;
                let sim = sim.ok_or(StoreError::Corrupt("newSim"))?;
                let mut fate = after.fate_of_new_sim(&self.deadlines, at);
                // A line keeps one SIM of a kind: whoever swaps and cancels in turn does not empty the stock into it.
                if let SimFate::KeptFrom(_) = fate {
                    let line = self.store.line(&after.subscription).await?;
                    if line.is_some_and(|line| line.line.kept(after.kind).is_some()) {
                        fate = SimFate::Disabled;
                    }
                }
                self.store.finish_error(swap, &after, &sim, fate).await?
            }
        };
        if saved == Saved::Contradicted {
            return self.dispute(swap).await;
        }
        if saved == Saved::Written {
            tracing::info!(phase = after.phase.as_str(), "swap ended");
            match after.failure {
                None => Metric::SwapDone(at.duration_since(after.created_at)),
                Some(failure) => {
                    if failure == FailureCode::Unsettled {
                        tracing::error!("a swap is given up that a peer did not settle");
                    }
                    Metric::SwapFailed(failure)
                }
            }
            .record();
        }
        Ok(SaveResult::of(saved, swap, after).row())
    }

    /// The network moved the number after the swap had ended, and line or SIMs are not what they were: people have to look.
    async fn dispute(&self, swap: &StoredSwap) -> Result<Option<StoredSwap>, StoreError> {
        let at = self.ambient.now();
        let Ok(after) = apply(&swap.activation, &Fact::Disputed, &self.deadlines, at) else {
            return Ok(None);
        };
        let saved = self.store.save_disputed(swap, &after).await?;
        if saved == Saved::Written {
            tracing::error!("the network has moved the number of a swap that had ended");
            Metric::SwapDisputed.record();
        }
        Ok(SaveResult::of(saved, swap, after).row())
    }
}

/// What became of a swap's row.
enum SaveResult {
    /// As we wrote it.
    Saved(Box<StoredSwap>),
    /// Somebody moved it first: it is to be read again.
    Conflict,
    /// The facts change nothing.
    Unchanged,
}

impl SaveResult {
    fn of(saved: Saved, before: &StoredSwap, after: Activation) -> Self {
        match saved {
            Saved::Stale | Saved::Contradicted => Self::Conflict,
            Saved::Written => Self::Saved(Box::new(StoredSwap {
                activation: after,
                ..before.clone()
            })),
        }
    }

    fn row(self) -> Option<StoredSwap> {
        match self {
            Self::Saved(row) => Some(*row),
            Self::Conflict | Self::Unchanged => None,
        }
    }
}
