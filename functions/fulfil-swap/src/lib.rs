//! Advances swaps: reads a swap's row, gets the next step from `domain`, carries it out and writes the outcome. No
//! other function calls the SM-DP+ and the network. Not here: the calls themselves (`call.rs`) and their credentials
//! (`clients.rs`).

mod call;
mod clients;

use std::pin::pin;
use std::time::Duration;

use aws_lambda_events::event::dynamodb::Event;
use aws_lambda_events::streams::DynamoDbEventResponse;
use domain::{
    Activation, ActivationId, Claim, Deadlines, Fact, FailureCode, PeerCall, Phase, SmDpAddress, Step, apply,
    mail_of_change, next, tells_of_end,
};
use edge::{ClockAndRng, Metric, SettingError, Settings, for_each_row, log_cause, record_activation};
use lambda_runtime::LambdaEvent;
use peers::{Es2Plus, ServiceOrdering};
use store::{ChangedRow, Saved, Store, StoreError, StoredSwap};
use tokio::time::{Instant, timeout};

pub use crate::clients::{CredentialError, Peers};

/// The handler with its clients and settings. Built once per process.
#[derive(Debug)]
pub struct FulfilSwap {
    store: Store,
    smdp: Es2Plus,
    /// The address at which phones find profiles, unless the SM-DP+ names another one.
    smdp_address: SmDpAddress,
    /// Whether the SM-DP+ can be asked for the state of a profile.
    smdp_has_status: bool,
    network: ServiceOrdering,
    clock: ClockAndRng,
    deadlines: Deadlines,
}

/// Steps of one swap in one invocation at most. A swap takes fewer; the bound stops a defect that would loop for ever.
const STEPS: usize = 20;

/// How long the calls of one claim may take: enough for four calls that each get a response at the last moment.
const CALLS_WITHIN: Duration = Duration::from_secs(125);

impl FulfilSwap {
    /// Reads `SMDP_URL`, `SMDP_ADDRESS`, `SMDP_REQUESTER_ID`, `SMDP_STATUS`, `NETWORK_URL` and the deadlines.
    pub fn new(store: Store, peers: Peers, clock: ClockAndRng, settings: &Settings) -> Result<Self, SettingError> {
        let requester = settings.text("SMDP_REQUESTER_ID")?;
        Ok(Self {
            store,
            smdp: Es2Plus::new(peers.smdp, &settings.text("SMDP_URL")?, &requester),
            smdp_address: settings.parsed("SMDP_ADDRESS", SmDpAddress::parse)?,
            smdp_has_status: settings.smdp_has_status()?,
            network: ServiceOrdering::new(peers.network, &settings.text("NETWORK_URL")?),
            clock,
            deadlines: settings.deadlines()?,
        })
    }

    /// Advances every swap of the batch as far as possible.
    pub async fn handle(&self, event: LambdaEvent<Event>) -> DynamoDbEventResponse {
        for_each_row(event, async |pk, sk| match ChangedRow::from_keys(&pk, &sk) {
            ChangedRow::Swap(id) => self.advance(&id).await,
            _ => Ok(()),
        })
        .await
    }

    async fn advance(&self, id: &ActivationId) -> Result<(), StoreError> {
        record_activation(id);
        // The row as the previous step wrote it, so that it need not be read again.
        let mut written = None;
        for _ in 0..STEPS {
            let read = match written.take() {
                Some(swap) => Some(swap),
                None => self.store.swap(id).await?,
            };
            let Some(swap) = read else {
                tracing::warn!("no swap has this id");
                return Ok(());
            };
            let now = self.clock.now();
            let step = next(&swap.activation, &self.deadlines, now);
            if matches!(step, Step::Call(_)) && swap.activation.is_stuck(now) {
                tracing::error!(?step, "a swap has waited for a peer for over an hour");
                Metric::SwapStuck.record();
            }
            written = match step {
                Step::Nothing => return Ok(()),
                Step::WaitUntil(_) => {
                    self.save(&swap, &[Fact::Postponed]).await?;
                    return Ok(());
                }
                Step::Remind => self.remind(swap).await?,
                Step::GiveUp(failure) => self.save(&swap, &[Fact::GivenUp(failure)]).await?.row(),
                Step::Finish => self.finish(swap).await?,
                Step::Erase => {
                    self.erase(&swap).await?;
                    None
                }
                Step::Anonymise => {
                    self.anonymise(swap).await?;
                    None
                }
                Step::Call(call) => self.claim_and_call(&swap, call).await?,
            };
        }
        tracing::error!("a swap took too many steps in one invocation");
        Ok(())
    }

