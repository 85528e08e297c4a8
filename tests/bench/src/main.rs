//! Measures the release functions, and writes tables and a picture into the repository. Each table has a module of its
//! own name.

mod capacity;
mod cold;
mod fan_in;
mod fixture;
mod instructions;
mod lambda;
mod money;
mod picture;
mod programs;
mod qr;
mod report;
mod sandbox;
mod sizes;
mod tls;
mod warm;

use std::path::PathBuf;
use std::sync::Arc;

use clap::{Parser, Subcommand};

use crate::programs::{FUNCTIONS, GATED, Programs};

/// Why a measurement failed.
pub(crate) type BenchError = Box<dyn std::error::Error + Send + Sync>;

/// The numbers of records in the table: few and many.
const RECORDS: [usize; 2] = [10, 10_000];

/// Measures the release functions, and writes the figures into README.
#[derive(Parser)]
struct Arguments {
    /// A directory with release binaries of the functions and of `hello`, or the output directory of `cargo lambda
    /// build`, instead of building them.
    #[arg(long, global = true)]
    functions: Option<PathBuf>,
    #[command(subcommand)]
    what: What,
}

#[derive(Subcommand)]
enum What {
    /// Everything below, apart from the gate and the growth.
    All,
    /// The time from spawn to the first response, sizes and memory.
    Cold {
        /// How often each program starts.
        #[arg(long, default_value_t = 31)]
        runs: usize,
        /// After how many calls the memory is read.
        #[arg(long, default_value_t = 1000)]
        calls: usize,
    },
    /// Warm calls in one sandbox.
    Warm {
        /// How many calls each program gets.
        #[arg(long, default_value_t = 1000)]
        calls: usize,
    },
    /// Instructions, counted by callgrind.
    Instructions {
        /// A directory for callgrind's files, which `callgrind_annotate` reads.
        #[arg(long)]
        keep: Option<PathBuf>,
    },
    /// DynamoDB's calls and capacity units.
    Capacity,
    /// Capacity units with up to a million records in the table; takes minutes.
    Growth,
    /// The cost of a million of each operation.
    Money,
    /// QR codes.
    Qr,
    /// Many swaps at once.
    FanIn {
        /// How many swaps.
        #[arg(long, default_value_t = 10_000)]
        swaps: usize,
    },
    /// Draws the picture.
    Picture,
    /// Compares instructions, units and sizes with the recorded and the allowed ones. Needs the functions' binaries
    /// beside the benchmark's own.
    Gate,
}

#[tokio::main]
async fn main() -> Result<(), BenchError> {
    let arguments = Arguments::parse();
    let all: Vec<_> = FUNCTIONS.into_iter().chain(["hello"]).collect();
    let programs = Arc::new(match (&arguments.what, arguments.functions) {
        (_, Some(directory)) => Programs::of(directory)?,
        // These use recorded figures only.
        (What::Money | What::Picture, None) => Programs::beside()?,
        (What::Gate, None) => Programs::release(&GATED)?,
        (_, None) => Programs::release(&all)?,
    });
    match arguments.what {
        What::All => {
            cold::run(&programs, 31, 1000).await?;
            warm::run(&programs, 1000).await?;
            instructions::run(&programs, None).await?;
            capacity::run(&programs, &RECORDS).await?;
            money::run()?;
            qr::run(&programs)?;
            fan_in::run(&programs, 10_000).await?;
            picture::run()
        }
        What::Cold { runs, calls } => cold::run(&programs, runs, calls).await,
        What::Warm { calls } => warm::run(&programs, calls).await,
        What::Instructions { keep } => instructions::run(&programs, keep.as_deref()).await,
        What::Capacity => capacity::run(&programs, &RECORDS).await,
        What::Growth => capacity::run(&programs, &[RECORDS[0], RECORDS[1], 1_000_000]).await,
        What::Money => money::run(),
        What::Qr => qr::run(&programs),
        What::FanIn { swaps } => fan_in::run(&programs, swaps).await,
        What::Picture => picture::run(),
        What::Gate => {
            let mut faults = sizes::gate(&programs)?;
            faults.extend(instructions::gate(&programs).await?);
            // The units are the same in every build profile.
            faults.extend(capacity::gate(&Arc::new(Programs::beside()?)).await?);
            if faults.is_empty() {
                Ok(())
            } else {
                Err(faults.join("\n").into())
            }
        }
    }
}
