//! Templates of go-sockaddr, such as `{{ GetPrivateIP }}`, which Consul evaluates in addresses.

/// Reason of a value that is a template.
pub(super) const TEMPLATE: &str =
    "Templates of go-sockaddr are not evaluated: write the address, or leave it to the default";

/// Reports whether a text is a template.
pub(super) fn is_template(text: &str) -> bool {
    text.contains("{{")
}