    /// Claims a swap, makes the calls and writes their facts. Nothing is called without a written claim.
    /// Returns the row as written; `None` if the swap was not claimed or the facts change nothing.
    async fn claim_and_call(&self, swap: &StoredSwap, call: PeerCall) -> Result<Option<StoredSwap>, StoreError> {
        let claim = Claim {
            token: self.clock.token(),
            until: self.clock.now() + self.deadlines.lease,
        };
        let claimed = Fact::Claimed(claim.clone());
        let Some(claimed) = self.save(swap, &[claimed]).await?.row() else {
            return Ok(None);
        };
        // Ordering needs the row from before the claim, whose phase tells whether an earlier claim may have ordered.
        // The other calls need the claimed row, which records the unknown outcome of a claim that expired.
        let calls = async {
            match call {
                PeerCall::Order => self.order(swap).await,
                PeerCall::Start => Ok(self.start(&claimed).await),
                PeerCall::Poll if swap.activation.may_start() => Ok(self.start(&claimed).await),
                PeerCall::Poll => Ok(self.poll(&claimed).await),
                PeerCall::Request => self.carry_out_request(&claimed).await,
                PeerCall::Cancel => self.cancel(&claimed).await,
            }
        };
        let row = claimed.clone();
        let (mut current, result) = self.call_within_claim(row, &claim, calls).await;
        let mut facts = result.unwrap_or_else(|error| {
            log_cause("not all calls for a swap were made", &error);
            vec![Fact::TryFailed(None)]
        });
        loop {
            let held = current.activation.claim.as_ref();
            if held.is_none_or(|held| held.token != claim.token) {
                // Our claim has ended or expired, and the next claim gathers its own facts. Only an order that was
                // placed must still be recorded.
                facts.retain(|fact| matches!(fact, Fact::Ordered { .. }));
            }
            match self.save(&current, &facts).await? {
                SaveResult::Saved(row) => return Ok(Some(*row)),
                SaveResult::Unchanged => return Ok(None),
                SaveResult::Conflict => {}
            }
            let Some(changed) = self.store.swap(&swap.activation.id).await? else {
                return Ok(None);
            };
            current = changed;
        }
    }

