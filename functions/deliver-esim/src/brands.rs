//! Finds the brand that a mail shows: that of the line's reseller, or the default brand. What a brand contains is in the
//! domain.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use domain::Brand;
use store::{Store, StoreError};
use tokio::time::Instant;

/// The brands of all resellers. A process reads the brand of a reseller at most once in [`KEPT`].
#[derive(Debug)]
pub(crate) struct Brands {
    default: Arc<Brand>,
    known: Mutex<HashMap<String, (Instant, Arc<Brand>)>>,
}

/// How long a mail may show a brand that has changed.
const KEPT: Duration = Duration::from_secs(5 * 60);

impl Brands {
    pub(crate) fn new(default: Brand) -> Self {
        Self {
            default: Arc::new(default),
            known: Mutex::default(),
        }
    }

    /// The brand for a line of this reseller. A malformed brand does not hold up a mail, which then shows the default
    /// brand.
    pub(crate) async fn of(&self, reseller: Option<&str>, store: &Store) -> Result<Arc<Brand>, StoreError> {
        let Some(reseller) = reseller else {
            return Ok(self.default.clone());
        };
        let known = || self.known.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some((read_at, brand)) = known().get(reseller)
            && read_at.elapsed() < KEPT
        {
            return Ok(brand.clone());
        }
        let brand = match store.brand(reseller).await {
            Ok(Some(brand)) => Arc::new(brand.completed_from(&self.default)),
            Ok(None) => self.default.clone(),
            Err(StoreError::Corrupt(attribute)) => {
                tracing::error!(
                    reseller,
                    attribute,
                    "the brand of a reseller is malformed; import it again"
                );
                self.default.clone()
            }
            Err(error) => return Err(error),
        };
        known().insert(reseller.to_owned(), (Instant::now(), brand.clone()));
        Ok(brand)
    }
}
