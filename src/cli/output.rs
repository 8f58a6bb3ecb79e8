//! Standard output and standard error of the commands.
//!
//! A script must not take a truncated output for a whole one. Each command writes its output here and does not look at errors: a
//! change that has begun is carried out whether or not its report can be read. The end of the program turns the first error into
//! the exit code. A closed pipe is no error: the reader has seen enough. The same is true of messages on standard error.

use std::{
    fmt,
    io::{self, Write},
    sync::{
        OnceLock,
        atomic::{AtomicBool, Ordering},
    },
};

use super::Exit;

/// The first error of the output.
static FAILURE: OnceLock<io::Error> = OnceLock::new();
/// Set once the output has failed, or has no reader any more.
static LOST: AtomicBool = AtomicBool::new(false);

/// Prints a message on a line of standard error, where `eprintln!` would end the program if the line has no reader.
macro_rules! print_error {
    ($($text:tt)*) => {
        $crate::cli::output::print_error_line(format_args!($($text)*))
    };
}
pub(super) use print_error;

/// Prints a line on standard error.
pub(super) fn print_error_line(text: fmt::Arguments<'_>) {
    let _ = writeln!(io::stderr(), "{text}");
}

/// Prints text.
pub(super) fn print(text: &str) {
    write(text.as_bytes());
}

/// Writes octets.
pub(super) fn write(octets: &[u8]) {
    keep(io::stdout().write_all(octets));
}

/// Keeps the first error of writes to the output.
pub(super) fn keep(written: io::Result<()>) {
    if let Err(error) = written {
        LOST.store(true, Ordering::Relaxed);
        if error.kind() != io::ErrorKind::BrokenPipe {
            // A later error has the same cause.
            let _ = FAILURE.set(error);
        }
    }
}

/// Reports whether a long or endless command should end, since nothing more of its output is read.
pub(super) fn is_lost() -> bool {
    LOST.load(Ordering::Relaxed)
}

/// The output as a stream, for content of any size. Its errors are kept.
pub(super) struct Stream;

impl Stream {
    /// Returns the result of a copy to the stream, without the errors of the stream itself: [`finish`] reports them.
    pub(super) fn copied<T, E>(result: Result<T, E>) -> Result<Option<T>, E> {
        if is_lost() { Ok(None) } else { result.map(Some) }
    }
}

impl Write for Stream {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        io::stdout().write(octets).inspect_err(keep_copy)
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stdout().flush().inspect_err(keep_copy)
    }
}

/// Keeps an error that the caller gets as well.
fn keep_copy(error: &io::Error) {
    // An interrupted write is repeated.
    if error.kind() != io::ErrorKind::Interrupted {
        keep(Err(error.raw_os_error().map_or_else(|| error.kind().into(), io::Error::from_raw_os_error)));
    }
}

/// Writes what is buffered. Reports an error of the output and returns the exit code of the program.
pub(super) fn finish(exit: Exit) -> Exit {
    // Other exit codes are those of an error that was reported.
    if !matches!(exit, Exit::Done | Exit::Problems) {
        return exit;
    }
    keep(io::stdout().flush());
    let Some(error) = FAILURE.get() else { return exit };
    print_error!(
        "muster: cannot write the output: {error}\nThe output is incomplete. Check where standard output leads to."
    );
    Exit::CouldNotRun
}
