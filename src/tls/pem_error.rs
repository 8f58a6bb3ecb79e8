//! Descriptions of PEM errors without the text of the file, which may be a private key.

use tokio_rustls::rustls::pki_types::pem;

/// Describes an error. The library's own text quotes the line with the error.
pub fn describe(error: &pem::Error) -> String {
    match error {
        pem::Error::MissingSectionEnd { .. } => "a section has no end line, `-----END …-----`".to_owned(),
        pem::Error::IllegalSectionStart { .. } => {
            "a line begins with `-----BEGIN` and is not `-----BEGIN …-----`".to_owned()
        }
        pem::Error::Base64Decode(_) => "a section is not base64".to_owned(),
        pem::Error::Io(error) => error.to_string(),
        pem::Error::NoItemsFound => "no section of the expected kind".to_owned(),
        pem::Error::SectionTooLarge => "a section is too large".to_owned(),
        _ => "unknown error".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};

    use super::*;

    #[test]
    fn no_text_of_the_file_is_shown() {
        let cases = [
            ("-----BEGIN PRIVATE KEY-----MIISECRET\n", "begins with"),
            ("-----BEGIN SECRET\n", "begins with"),
            ("-----BEGIN PRIVATE KEY-----\nMIISECRET\n", "no end line"),
            ("-----BEGIN SECRET-----\nMII\n", "no end line"),
            ("-----BEGIN PRIVATE KEY-----\n!SECRET!\n-----END PRIVATE KEY-----\n", "not base64"),
            ("SECRET", "expected kind"),
        ];
        for (text, expected) in cases {
            let key = PrivateKeyDer::from_pem_slice(text.as_bytes()).err();
            let chain = CertificateDer::pem_slice_iter(text.as_bytes()).find_map(Result::err);
            for error in key.iter().chain(&chain) {
                let shown = describe(error);
                assert!(!shown.contains("SECRET") && !shown.contains("83, 69"), "{text:?}: {shown}");
            }
            assert!(key.is_some_and(|error| describe(&error).contains(expected)), "{text:?}");
        }
    }
}
