//! Known mistakes, put in on the wire: each makes the service behave as if its code had the mistake. They are here to
//! show that the simulation would see them.

use crate::ground::Ground;
use crate::wire::{Call, Reply};

/// A mistake.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mistake {}

impl Mistake {
    /// What becomes of a call: it is altered, or this is the answer instead.
    pub(crate) fn alter(self, _ground: &Ground, _call: &mut Call) -> Option<Reply> {
        match self {}
    }
}
