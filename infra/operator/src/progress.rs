//! Progress of an import on standard error: a bar on a terminal, otherwise a line every two seconds.

use std::fmt;
use std::io::{IsTerminal, Write};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressState, ProgressStyle};

/// The progress of the current step.
pub(crate) struct Progress {
    bar: Option<ProgressBar>,
    step: &'static str,
    began: Instant,
    last_line: Instant,
}

impl Progress {
    const BETWEEN_LINES: Duration = Duration::from_secs(2);

    pub(crate) fn new() -> Self {
        let now = Instant::now();
        Self {
            bar: std::io::stderr().is_terminal().then(|| ProgressBar::new(0)),
            step: "",
            began: now,
            last_line: now,
        }
    }

    /// Shows that `done` of `of` are done. A new `step` starts a new bar.
    pub(crate) fn update(&mut self, step: &'static str, done: u64, of: u64) {
        if self.step != step {
            self.step = step;
            self.began = Instant::now();
            self.last_line = self.began;
            if let Some(bar) = &self.bar {
                bar.reset();
                bar.set_length(of);
                bar.set_style(style(step));
            }
        }
        match &self.bar {
            Some(bar) => bar.set_position(done),
            None if self.last_line.elapsed() >= Self::BETWEEN_LINES => {
                self.last_line = Instant::now();
                let line = line(step, done, of, self.began.elapsed());
                let _ = writeln!(std::io::stderr(), "{line}");
            }
            None => {}
        }
    }

    /// Prints a line that stays above the bar.
    pub(crate) fn print_line(&self, text: &str) {
        // If standard error is closed, there is no one to report to.
        let write = || drop(writeln!(std::io::stderr(), "{text}"));
        match &self.bar {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    /// Removes the bar.
    pub(crate) fn clear(&self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// The bar, and the same text as in a line.
fn style(step: &'static str) -> ProgressStyle {
    let text = move |state: &ProgressState, text: &mut dyn fmt::Write| {
        let of = state.len().unwrap_or_default();
        // Writing to the text of a bar cannot fail.
        let _ = write!(text, "{}", line(step, state.pos(), of, state.elapsed()));
    };
    let template = ProgressStyle::with_template("{wide_bar} {line}").expect("the template is valid");
    template.with_key("line", text)
}

fn line(step: &str, done: u64, of: u64, took: Duration) -> String {
    let rate = done as f64 / took.as_secs_f64().max(0.001);
    let left = of.saturating_sub(done) as f64 / rate.max(0.001);
    let unit = if step == "checked" { " bytes" } else { "" };
    format!("{step} {done} of {of}{unit}, {rate:.0} a second, {left:.0} s left")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_has_rate_and_remaining_time() {
        assert_eq!(
            line("written", 30_000, 100_000, Duration::from_secs(3)),
            "written 30000 of 100000, 10000 a second, 7 s left"
        );
        assert_eq!(
            line("checked", 0, 0, Duration::ZERO),
            "checked 0 of 0 bytes, 0 a second, 0 s left"
        );
        for step in ["checked", "written"] {
            style(step);
        }
    }
}
