//! The sizes of the binaries and their zips, and the largest that the gate allows.

use crate::BenchError;
use crate::programs::{GATED, Programs};
use crate::report::{self, megabytes};

/// The most MB of a binary, and of its zip.
const AT_MOST: (f64, f64) = (7.5, 3.2);

/// The binaries and zips that are larger than allowed.
pub(crate) fn gate(programs: &Programs) -> Result<Vec<String>, BenchError> {
    let mut faults = Vec::new();
    for function in GATED {
        let (binary, zip) = programs.sizes(function)?;
        let (binary, zip) = (megabytes(binary), megabytes(zip));
        let sizes = format!("{function}: {binary:.2} MB, {zip:.2} MB zipped");
        report::print(&sizes);
        if binary > AT_MOST.0 || zip > AT_MOST.1 {
            faults.push(format!("{sizes}; {} and {} are allowed", AT_MOST.0, AT_MOST.1));
        }
    }
    Ok(faults)
}
