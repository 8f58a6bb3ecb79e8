//! Version of Consul that the agent reports to programs which require one.

use smol_str::SmolStr;
use thiserror::Error;

/// Maximum length of a version in octets; those of Consul have some 20.
pub const MAX_CONSUL_VERSION: usize = 64;

/// A semantic version (SemVer 2.0) such as `1.20.0` or `1.20.0+ent`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConsulVersion(SmolStr);

/// A text that is no semantic version.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
#[error("a version is MAJOR.MINOR.PATCH with at most {MAX_CONSUL_VERSION} characters, such as `1.20.0`")]
pub struct ConsulVersionError;

impl ConsulVersion {
    /// Parses a version.
    ///
    /// # Errors
    /// The text is no semantic version, or has more than [`MAX_CONSUL_VERSION`] octets.
    pub fn parse(text: &str) -> Result<Self, ConsulVersionError> {
        let (rest, build) = text.split_once('+').map_or((text, None), |(rest, build)| (rest, Some(build)));
        let (core, prerelease) = rest.split_once('-').map_or((rest, None), |(core, pre)| (core, Some(pre)));
        let is_number =
            |part: &str| part.bytes().all(|b| b.is_ascii_digit()) && (part == "0" || !part.starts_with('0'));
        let is_word = |part: &str| part.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        let is_list =
            |list: Option<&str>| list.is_none_or(|list| list.split('.').all(|part| !part.is_empty() && is_word(part)));
        let is_core = core.split('.').count() == 3 && core.split('.').all(|part| !part.is_empty() && is_number(part));
        if text.len() <= MAX_CONSUL_VERSION && is_core && is_list(prerelease) && is_list(build) {
            Ok(Self(text.into()))
        } else {
            Err(ConsulVersionError)
        }
    }

    /// Returns the version as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_semantic() {
        for text in ["1.20.0", "0.0.0", "1.8.0-beta1", "1.20.0+ent", "1.20.0-rc1.2+ent.fips1402", "10.20.30"] {
            assert_eq!(ConsulVersion::parse(text).map(|version| version.as_str().to_owned()), Ok(text.to_owned()));
        }
        let long = format!("1.20.0+{}", "x".repeat(MAX_CONSUL_VERSION));
        for text in [
            "",
            "1",
            "1.20",
            "v1.20.0",
            "1.20.0.1",
            "1.20.x",
            "01.2.3",
            "1..0",
            "1.20.0-",
            "1.20.0+",
            "1.2.3+a b",
            &long,
        ] {
            assert_eq!(ConsulVersion::parse(text), Err(ConsulVersionError), "{text}");
        }
    }
}
