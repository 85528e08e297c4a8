//! Why a process of a function ends.

use std::error::Error;
use std::fmt;

use crate::error_response::with_causes;

/// What `main` returns. The runtime prints it by `Debug`, and a person reads it: it is a sentence.
pub struct FatalError(Box<dyn Error + Send + Sync>);

impl<E: Into<Box<dyn Error + Send + Sync>>> From<E> for FatalError {
    fn from(error: E) -> Self {
        Self(error.into())
    }
}

impl fmt::Debug for FatalError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&with_causes(self.0.as_ref()))
    }
}
