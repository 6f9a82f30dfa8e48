//! `Output`: standard output for results, buffered, at peace with a reader that goes away.

use std::io::{self, BufWriter, Stdout, Write};

use serde::Serialize;

/// Standard output. `pitr list | head` closes the pipe early: what comes after goes nowhere and is no error.
#[derive(Debug)]
pub struct Output {
    inner: BufWriter<Stdout>,
    closed: bool,
}

impl Output {
    pub(super) fn stdout() -> Output {
        Output { inner: BufWriter::new(io::stdout()), closed: false }
    }

    /// Writes one JSON document, indented, and a newline.
    ///
    /// # Errors
    /// Standard output cannot be written to (a full disk behind it).
    pub fn json(&mut self, value: &impl Serialize) -> io::Result<()> {
        serde_json::to_writer_pretty(&mut *self, value)?;
        self.write_all(b"\n")?;
        self.flush()
    }

    fn forgive<T>(&mut self, result: io::Result<T>, instead: T) -> io::Result<T> {
        match result {
            Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                self.closed = true;
                Ok(instead)
            }
            other => other,
        }
    }
}

impl Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.closed {
            return Ok(bytes.len());
        }
        let result = self.inner.write(bytes);
        self.forgive(result, bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if self.closed {
            return Ok(());
        }
        let result = self.inner.flush();
        self.forgive(result, ())
    }
}
