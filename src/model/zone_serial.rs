//! Serial numbers of zones: their order (RFC 1982), and the number that a node reserves at once.

/// Serials reserved by one write. At 1000 changes per second, a ceiling is stored every half minute.
pub const RESERVE: u32 = 1 << 16;

/// Reports whether `a` follows `b` (RFC 1982 §3.2).
pub fn is_later(a: u32, b: u32) -> bool {
    a != b && a.wrapping_sub(b) < 1 << 31
}
