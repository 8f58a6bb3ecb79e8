//! DNS cookies (RFC 7873), with interoperable server cookies (RFC 9018).
//!
//! A client that returns a valid server cookie has received a packet from this server: its address is not forged. Queries
//! without one are answered too; only response rate limiting distinguishes them.

use std::{hash::Hasher, net::IpAddr};

use siphasher::sip::SipHasher24;

/// Octets of a client cookie (RFC 7873 §4.1).
pub const CLIENT: usize = 8;
/// Octets of a server cookie (RFC 9018 §4).
const SERVER: usize = 16;
/// Octets of the option in a reply, without code and length.
pub const REPLY: usize = CLIENT + SERVER;
/// Valid lengths of other servers' cookies (RFC 7873 §4.2).
const SERVERS: std::ops::RangeInclusive<usize> = 8..=32;
/// Version 1 of RFC 9018, and three reserved octets.
const VERSION: [u8; 4] = [1, 0, 0, 0];
/// Lifetime of a cookie in seconds (RFC 9018 §4.3).
const LIFE: u32 = 3600;
/// Tolerated clock skew between servers with one secret, in seconds (RFC 9018 §4.3).
const AHEAD: u32 = 300;
/// Age in seconds at which a cookie is renewed (RFC 9018 §4.3).
const RENEWAL: u32 = 1800;

/// Secret of server cookies. Drawn at each start; clients adopt the new cookies.
#[derive(Clone, Copy)]
pub struct Secret([u8; 16]);

/// COOKIE option of a query.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cookie {
    client: [u8; CLIENT],
    /// `None` if absent, or of a length that this server does not issue.
    server: Option<[u8; SERVER]>,
}

/// COOKIE option of the reply, and the validity of the query's.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Checked {
    /// COOKIE option of the reply.
    pub reply: [u8; REPLY],
    /// True if the server cookie was valid: issued by this server to this address, and not expired.
    pub known: bool,
}

impl Cookie {
    /// Parses the option; `None` if its length is invalid (RFC 7873 §5.2.2).
    pub fn parse(option: &[u8]) -> Option<Self> {
        let (client, server) = option.split_first_chunk()?;
        if !server.is_empty() && !SERVERS.contains(&server.len()) {
            return None;
        }
        Some(Self { client: *client, server: server.try_into().ok() })
    }
}

impl Secret {
    /// Creates a secret from random octets.
    pub fn new(octets: [u8; 16]) -> Self {
        Self(octets)
    }

    /// Checks a client's cookie; `now` is the Unix time in seconds.
    pub fn check(&self, cookie: &Cookie, client: IpAddr, now: u32) -> Checked {
        let age = |server: &[u8; SERVER]| {
            let [_, _, _, _, time @ .., _, _, _, _, _, _, _, _] = *server;
            let time = u32::from_be_bytes(time);
            let ours = self.make(&cookie.client, client, time);
            // Serial number arithmetic (RFC 1982): the clock may pass 2106.
            let age = now.wrapping_sub(time);
            let timely = age <= LIFE || age.wrapping_neg() <= AHEAD;
            (timely && is_same(&ours, server)).then_some(age)
        };
        let known = cookie.server.as_ref().and_then(age);
        let server = match (known, cookie.server) {
            // A cookie from a clock ahead counts as new.
            (Some(age), Some(server)) if age <= RENEWAL || age > LIFE => server,
            _ => self.make(&cookie.client, client, now),
        };
        let mut reply = [0; REPLY];
        reply[..CLIENT].copy_from_slice(&cookie.client);
        reply[CLIENT..].copy_from_slice(&server);
        Checked { reply, known: known.is_some() }
    }

    /// Computes the server cookie of RFC 9018 §4.4.
    fn make(&self, cookie: &[u8; CLIENT], client: IpAddr, time: u32) -> [u8; SERVER] {
        let mut server = [0; SERVER];
        server[..4].copy_from_slice(&VERSION);
        server[4..8].copy_from_slice(&time.to_be_bytes());
        let mut hash = SipHasher24::new_with_key(&self.0);
        hash.write(cookie);
        hash.write(&server[..8]);
        match client {
            IpAddr::V4(ip) => hash.write(&ip.octets()),
            IpAddr::V6(ip) => hash.write(&ip.octets()),
        }
        server[8..].copy_from_slice(&hash.finish().to_le_bytes());
        server
    }
}

