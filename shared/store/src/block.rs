//! Changes the attributes of a line that operators may change. If the line can no longer be swapped afterwards, its
//! open swap is stopped in the same transaction.

use aws_sdk_dynamodb::types::builders::UpdateBuilder;
use std::collections::HashMap;

use aws_sdk_dynamodb::types::{AttributeValue, TransactWriteItem};
use domain::{ActivationId, Deadlines, Fact, FailureCode, Line, SwapKind, apply};
use jiff::Timestamp;

use crate::attributes::text;
use crate::transaction::{put, update};
use crate::{Store, StoreError, keys, rows};

/// What [`Store::update_line`] did to the line's open swap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum OpenSwap {
    /// Nothing: the line has no open swap, or it can be swapped.
    Undisturbed,
    /// The swap is stopped; the line keeps its SIM.
    Stopped(ActivationId),
    /// The swap continues: it is ending already, or a call that lets the network move the number may have been made.
    GoesOn(ActivationId),
}

impl Store {
    /// Writes the state, porting, e-mail address and language of an existing line, and the lock unless `locked` is
    /// `None`. Two calls, or three if the line has an open swap and cannot be swapped.
    pub async fn update_line(
        &self,
        line: &Line,
        locked: Option<bool>,
        deadlines: &Deadlines,
        now: impl Fn() -> Timestamp,
    ) -> Result<OpenSwap, StoreError> {
        loop {
            let before = self.line(&line.id).await?;
            let before = before.ok_or(StoreError::Corrupt("line"))?.line;
            let after = Line {
                state: line.state,
                porting: line.porting,
                locked: locked.unwrap_or(before.locked),
                email: line.email.clone(),
                language: line.language,
                ..before.clone()
            };
            if let Some(open) = self.replace_line(&before, &after, Vec::new(), deadlines, &now).await? {
                return Ok(open);
            }
        }
    }

    /// Writes a line in place of the one that was read, together with `others`. If the line can no longer be swapped,
    /// its open swap is stopped. Returns `None`, and writes nothing, if the line or the swap has changed since it was
    /// read, or if the condition of one of the others fails.
    pub(crate) async fn replace_line(
        &self,
        before: &Line,
        after: &Line,
        others: Vec<TransactWriteItem>,
        deadlines: &Deadlines,
        now: &impl Fn() -> Timestamp,
    ) -> Result<Option<OpenSwap>, StoreError> {
        let mut writes = vec![update(self.set_line(before, after))?];
        writes.extend(others);
        let (Some(bar), Some(open)) = (after.line_blocker(), &after.open_swap) else {
            let written = self.transact(writes).await?.is_none();
            return Ok(written.then_some(OpenSwap::Undisturbed));
        };
        let swap = self.swap(open).await?;
        let swap = swap.ok_or(StoreError::Corrupt("swap"))?;
        let blocked = Fact::LineBlocked(bar);
        let stopped = apply(&swap.activation, &blocked, deadlines, now()).ok();
        if let Some(stopped) = &stopped {
            let row = self.next_row(&swap, stopped);
            writes.push(put(self.put_next_version(row, swap.activation.version))?);
        }
        if self.transact(writes).await?.is_some() {
            return Ok(None);
        }
        let open = open.clone();
        // The swap as it is stored may be stopped already, by an earlier attempt of the SDK.
        let swap = stopped.unwrap_or(swap.activation);
        Ok(Some(if swap.failure == Some(FailureCode::Stopped) {
            OpenSwap::Stopped(open)
        } else {
            OpenSwap::GoesOn(open)
        }))
    }

    /// Writes every attribute that an operator may change, on the condition that none of them has changed since the line
    /// was read, nor its SIMs and its open swap. What concerns the previous owner is removed when the owner changes.
    fn set_line(&self, before: &Line, after: &Line) -> UpdateBuilder {
        let is = rows::from_line(after);
        let Unchanged {
            condition,
            names,
            mut values,
        } = unchanged(before);
        let (mut set, mut remove) = (Vec::new(), Vec::new());
        for name in WRITTEN {
            match is.get(name) {
                Some(value) => {
                    set.push(format!("#{name} = :{name}"));
                    values.insert(format!(":{name}"), value.clone());
                }
                None => remove.push(format!("#{name}")),
            }
        }
        for kind in [SwapKind::Esim, SwapKind::Physical] {
            if before.kept_sim(kind).is_some() && after.kept_sim(kind).is_none() {
                remove.extend(rows::kept_sim_attributes(kind).map(str::to_owned));
            }
        }
        if before.customer != after.customer || before.reseller != after.reseller {
            // A repeat of the last swap's request would show its SIM's codes.
            remove.extend(rows::LAST_SWAP.map(str::to_owned));
        }
        let mut expression = format!("SET {}", set.join(", "));
        if !remove.is_empty() {
            expression += &format!(" REMOVE {}", remove.join(", "));
        }
        self.update_row(keys::line_key(&before.id))
            .update_expression(expression)
            .condition_expression(condition)
            .set_expression_attribute_names(Some(names))
            .set_expression_attribute_values(Some(values))
    }
}

/// The attributes of a line that operators may change.
const WRITTEN: [&str; 8] = [
    "phone", "customer", "reseller", "email", "language", "state", "porting", "locked",
];

/// A condition, with the names and the values that it uses.
pub(crate) struct Unchanged {
    pub(crate) condition: String,
    /// `#NAME` for each attribute.
    pub(crate) names: HashMap<String, String>,
    /// `:was_NAME` for each attribute that the line has.
    pub(crate) values: HashMap<String, AttributeValue>,
}

/// The condition that a line is as an operator has seen it: what operators may change, its SIMs and its open swap.
pub(crate) fn unchanged(line: &Line) -> Unchanged {
    let mut row = rows::from_line(line);
    let mut seen = WRITTEN.to_vec();
    seen.push("sim");
    for kind in [SwapKind::Esim, SwapKind::Physical] {
        let [kept, _] = rows::kept_sim_attributes(kind);
        seen.push(kept);
        row.extend(
            line.kept_sim(kind)
                .map(|sim| (kept.to_owned(), text(sim.iccid.as_str()))),
        );
    }
    seen.push("swap");
    row.extend(
        line.open_swap
            .as_ref()
            .map(|open| ("swap".to_owned(), text(open.as_str()))),
    );
    let (mut conditions, mut values) = (Vec::new(), HashMap::new());
    for name in &seen {
        match row.remove(*name) {
            Some(value) => {
                conditions.push(format!("#{name} = :was_{name}"));
                values.insert(format!(":was_{name}"), value);
            }
            None => conditions.push(format!("attribute_not_exists(#{name})")),
        }
    }
    Unchanged {
        condition: conditions.join(" AND "),
        names: seen
            .into_iter()
            .map(|name| (format!("#{name}"), name.to_owned()))
            .collect(),
        values,
    }
}
