//! The timeline of a swap or a mail: its entries, and how entries are added. Who adds which entry is not here.

use jiff::Timestamp;

/// Maximum number of entries in the timeline of a swap. Later entries are dropped, except those that say why and how
/// the swap ended.
pub const TIMELINE_CAP: usize = 40;

/// One entry of a timeline.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TimelineEntry {
    /// When it happened for the first time.
    pub at: Timestamp,
    /// Who did what, in our own words, never in a peer's: `smdp: downloaded`.
    pub what: String,
    /// How many times it happened: attempts that failed in the same way share one entry.
    pub count: u32,
    /// When it happened for the last time.
    pub last: Timestamp,
}

impl TimelineEntry {
    /// An entry for something that has happened once.
    pub fn new(at: Timestamp, what: impl Into<String>) -> Self {
        Self {
            at,
            what: what.into(),
            count: 1,
            last: at,
        }
    }
}

/// Counts up the entry with the same text, or adds a new one unless the timeline is full.
pub(crate) fn count_or_add(timeline: &mut Vec<TimelineEntry>, at: Timestamp, what: &str) {
    if let Some(entry) = timeline.iter_mut().find(|entry| entry.what == what) {
        entry.count += 1;
        entry.last = at;
    } else if timeline.len() < TIMELINE_CAP {
        timeline.push(TimelineEntry::new(at, what));
    }
}
