//! For tests: captures in memory what the code under test writes to the log, metrics included.

use std::io::{self, Write};
use std::sync::{Arc, Mutex};

/// Runs `code` and returns the lines that it logs at this level. The namespace of the metrics is `test`.
pub(crate) fn captured_log(level: &str, code: impl FnOnce()) -> String {
    let log = Log::default();
    let writer = log.clone();
    let subscriber = crate::logs(level, "test".to_owned(), move || writer.clone());
    tracing::subscriber::with_default(subscriber, code);
    String::from_utf8(log.0.lock().unwrap().clone()).unwrap()
}

#[derive(Clone, Default)]
struct Log(Arc<Mutex<Vec<u8>>>);

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().unwrap().extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
