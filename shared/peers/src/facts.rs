//! Translates the reports of peers into facts of the lifecycle. Whether a fact changes a swap is decided in the domain.

use domain::{Fact, FailureCode};
use jiff::Timestamp;

use crate::es2plus::{DownloadProgressInfo, Progress};
use crate::tmf641::{Order, OrderState};

impl DownloadProgressInfo {
    /// The fact about the swap that ordered the profile; `None` if the callback has no effect on a swap. `at` is used
    /// if the date is absent or cannot be read.
    pub fn fact(&self, at: Timestamp) -> Option<Fact> {
        let dated = self.timestamp.unwrap_or(at);
        match self.progress() {
            Progress::Downloaded => Some(Fact::Downloaded { dated }),
            Progress::Installed => Some(Fact::Installed { dated }),
            Progress::ProfileFailed => Some(Fact::ProfileFailed { dated }),
            Progress::WrongCode => Some(Fact::WrongCode { dated }),
            Progress::Other => None,
        }
    }
}

impl Order {
    /// The fact about the swap of this order; `None` if the state decides nothing. `at` is used if there is no
    /// completion date.
    pub fn fact(&self, at: Timestamp) -> Option<Fact> {
        match self.settled_state() {
            OrderState::Acknowledged | OrderState::Pending | OrderState::Held => Some(Fact::NetworkPlaced),
            OrderState::InProgress => Some(Fact::NetworkStarted),
            OrderState::Completed => {
                let since = self.completion_date.unwrap_or(at);
                Some(Fact::NetworkCompleted {
                    since,
                    order_number: self.id.clone(),
                })
            }
            OrderState::Failed => Some(Fact::NetworkEnded(FailureCode::NetworkFailed)),
            OrderState::Rejected => Some(Fact::NetworkEnded(FailureCode::NetworkRejected)),
            OrderState::Cancelled => Some(Fact::NetworkEnded(FailureCode::NetworkCancelled)),
            OrderState::Partial
            | OrderState::Unknown
            | OrderState::AssessingCancellation
            | OrderState::PendingCancellation => None,
        }
    }
}
