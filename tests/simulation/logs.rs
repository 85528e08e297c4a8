//! What the functions log, in the format of their log: captured by thread, one run after another.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::Once;

use tracing::subscriber::set_global_default;

thread_local! {
    static LINES: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

struct Lines;

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        LINES.with_borrow_mut(|lines| lines.extend_from_slice(bytes));
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Captures the log of every thread.
pub(crate) fn capture() {
    static CAPTURE: Once = Once::new();
    CAPTURE.call_once(|| {
        let logs = edge::logs("debug", "simswap".to_owned(), || Lines);
        set_global_default(logs).expect("no other subscriber is set");
    });
}

/// What this thread has logged since the last call.
pub(crate) fn take() -> String {
    let lines = LINES.with_borrow_mut(std::mem::take);
    String::from_utf8_lossy(&lines).into_owned()
}
