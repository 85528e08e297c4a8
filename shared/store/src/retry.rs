//! The loop around a read, a decision and a conditional write, for rows that several writers change.

use crate::StoreError;

/// Rounds before a caller gives up: more conflicts in a row than concurrent writers of one row can cause.
const ROUNDS: usize = 8;

/// Runs `round` until it returns a value. A round reads the row, decides, and writes on the condition that the row is as it
/// was read; it returns `None` if another writer changed the row in between.
///
/// # Errors
///
/// Errors of `round` end the loop. `StoreError::Unavailable` after 8 conflicts in a row.
pub async fn retry_on_conflict<T, E: From<StoreError>, Round: Future<Output = Result<Option<T>, E>>>(
    mut round: impl FnMut() -> Round,
) -> Result<T, E> {
    for _ in 0..ROUNDS {
        // Boxed, because the compiler nests the layouts of futures only so deep.
        if let Some(value) = Box::pin(round()).await? {
            return Ok(value);
        }
    }
    Err(StoreError::Unavailable("the row keeps changing".into()).into())
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn check(conflicts: usize, expected: Option<usize>) {
        let mut rounds = 0;
        let result: Result<usize, StoreError> = retry_on_conflict(|| {
            rounds += 1;
            std::future::ready(Ok((rounds > conflicts).then_some(rounds)))
        })
        .await;
        assert_eq!(result.ok(), expected, "{conflicts} conflicts");
    }

    #[tokio::test]
    async fn conflicts_are_retried_up_to_a_bound() {
        check(0, Some(1)).await;
        check(7, Some(8)).await;
        check(8, None).await;
    }
}