    /// Makes calls and renews the claim while they run: slow responses still count, and a process that dies is noticed
    /// within one lease. Returns the latest row and the result of the calls.
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
            // A call that outlives the claim could reach a peer after the swap has ended. Without a renewal, a fifth of
            // the lease is therefore left for the last call to be carried out and its outcome to be written.
            let wait = if renewed { lease / 2 } else { lease * 3 / 10 };
            if let Ok(result) = timeout(wait, &mut calls).await {
                return (row, result);
            }
            if !renewed {
                break;
            }
            renewed = self.renew(&mut row, claim).await;
        }
        (row, Ok(vec![Fact::Interrupted]))
    }

    /// Renews the claim for another lease and updates `row`. Returns `false` if the claim is no longer ours or cannot
    /// be renewed.
    async fn renew(&self, row: &mut StoredSwap, claim: &Claim) -> bool {
        loop {
            let renewed = Fact::Claimed(Claim {
                token: claim.token.clone(),
                until: self.clock.now() + self.deadlines.lease,
            });
            let ours = row.activation.claim.as_ref();
            if ours.is_none_or(|ours| ours.token != claim.token) {
                return false;
            }
            let read = match self.save(row, &[renewed]).await {
                Ok(SaveResult::Saved(saved)) => {
                    *row = *saved;
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
                    log_cause("renewing a claim failed", &error);
                    return false;
                }
            }
        }
    }

    /// Writes the reminder of a mail whose activation code expires soon.
    async fn remind(&self, mut swap: StoredSwap) -> Result<Option<StoredSwap>, StoreError> {
        let last = self.store.delivery(&swap.activation.id, swap.activation.mails).await?;
        swap.deliveries.extend(last);
        Ok(self.save(&swap, &[Fact::Reminded]).await?.row())
    }

    /// Applies facts to a swap and writes it, together with the mail that they bring. A reminder needs the last mail.
    async fn save(&self, before: &StoredSwap, facts: &[Fact]) -> Result<SaveResult, StoreError> {
        let at = self.clock.now();
        let mut after = before.activation.clone();
        for fact in facts {
            match apply(&after, fact, &self.deadlines, at) {
                Ok(next) => after = next,
                Err(rejected) => {
                    tracing::debug!(%rejected, "a fact does not apply")
                }
            }
        }
        if after.version == before.activation.version {
            return Ok(SaveResult::Unchanged);
        }
        let saved = match mail_of_change(&before.activation, &after, &before.deliveries, self.deadlines.lease, at) {
            Some(mail) => self.store.save_with_mail(before, &after, &mail).await?,
            None => self.store.save(before, &after).await?,
        };
        if saved == Saved::Written && before.activation.phase != after.phase {
            tracing::info!(phase = after.phase.as_str(), "swap advanced");
        }
        Ok(SaveResult::of(saved, before, after))
    }

    /// Erases the secrets of a swap that has ended.
    async fn erase(&self, swap: &StoredSwap) -> Result<(), StoreError> {
        let at = self.clock.now();
        if let Ok(after) = apply(&swap.activation, &Fact::Erased, &self.deadlines, at)
            && self.store.save_erased(swap, &after).await? == Saved::Written
        {
            tracing::info!("swap secrets erased");
        }
        Ok(())
    }

    /// Removes whatever identifies a person from a swap and its mails.
    async fn anonymise(&self, swap: StoredSwap) -> Result<(), StoreError> {
        let at = self.clock.now();
        let Ok(after) = apply(&swap.activation, &Fact::Anonymised, &self.deadlines, at) else {
            return Ok(());
        };
        let swap = self.with_mails(swap).await?;
        if self.store.save_anonymous(&swap, &after).await? == Saved::Written {
            tracing::info!("swap anonymised");
        }
        Ok(())
    }

    /// The swap with all its mails.
    async fn with_mails(&self, mut swap: StoredSwap) -> Result<StoredSwap, StoreError> {
        for number in 1..=swap.activation.mails {
            let mail = self.store.delivery(&swap.activation.id, number).await?;
            swap.deliveries.extend(mail);
        }
        Ok(swap)
    }

    /// Writes the end of a swap, with its line and SIMs, and with the mail that tells the customer of a failure.
    async fn finish(&self, swap: StoredSwap) -> Result<Option<StoredSwap>, StoreError> {
        let at = self.clock.now();
        let swap = &match swap.activation.phase {
            Phase::Ending => self.with_mails(swap).await?,
            _ => swap,
        };
        let tell = tells_of_end(&swap.activation, &swap.deliveries, at);
        let Ok(after) = apply(&swap.activation, &Fact::Finished { tell }, &self.deadlines, at) else {
            return self.dispute(swap).await;
        };
        let saved = match (after.phase, swap.activation.phase) {
            (Phase::Done, Phase::Error) => self.store.finish_late(swap, &after).await?,
            (Phase::Done, _) => self.store.finish_done(swap, &after).await?,
            _ => {
                let sim = self.store.sim(&after.new_sim).await?;
                let sim = sim.ok_or(StoreError::Corrupt("newSim"))?;
                let line = match after.codes_shown {
                    true => self.store.line(&after.subscription).await?,
                    false => None,
                };
                let keeps_another = line.is_some_and(|line| line.line.kept_sim(after.kind).is_some());
                let fate = after.fate_of_new_sim(sim.codes_shown, keeps_another, &self.deadlines, at);
                let mail = mail_of_change(&swap.activation, &after, &swap.deliveries, self.deadlines.lease, at);
                self.store.finish_error(swap, &after, &sim, fate, mail.as_ref()).await?
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
                        tracing::error!("gave up a swap that a peer did not settle");
                    }
                    Metric::SwapFailed(failure)
                }
            }
            .record();
        }
        Ok(SaveResult::of(saved, swap, after).row())
    }

    /// Records that the network moved the number after the swap had ended, although the line or the SIMs have changed
    /// since. An operator has to resolve the conflict.
    async fn dispute(&self, swap: &StoredSwap) -> Result<Option<StoredSwap>, StoreError> {
        let at = self.clock.now();
        let Ok(after) = apply(&swap.activation, &Fact::Disputed, &self.deadlines, at) else {
            return Ok(None);
        };
        let saved = self.store.save_disputed(swap, &after).await?;
        if saved == Saved::Written {
            tracing::error!("the network moved the number of a swap that had ended");
            Metric::SwapDisputed.record();
        }
        Ok(SaveResult::of(saved, swap, after).row())
    }
}

/// The result of writing a swap's row.
enum SaveResult {
    /// The row as written.
    Saved(Box<StoredSwap>),
    /// Another writer changed the row first. It has to be read again.
    Conflict,
    /// No fact changes the swap.
    Unchanged,
}

impl SaveResult {
    fn of(saved: Saved, before: &StoredSwap, after: Activation) -> Self {
        match saved {
            Saved::Stale | Saved::Contradicted => Self::Conflict,
            Saved::Written => Self::Saved(Box::new(before.advanced(after))),
        }
    }

    fn row(self) -> Option<StoredSwap> {
        match self {
            Self::Saved(row) => Some(*row),
            Self::Conflict | Self::Unchanged => None,
        }
    }
}
