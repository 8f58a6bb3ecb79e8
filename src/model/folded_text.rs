//! Names that are text in ASCII lower case, and what they have in common.

/// Implements the access to the text of a name, its hash and its display. The type is a tuple of one `SmolStr`.
macro_rules! folded_text {
    ($name:ident) => {
        impl $name {
            /// Returns the name for valid text, in ASCII lower case.
            fn folded(text: &str) -> Self {
                // Most names are in lower case already, and a large cluster has hundreds of thousands of them.
                let folded = text.bytes().any(|b| b.is_ascii_uppercase()).then(|| text.to_ascii_lowercase());
                Self(folded.as_deref().unwrap_or(text).into())
            }

            /// Returns the text in ASCII lower case.
            pub fn as_str(&self) -> &str {
                &self.0
            }

            /// Returns the octets of the text in ASCII lower case.
            pub fn as_bytes(&self) -> &[u8] {
                self.0.as_bytes()
            }
        }

        impl std::hash::Hash for $name {
            // Equal to the hash of `[u8]`, so that a table of names is searched with octets of a packet: see `Borrow`.
            fn hash<H: std::hash::Hasher>(&self, state: &mut H) {
                self.as_bytes().hash(state);
            }
        }

        impl std::borrow::Borrow<[u8]> for $name {
            fn borrow(&self) -> &[u8] {
                self.as_bytes()
            }
        }

        impl std::fmt::Display for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str(&self.0)
            }
        }

        impl std::fmt::Debug for $name {
            fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                std::fmt::Debug::fmt(&self.0, f)
            }
        }
    };
}

pub(super) use folded_text;
