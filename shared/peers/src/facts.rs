//! Translates the reports of peers into facts of the lifecycle. Whether a fact changes a swap is decided in the domain.

use std::collections::BTreeMap;

use domain::{Fact, FailureCode, Malformed, PhoneState};
use jiff::Timestamp;

use crate::es2plus::{DownloadProgressInfo, FailedBecause, Progress};
use crate::tmf641::{Order, OrderState};

impl DownloadProgressInfo {
    /// The fact about the swap that ordered the profile; `None` if the callback has no effect on a swap. `at` is used
    /// if the date is absent or cannot be read. `points` are the meanings of the vendor's own steps.
    pub fn fact(&self, at: Timestamp, points: &VendorPoints) -> Option<Fact> {
        let dated = self.timestamp.unwrap_or(at);
        match self.progress() {
            Progress::Downloaded => Some(Fact::Downloaded { dated }),
            Progress::Installed => Some(Fact::Installed { dated }),
            Progress::Failed(because) => Some(Fact::ProfileFailed {
                dated,
                failure: match because {
                    FailedBecause::CodesUsedUp => FailureCode::CodesUsedUp,
                    FailedBecause::DownloadsUsedUp => FailureCode::DownloadsUsedUp,
                    FailedBecause::WrongDevice => FailureCode::WrongDevice,
                    FailedBecause::NoRoom => FailureCode::NoRoom,
                    FailedBecause::Other => FailureCode::ProfileFailed,
                },
                codes: self.codes().unwrap_or_default(),
            }),
            Progress::WrongCode => Some(Fact::WrongCode { dated }),
            Progress::Point(point) => {
                let state = points.state(point)?;
                Some(Fact::PhoneChanged { state, dated })
            }
            Progress::Other => None,
        }
    }
}

/// What the steps above 4 of an SM-DP+ mean, which each vendor numbers differently.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct VendorPoints(BTreeMap<u32, PhoneState>);

impl VendorPoints {
    /// Reads a list like `5=deleted,6=enabled,7=disabled`; empty if no step above 4 has a meaning.
    pub fn parse(text: &str) -> Result<Self, Malformed> {
        const FORM: Malformed = Malformed("must be a list like 5=deleted,6=enabled,7=disabled, with numbers above 4");
        let point = |entry: &str| {
            let (point, state) = entry.split_once('=').ok_or(FORM)?;
            let point = point.trim().parse().ok().filter(|point| *point > 4).ok_or(FORM)?;
            Ok((point, state.trim().parse().map_err(|_| FORM)?))
        };
        let entries = text.split(',').filter(|entry| !entry.trim().is_empty());
        entries.map(point).collect::<Result<_, _>>().map(Self)
    }

    fn state(&self, point: u32) -> Option<PhoneState> {
        self.0.get(&point).copied()
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vendor_points_are_a_list_of_numbers_and_states() {
        let points = VendorPoints::parse(" 5=deleted, 6 = enabled,102=disabled,").unwrap();
        for (point, state) in [
            (5, Some(PhoneState::Deleted)),
            (6, Some(PhoneState::Enabled)),
            (102, Some(PhoneState::Disabled)),
            (7, None),
        ] {
            assert_eq!(points.state(point), state);
        }
        assert_eq!(VendorPoints::parse(""), Ok(VendorPoints::default()));
        for wrong in ["4=enabled", "5", "5=on", "x=enabled", "5=enabled;6=deleted"] {
            assert!(VendorPoints::parse(wrong).is_err(), "{wrong}");
        }
    }
}
