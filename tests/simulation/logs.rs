//! What the functions log, as it would stand in the log: kept by thread, one world after another.

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

/// Keeps what each thread logs from now on.
pub(crate) fn keep() {
    static KEPT: Once = Once::new();
    KEPT.call_once(|| {
        let logs = edge::logs("debug", "simswap".to_owned(), || Lines);
        set_global_default(logs).expect("nobody else keeps logs");
    });
}

/// What was logged since the last time.
pub(crate) fn take() -> String {
    let lines = LINES.with_borrow_mut(std::mem::take);
    String::from_utf8_lossy(&lines).into_owned()
}
