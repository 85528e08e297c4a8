//! The error with which the `main` of a function ends.

use std::error::Error;
use std::fmt;

use crate::error_response::with_causes;

/// An error that ends the process. The runtime prints it with `Debug`, which here shows the error's message and causes
/// in plain text.
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
