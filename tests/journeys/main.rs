//! Journeys: real HTTP in, the answer, the mail, the peers' books and the table out. Each has a stack of its own.

mod swap;
