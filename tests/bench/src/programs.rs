//! The measured programs: the release binaries, their equivalents in Node and Python, and a function that does nothing.
//! This module builds them.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use flate2::Compression;
use flate2::write::DeflateEncoder;

use crate::BenchError;
use crate::fixture::Fixture;

/// The functions, in the order of a swap.
pub(crate) const FUNCTIONS: [&str; 9] = [
    "submit-swap",
    "fulfil-swap",
    "deliver-esim",
    "mail-events",
    "network-events",
    "query-activation",
    "change-sim",
    "manage-swap",
    "sweep-swaps",
];
/// The functions that the other languages have too.
pub(crate) const COMPARED: [&str; 3] = ["submit-swap", "query-activation", "change-sim"];

/// The functions that no caller waits for.
pub(crate) const BEHIND: [&str; 5] = [
    "fulfil-swap",
    "deliver-esim",
    "mail-events",
    "network-events",
    "sweep-swaps",
];

/// The functions that the gate measures. The others use the same code.
pub(crate) const GATED: [&str; 2] = ["submit-swap", "query-activation"];

/// The language of a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Language {
    Rust,
    Node,
    Python,
}

impl Language {
    pub(crate) const ALL: [Self; 3] = [Self::Rust, Self::Node, Self::Python];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Rust => "Rust",
            Self::Node => "Node, SDK v3 bundled",
            Self::Python => "Python, boto3",
        }
    }
}

/// The location of the programs.
pub(crate) struct Programs {
    functions: PathBuf,
    python: PathBuf,
}

/// Cargo's target directory, which contains the benchmark itself.
fn target() -> Result<PathBuf, BenchError> {
    let bench = std::env::current_exe()?;
    let target = bench.ancestors().nth(2);
    Ok(target.ok_or("the bench is in no target directory")?.to_owned())
}

/// The root of the repository.
pub(crate) fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

impl Programs {
    /// The binaries in a directory.
    pub(crate) fn of(functions: PathBuf) -> Result<Self, BenchError> {
        let python = target()?.join("bench-python");
        Ok(Self { functions, python })
    }

    /// Builds the release binaries of these packages.
    pub(crate) fn release(packages: &[&str]) -> Result<Self, BenchError> {
        run(Command::new(env!("CARGO"))
            .args(["build", "--release", "--locked", "--target-dir"])
            .arg(target()?)
            .args(packages.iter().flat_map(|name| ["--package", name])))?;
        Self::of(target()?.join("release"))
    }

    /// The binaries in the directory of the benchmark itself.
    pub(crate) fn beside() -> Result<Self, BenchError> {
        let bench = std::env::current_exe()?;
        Self::of(bench.parent().ok_or("the bench is in no directory")?.to_owned())
    }

    /// Installs the packages of the other languages, and bundles Node's functions.
    pub(crate) fn others(&self) -> Result<(), BenchError> {
        let node = root().join("tests/bench/node");
        run(Command::new("npm").args(["ci", "--silent"]).current_dir(&node))?;
        run(Command::new("npm")
            .args(["run", "--silent", "bundle"])
            .current_dir(&node))?;
        if !self.python.exists() {
            run(Command::new("python3").args(["-m", "venv"]).arg(&self.python))?;
        }
        let requirements = root().join("tests/bench/python/requirements.txt");
        run(Command::new(self.python.join("bin/pip"))
            .args(["install", "--quiet", "--disable-pip-version-check", "--requirement"])
            .arg(requirements))
    }

    /// A function's release binary: the file with its name, or the one in the directory that `cargo lambda build` makes.
    pub(crate) fn binary(&self, function: &str) -> PathBuf {
        let path = self.functions.join(function);
        match path.is_dir() {
            true => path.join("bootstrap"),
            false => path,
        }
    }

    /// Runs a script of `tests/bench/node` or `tests/bench/python`.
    pub(crate) fn script(&self, language: Language, arguments: &[&str]) -> Vec<String> {
        let (interpreter, home) = match language {
            Language::Python => (self.python.join("bin/python"), "tests/bench/python"),
            _ => (PathBuf::from("node"), "tests/bench/node"),
        };
        let script = root().join(home).join(arguments[0]);
        let mut command = vec![text(&interpreter), text(&script)];
        command.extend(arguments[1..].iter().map(|&argument| argument.to_owned()));
        command
    }

    /// The command that starts a function in a language.
    pub(crate) fn command(&self, language: Language, function: &str) -> Vec<String> {
        match language {
            Language::Rust => vec![text(&self.binary(function))],
            Language::Node => self.script(language, &[&format!("dist/{function}.mjs")]),
            Language::Python => self.script(language, &["runtime.py", function]),
        }
    }

    /// The size in bytes of a binary, and of the zip that is uploaded (deflate at the default level).
    pub(crate) fn sizes(&self, function: &str) -> Result<(u64, u64), BenchError> {
        let binary = std::fs::read(self.binary(function))?;
        let mut zip = DeflateEncoder::new(Vec::new(), Compression::default());
        std::io::Write::write_all(&mut zip, &binary)?;
        Ok((binary.len() as u64, zip.finish()?.len() as u64))
    }
}

/// The environment of a program: the function's settings and its root certificates. Each program trusts as many roots
/// as it would on Lambda, and the root of this run.
pub(crate) fn environment(fixture: &Fixture, language: Language) -> BTreeMap<String, String> {
    let tls = &fixture.tls;
    let roots: &[(&str, &Path)] = match language {
        Language::Rust => &[("AWS_CA_BUNDLE", &tls.aws), ("SSL_CERT_FILE", &tls.system)],
        Language::Node => &[("NODE_EXTRA_CA_CERTS", &tls.authority)],
        Language::Python => &[("AWS_CA_BUNDLE", &tls.system)],
    };
    let mut environment = fixture.settings.clone();
    environment.extend(roots.iter().map(|(name, path)| ((*name).to_owned(), text(path))));
    // The SDK prints a warning about the version of Node at every start.
    environment.insert("NODE_NO_WARNINGS".to_owned(), "1".to_owned());
    environment
}

fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

pub(crate) fn run(command: &mut Command) -> Result<(), BenchError> {
    if command.status()?.success() {
        Ok(())
    } else {
        Err(format!("{command:?} failed").into())
    }
}
