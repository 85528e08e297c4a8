//! Begins a swap for whichever dialect asked it: makes the record, seals its secrets, and finds a SIM that can be had.

use domain::{Activation, ActivationId, Caller, ConfirmationCode, Iccid, Line, MatchingId, Requested, SwapKind};
use jiff::{SignedDuration, Timestamp};

use crate::{
    IdempotencyKey, IdempotencyRecord, NewSwap, Store, StoreError, StoredLine, StoredSwap, Submitted, caller_digest,
};

/// A swap that is asked and that nothing stands in the way of.
pub struct SwapRequest<'a> {
    /// Who asks.
    pub caller: &'a Caller,
    /// Of which line, as it was read.
    pub line: &'a Line,
    /// What the line is to move to.
    pub kind: SwapKind,
    /// The SIM, where the caller named it; else a free one is taken, the one that is kept for the line before all others.
    pub sim: Option<&'a Iccid>,
    /// Whether the caller is shown the SIM's PINs and PUKs.
    pub shows_codes: bool,
    /// What is echoed.
    pub requested: &'a Requested,
    /// The confirmation code, if there is one.
    pub code: Option<&'a ConfirmationCode>,
    /// The request in one text that no other request has.
    pub request: &'a str,
    /// The caller's key for it.
    pub key: Option<&'a IdempotencyKey>,
    /// How long the stream has for it before the sweeper looks.
    pub lease: SignedDuration,
    /// When it was asked.
    pub at: Timestamp,
}

/// What became of it. All but `Accepted` wrote nothing.
pub enum Begun {
    /// It stands.
    Accepted(Box<Activation>),
    /// The idempotency key was used in the meantime.
    Replayed(IdempotencyRecord),
    /// The line is not as it was read; this is how it is now, unless it is gone.
    LineChanged(Option<Box<StoredLine>>),
    /// There is no such SIM for this line, or none is left.
    NoSim,
}

impl Store {
    /// Begins a swap. A SIM that nobody named and that is not kept for the line comes from a page of free ones, tried from a
    /// random place on, so that callers who come at once do not fight for the first; if all of it is taken by then, a further
    /// look goes past it.
    pub async fn begin(&self, ask: &SwapRequest<'_>, random: impl Fn() -> u128) -> Result<Begun, StoreError> {
        const LOOKS: usize = 2;
        let id = ActivationId::from_random(ask.at, random());
        let matching_id = (ask.kind == SwapKind::Esim).then(|| MatchingId::from_random(random()));
        let request = match ask.code {
            Some(_) => self.signed_fingerprint(ask.request).await?,
            None => self.fingerprint(ask.request),
        };
        let secrets = self.seal_secrets(&id, ask.code, matching_id.as_ref()).await?;
        let kept = ask.line.kept(ask.kind);
        let ready = kept.filter(|kept| kept.from <= ask.at);
        let mut taken = Vec::new();
        for look in 0..=LOOKS {
            let mut candidates = match (look, ask.sim) {
                (0, named) => {
                    let first = named.or(ready.map(|kept| &kept.iccid));
                    first.cloned().into_iter().collect()
                }
                (_, Some(_)) => break,
                (look, None) => {
                    let free = self.free_sims(ask.line, ask.kind, ask.at, look - 1);
                    free.await?
                }
            };
            candidates.retain(|candidate| !taken.contains(candidate));
            if !candidates.is_empty() {
                let start = random() % candidates.len() as u128;
                candidates.rotate_left(start as usize);
            }
            for candidate in candidates {
                let takes_kept = kept.is_some_and(|kept| kept.iccid == candidate);
                let activation = Activation::accept(
                    id.clone(),
                    ask.line,
                    ask.kind,
                    candidate.clone(),
                    ask.requested.clone(),
                    &ask.caller.named(),
                    ask.lease,
                    ask.at,
                );
                let stored = StoredSwap {
                    activation: Activation {
                        codes_shown: takes_kept || ask.shows_codes,
                        ..activation
                    },
                    caller: caller_digest(ask.caller),
                    secrets: secrets.clone(),
                    deliveries: Vec::new(),
                };
                let new = NewSwap {
                    swap: &stored,
                    request: &request,
                    key: ask.key,
                    takes_kept,
                };
                match self.submit(new).await? {
                    Submitted::Accepted => return Ok(Begun::Accepted(Box::new(stored.activation))),
                    Submitted::Replayed(kept) => return Ok(Begun::Replayed(kept)),
                    Submitted::LineChanged(line) => return Ok(Begun::LineChanged(line)),
                    Submitted::SimTaken => taken.push(candidate),
                }
            }
        }
        Ok(Begun::NoSim)
    }
}
