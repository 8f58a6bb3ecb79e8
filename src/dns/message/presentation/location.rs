//! Text of LOC records: geographical locations (RFC 1876).

/// Latitude of the equator and longitude of the prime meridian, in thousandths of an arc second (RFC 1876 §2).
const ORIGIN: i64 = 1 << 31;
/// Altitude 100,000 m below the reference spheroid, in centimetres (RFC 1876 §2).
const BASE: i64 = 10_000_000;

/// Returns the text of RDATA of version 0; `None` for another form.
pub(super) fn text(octets: &[u8]) -> Option<String> {
    let [0, size, horizontal, vertical, coordinates @ ..] = octets else { return None };
    let coordinates: [u8; 12] = coordinates.try_into().ok()?;
    let number = |at: usize| coordinates[at..at + 4].iter().fold(0, |number, octet| number << 8 | i64::from(*octet));
    let latitude = angle(number(0) - ORIGIN, ['N', 'S']);
    let longitude = angle(number(4) - ORIGIN, ['E', 'W']);
    let altitude = metres(number(8) - BASE);
    let [size, horizontal, vertical] = [precision(*size)?, precision(*horizontal)?, precision(*vertical)?];
    Some(format!("{latitude} {longitude} {altitude} {size} {horizontal} {vertical}"))
}

/// Formats thousandths of an arc second. `signs` are those of positive and negative angles.
fn angle(thousandths: i64, signs: [char; 2]) -> String {
    let (sign, angle) = (signs[usize::from(thousandths < 0)], thousandths.abs());
    let (degrees, minutes, seconds) = (angle / 3_600_000, angle / 60_000 % 60, angle % 60_000);
    format!("{degrees} {minutes} {}.{:03} {sign}", seconds / 1000, seconds % 1000)
}

fn metres(centimetres: i64) -> String {
    let sign = if centimetres < 0 { "-" } else { "" };
    format!("{sign}{}.{:02}m", centimetres.abs() / 100, centimetres.abs() % 100)
}

/// Formats a digit and a power of ten in centimetres; `None` if one of them is above 9.
fn precision(octet: u8) -> Option<String> {
    let (digit, power) = (octet >> 4, octet & 0xf);
    (digit <= 9 && power <= 9).then(|| metres(i64::from(digit) * 10_i64.pow(power.into())))
}
