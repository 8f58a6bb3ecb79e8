//! Log of the agent: levels, formats, and a writer that keeps each event on one line.

use std::io::{self, Write};

use tracing::{Level, warn};
use tracing_subscriber::{
    Layer, Registry,
    filter::{LevelFilter, Targets},
    layer::SubscriberExt as _,
    reload,
    util::SubscriberInitExt as _,
};

use crate::{
    config::{self, Format},
    printable::{escaped, escaped_json},
};

/// Sends the log to stderr. Returns a function that applies other settings.
pub(super) fn start_logging(settings: &config::Log) -> impl Fn(&config::Log) + Send + Sync + 'static {
    let (lines, lines_handle) = reload::Layer::new(log_lines(settings.format));
    let (levels, levels_handle) = reload::Layer::new(log_levels(settings.level));
    tracing_subscriber::registry().with(lines).with(levels).init();
    move |settings| {
        let applied = lines_handle.reload(log_lines(settings.format));
        if let Err(error) = applied.and_then(|()| levels_handle.reload(log_levels(settings.level))) {
            warn!(%error, "cannot apply the settings of the log");
        }
    }
}

fn log_lines(format: Format) -> Box<dyn Layer<Registry> + Send + Sync> {
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(move || OneLine { out: io::stderr(), format })
        // The layer would report a lost line on standard error, which has no reader, and panic.
        .log_internal_errors(false);
    match format {
        Format::Text => lines.with_target(false).with_ansi(false).boxed(),
        Format::Json => lines.json().flatten_event(true).boxed(),
    }
}

/// Libraries log warnings and errors only.
fn log_levels(level: config::Level) -> Targets {
    let level = match level {
        config::Level::Error => Level::ERROR,
        config::Level::Warn => Level::WARN,
        config::Level::Info => Level::INFO,
        config::Level::Debug => Level::DEBUG,
        config::Level::Trace => Level::TRACE,
    };
    // These libraries warn of the behaviour of peers and clients, which the agent handles and logs itself.
    let quiet = if level >= Level::DEBUG { LevelFilter::WARN } else { LevelFilter::OFF };
    let others = ["chitchat", "hickory_server", "hickory_net", "openraft", "quinn"].map(|target| (target, quiet));
    Targets::new().with_target("muster", level).with_targets(others).with_default(Level::WARN)
}

/// Writer of whole events, which escapes characters that would end the line, drive a terminal or reorder the text: names of
/// files and texts of other hosts may contain them.
struct OneLine<W> {
    out: W,
    format: Format,
}

impl<W: Write> Write for OneLine<W> {
    /// Writes one event, which the formatter passes as a whole, with its line end.
    fn write(&mut self, event: &[u8]) -> io::Result<usize> {
        let text = String::from_utf8_lossy(event);
        let line = text.strip_suffix('\n').unwrap_or(&text);
        let line = match self.format {
            Format::Text => escaped(line),
            Format::Json => escaped_json(line),
        };
        self.out.write_all(format!("{line}\n").as_bytes())?;
        Ok(event.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_event_is_one_line_without_unprintable_characters() {
        let cases = [
            (Format::Text, "INFO files reloaded\n", "INFO files reloaded\n"),
            (Format::Text, "WARN a\nERROR forged\u{1b}[2J\n", "WARN a\\nERROR forged\\u{1b}[2J\n"),
            (Format::Text, "WARN x\u{202e}lmay.y\u{2028}\n", "WARN x\\u{202e}lmay.y\\u{2028}\n"),
            (Format::Json, "{\"path\":\"x\u{202e}\\n\"}\n", "{\"path\":\"x\\u202e\\n\"}\n"),
        ];
        for (format, event, expected) in cases {
            let mut out = OneLine { out: Vec::new(), format };
            out.write_all(event.as_bytes()).unwrap();
            assert_eq!(String::from_utf8(out.out).unwrap(), expected, "{event:?}");
        }
    }
}
