//! Sizes of the binaries and of their zips against what is allowed.

use crate::BenchError;
use crate::programs::{GATED, Programs};
use crate::report::{self, megabytes};

/// MB of a binary, and of its zip.
const AT_MOST: (f64, f64) = (7.5, 3.2);

/// What is larger than is allowed.
pub(crate) fn gate(programs: &Programs) -> Result<Vec<String>, BenchError> {
    let mut faults = Vec::new();
    for function in GATED {
        let (binary, zip) = programs.sizes(function)?;
        let (binary, zip) = (megabytes(binary), megabytes(zip));
        let told = format!("{function}: {binary:.2} MB, {zip:.2} MB zipped");
        report::print(&told);
        if binary > AT_MOST.0 || zip > AT_MOST.1 {
            faults.push(format!("{told}; {} and {} are allowed", AT_MOST.0, AT_MOST.1));
        }
    }
    Ok(faults)
}
