//! Hostile texts: each is read to its end in bounded memory, without a panic.

use super::*;
use crate::files::zone_file::{MAX_RECORDS, MAX_ZONE_FILE};

#[test]
fn hostile_texts_have_a_bounded_number_of_errors() {
    let long = 300_000;
    let texts = [
        "(".repeat(long),
        ")".repeat(long),
        "\"".repeat(long),
        "a (\n".repeat(long / 4),
        "\\".repeat(long),
        "a ".repeat(long),
        "a".repeat(long),
        ".".repeat(long),
        "$".repeat(long),
        format!("a A \\# 4 {}", "0".repeat(long)),
        format!("a TXT {}", "x ".repeat(long)),
        format!("a TXT \"{}", "x".repeat(long)),
        format!("a SVCB 1 . {}", "key1 ".repeat(long / 5)),
        format!("a SVCB 1 . alpn={}", ",".repeat(long)),
        format!("a MX {} b", "0".repeat(long)),
        format!("a {} A 10.0.0.1", "1h".repeat(long)),
        format!("$GENERATE 1-65536 a TXT {}", "${0,255} ".repeat(long / 9)),
    ];
    for text in texts {
        let problems = problems(&text);
        let start: String = text.chars().take(40).collect();
        assert!((1..=101).contains(&problems.len()), "{start}: {}", problems.len());
        assert!(problems.iter().all(|problem| problem.len() < 1000), "{start}: {problems:?}");
    }
}

#[test]
fn sizes_are_bounded() {
    assert_eq!(
        problems(vec![b' '; MAX_ZONE_FILE + 1]),
        ["1:1: the file has 67108865 octets; a zone file has at most 67108864"]
    );
    let directives = MAX_RECORDS / 65_536;
    let text = "$GENERATE 0-65535 a A 10.0.0.1\n".repeat(directives);
    assert_eq!(problems(&text), Vec::<String>::new());
    let rest = MAX_RECORDS - directives * 65_536;
    assert_eq!(
        problems(format!("{text}$GENERATE 0-{rest} a A 10.0.0.1\nb A x")),
        [format!(
            "16:19: for `$` = {rest}: the zone is too large: it has more than 1000000 records or 67108864 octets of RDATA"
        )]
    );
}

#[test]
fn mutations_of_valid_files_do_not_panic() {
    let samples = reference::SAMPLES.map(|(path, text)| (path, text.as_bytes()));
    let bits: &[&[u8]] = &[
        b"(",
        b")",
        b"\"",
        b"\\",
        b";",
        b"\n",
        b"\r",
        b"\t",
        b" ",
        b"$",
        b"@",
        b".",
        b"\\#",
        b"\\25",
        b"\0",
        b"\xff",
        b"\x1b",
        b"$GENERATE 1-9 ",
        b"${",
        b"$ORIGIN ",
        b"CNAME",
        b"NS",
        b"SVCB",
        b"mandatory=",
        b"=",
        b"1w",
        b"4294967296",
    ];
    let mut random = fastrand::Rng::with_seed(0x6d75_7374_6572);
    let mut good = 0;
    for round in 0..3000 {
        let (path, text) = samples[round % samples.len()];
        let mut text = text.to_vec();
        for _ in 0..random.usize(1..=4) {
            let at = random.usize(0..text.len());
            let end = (at + random.usize(0..12)).min(text.len());
            match random.u8(0..4) {
                0 => text[at] = random.u8(..),
                1 => drop(text.drain(at..end)),
                2 => drop(text.splice(at..at, random.choice(bits).copied().unwrap_or_default().iter().copied())),
                _ => {
                    let copy = text[at..end].to_vec();
                    let to = random.usize(0..text.len());
                    drop(text.splice(to..to, copy));
                }
            }
        }
        match parse(Path::new(path), &text, DEFAULT_TTL) {
            Ok(zone) => {
                good += 1;
                for record in &zone.records {
                    assert!(record.owner.within(&zone.origin).is_some());
                    // The reference refuses protocol names in SVCB and HTTPS that are not UTF-8; RFC 9460 allows them.
                    if !matches!(record.rtype, 64 | 65) {
                        decode(record);
                    }
                }
                zone.check_apex(Path::new(path));
                zone.check_targets(Path::new(path));
            }
            Err(problems) => {
                let last = text.iter().filter(|octet| matches!(octet, b'\n' | b'\r')).count() + 1;
                assert!(!problems.is_empty() && problems.is_sorted());
                assert!(problems.iter().all(|problem| (1..=last).contains(&problem.line) && problem.column > 0));
            }
        }
    }
    // Both outcomes were tried.
    assert!((300..2700).contains(&good), "{good}");
}
