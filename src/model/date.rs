//! Formatting of times. No clock is read: times are arguments.

use std::time::{Duration, UNIX_EPOCH};

/// Last second that RFC 3339 can express: years have four digits.
pub const LAST: Duration = Duration::from_secs(253_402_300_799);

/// Formats a time since 1970 by RFC 3339, in whole seconds.
pub fn rfc3339(since: Duration) -> String {
    humantime::format_rfc3339_seconds(UNIX_EPOCH + since.min(LAST)).to_string()
}

/// Formats a time since 1970 by RFC 3339, in milliseconds.
pub fn rfc3339_millis(since: Duration) -> String {
    humantime::format_rfc3339_millis(UNIX_EPOCH + since.min(LAST)).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_time_is_formatted() {
        let cases =
            [(0, "1970-01-01T00:00:00Z"), (951_782_400, "2000-02-29T00:00:00Z"), (u64::MAX, "9999-12-31T23:59:59Z")];
        for (seconds, expected) in cases {
            assert_eq!(rfc3339(Duration::from_secs(seconds)), expected);
        }
    }
}