/// Compares in constant time.
fn is_same(a: &[u8; SERVER], b: &[u8; SERVER]) -> bool {
    u128::from_ne_bytes(*a) ^ u128::from_ne_bytes(*b) == 0
}

#[cfg(test)]
mod tests {
    use super::*;

    fn octets<const N: usize>(hex: &str) -> [u8; N] {
        std::array::from_fn(|at| u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).unwrap())
    }

    #[test]
    fn rfc_9018_appendix_a() {
        let v4 = "e5e973e5a6b2a43f48e7dc849e37bfcf";
        let v6 = "445536bcd2513298075a5d379663c962";
        let cases: [(&str, &str, &str, u32, &str, &str); 4] = [
            (
                "§A.1: new cookie",
                v4,
                "198.51.100.100",
                1_559_731_985,
                "2464c4abcf10c957",
                "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            ),
            (
                "§A.2: renewed after half an hour",
                v4,
                "198.51.100.100",
                1_559_734_385,
                "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
                "2464c4abcf10c957010000005cf7a871d4a564a1442aca77",
            ),
            (
                "§A.1: not renewed within half an hour",
                v4,
                "198.51.100.100",
                1_559_731_985 + 1800,
                "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
                "2464c4abcf10c957010000005cf79f111f8130c3eee29480",
            ),
            (
                "§A.4: IPv6, issued by another server",
                v6,
                "2001:db8:220:1:59de:d0f4:8769:82b8",
                1_559_741_961,
                "22681ab97d52c298010000005cf7c57926556bd0934c72f8",
                "22681ab97d52c298010000005cf7c609a6bb79d16625507a",
            ),
        ];
        for (case, secret, client, now, query, reply) in cases {
            let option: Vec<u8> =
                if query.len() == 16 { octets::<8>(query).to_vec() } else { octets::<24>(query).to_vec() };
            let cookie = Cookie::parse(&option).unwrap();
            let checked = Secret::new(octets(secret)).check(&cookie, client.parse().unwrap(), now);
            assert_eq!(checked.reply, octets::<REPLY>(reply), "{case}");
        }
    }

    #[test]
    fn cookie_is_valid_for_its_address_and_lifetime() {
        let (secret, now) = (Secret::new([7; 16]), 1_700_000_000);
        let (here, there): (IpAddr, IpAddr) = ("192.0.2.1".parse().unwrap(), "192.0.2.2".parse().unwrap());
        let given = secret.check(&Cookie::parse(&[1; 8]).unwrap(), here, now).reply;
        let mut bent = given;
        bent[REPLY - 1] ^= 1;
        let mut version = given;
        version[CLIENT] = 2;
        let cases: [(&str, &[u8], IpAddr, u32, bool); 10] = [
            ("valid", &given, here, now, true),
            ("after an hour", &given, here, now + LIFE, true),
            ("expired", &given, here, now + LIFE + 1, false),
            ("from a clock ahead", &given, here, now - AHEAD, true),
            ("from too far ahead", &given, here, now - AHEAD - 1, false),
            ("of another address", &given, there, now, false),
            ("one bit wrong", &bent, here, now, false),
            ("another version", &version, here, now, false),
            ("no server cookie", &given[..CLIENT], here, now, false),
            ("another server's length", &[&given[..], &[0]].concat(), here, now, false),
        ];
        for (case, option, client, now, known) in cases {
            let checked = secret.check(&Cookie::parse(option).unwrap(), client, now);
            assert_eq!(checked.known, known, "{case}");
            // The cookie of the reply is always valid.
            let next = secret.check(&Cookie::parse(&checked.reply).unwrap(), client, now);
            assert!(next.known, "{case}");
        }
    }

    #[test]
    fn rfc_7873_5_2_2_lengths() {
        for (len, is_one) in
            [(0, false), (7, false), (8, true), (9, false), (15, false), (16, true), (40, true), (41, false)]
        {
            assert_eq!(Cookie::parse(&vec![0; len]).is_some(), is_one, "{len}");
        }
    }
}
