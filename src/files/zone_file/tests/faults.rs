//! Errors of single entries: position, message and hint.

use super::*;

/// Checks that each text has exactly these errors.
fn check(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(problems(text), *expected, "{text}");
    }
}

#[test]
fn locations_are_within_their_ranges() {
    // RFC 1876 §3. `named-rrchecker` 9.18 refuses the same.
    let example = "(such as `52 22 23.000 N 4 53 32.000 E -2.00m 0.00m 10000m 10m`)";
    let degrees = "expected degrees up to 90, minutes and seconds up to 59";
    check(&[
        ("a LOC 91 N 0 E 0", &[&format!("1:7: LOC latitude: {degrees}, found `91` {example}")]),
        ("a LOC 1 60 N 0 E 0", &[&format!("1:9: LOC latitude: {degrees}, found `60` {example}")]),
        ("a LOC 1 1 1.0001 N 0 E 0", &[&format!("1:11: LOC latitude: {degrees}, found `1.0001` {example}")]),
        ("a LOC 90 0 1 N 0 E 0", &[&format!("1:7: LOC latitude: expected at most 90 degrees, found `90` {example}")]),
        ("a LOC 1 E 0 E 0", &[&format!("1:9: LOC latitude: {degrees}, found `E` {example}")]),
        ("a LOC 1 N 0 E", &[&format!("1:13: LOC altitude: missing {example}")]),
        (
            "a LOC 1 N 0 E -100001m",
            &[&format!(
                "1:15: LOC altitude: expected metres from -100000.00 to 42849672.95, found `-100001m` {example}"
            )],
        ),
        (
            "a LOC 1 N 0 E 0 90000001m",
            &[&format!("1:17: LOC size: expected metres from 0.00 to 90000000.00, found `90000001m` {example}")],
        ),
    ]);
}

#[test]
fn invalid_entry_is_one_error_and_the_rest_is_read() {
    check(&[
        (
            "a A 10.0.0\nb A 10.0.0.1\nc AAAA x\n$TTL x\nd MX a b\ne",
            &[
                "1:5: A address: expected an IPv4 address such as 192.0.2.1, found `10.0.0`",
                "3:8: AAAA address: expected an IPv6 address such as 2001:db8::1, found `x`",
                "4:6: `x` is not a TTL (a TTL is a number of seconds, or has units: 3600, 1h, 1h30m, 2d)",
                "5:6: MX preference: expected a number up to 65535, found `a`",
                "6:1: the record has no type (a record is `[NAME] [TTL] [IN] TYPE DATA`)",
            ],
        ),
        // Continuation lines of an invalid owner report their own errors only.
        (
            "a..b A 10.0.0.1\n A 10.0.0\n A 10.0.0.2\nc A 10.0.0.3",
            &[
                "1:1: `a..b` is not a domain name: a domain name has no empty labels",
                "2:4: A address: expected an IPv4 address such as 192.0.2.1, found `10.0.0`",
            ],
        ),
        (
            "@ SOA a b (\n  1 2x\n  3 4 5 )\n  MX 10",
            &[
                "2:5: SOA refresh: expected a time below 68 years such as 3600, 1h or 1h30m, found `2x`",
                "4:6: MX mail server: missing",
            ],
        ),
    ]);
}

#[test]
fn errors_that_the_reference_parser_accepts_or_misreads_are_reported() {
    // Known errors of the zone file parser of hickory-proto 0.26. Valid records that it rejects are in the other tables.
    let text = "x".repeat(256);
    check(&[
        ("a 60 IN", &["1:6: the record has no type (a record is `[NAME] [TTL] [IN] TYPE DATA`)"]),
        (
            "a.example. A 10.0.0.1",
            &[
                "1:1: `a.example.` is not in the zone `z.test.` (the zone is the file's name; a name without a final dot is relative to the origin)",
            ],
        ),
        (
            "a A 10.0.0.1\na CNAME b",
            &[
                "2:1: `a.z.test.` has a CNAME in addition to its A record in line 1 (a name with a CNAME can have no other records \
               (RFC 1034 §3.6.2))",
            ],
        ),
        (
            &format!("a TXT {text}"),
            &[
                "1:7: a character-string has at most 255 octets, this one has 256 (split it into several quoted strings)",
            ],
        ),
        ("a TXT", &["1:3: TXT text: missing"]),
        ("a TXT \\256", &["1:7: a backslash must be followed by a character or by three digits up to 255"]),
        ("a 4294967295 A 10.0.0.1", &["1:3: the TTL `4294967295` exceeds 2147483647 seconds (RFC 2181 §8)"]),
        (
            "a A 10.0.0.1 10.0.0.2",
            &["1:14: unexpected field `10.0.0.2` in A (write one record per line; a comment begins with `;`)"],
        ),
        ("a CH A 10.0.0.1", &["1:3: class `CH`: only class IN is supported"]),
        ("a SVCB 1 . key9=a key9=b", &["1:19: duplicate service parameter `key9`"]),
    ]);
}

#[test]
fn unclosed_quotes_and_parentheses() {
    check(&[
        ("a TXT \"b\nc TXT \"d\"", &["1:7: the quoted text does not end on its line (end the text with `\"`)"]),
        ("a TXT \"b\\\"\nc TXT \"d\"", &["1:7: the quoted text does not end on its line (end the text with `\"`)"]),
        (
            "a A 10.0.0.1 )\nb A x",
            &[
                "1:14: unmatched `)` (quote a literal parenthesis, or write `\\)`)",
                "2:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`",
            ],
        ),
        // The rest of the file is still read.
        (
            "a A 10.0.0.1\n@ SOA a b (\n  1 2 3 4 5\nb A x\nc MX (\n 10 a )\nd A y (",
            &[
                "2:11: unclosed `(` (end the record with `)`)",
                "4:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`",
                "7:7: unclosed `(` (end the record with `)`)",
            ],
        ),
        (
            "a TXT ( \"b )\n c\nd A x",
            &[
                "1:9: the quoted text does not end on its line (end the text with `\"`)",
                "3:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`",
            ],
        ),
        (
            "a TXT \"say \"hi\" now\"",
            &["1:13: a blank is missing before or after quoted text (within text, a quote is written \
               `\\\"`)"],
        ),
        ("a TXT b\\", &["1:7: a backslash must be followed by a character or by three digits up to 255"]),
        ("a TXT b\u{1}", &["1:8: control character, octet 1 (write it as `\\DDD`)"]),
        ("a TXT \"b\u{7f}\"", &["1:9: control character in quoted text (write it as `\\DDD`)"]),
    ]);
}

#[test]
fn owner_ttl_class_and_type() {
    let no_type = "the record has no type (a record is `[NAME] [TTL] [IN] TYPE DATA`)";
    check(&[
        (
            " A 10.0.0.1\nb A 10.0.0.1",
            &["1:2: the line begins with a blank, but no owner precedes it (begin the line with a name, \
               or with `@` for the origin)"],
        ),
        (
            "a A 10.0.0.1\n b A 10.0.0.1",
            &[
                "2:2: unknown record type `b` (a line that begins with a blank has the previous owner; begin the line with a new owner)",
            ],
        ),
        ("a 10.0.0.1", &["1:3: the record type is missing before `10.0.0.1` (write `A 10.0.0.1`)"]),
        ("a 60 ::1", &["1:6: the record type is missing before `::1` (write `AAAA ::1`)"]),
        ("a CNMAE b", &["1:3: unknown record type `CNMAE` (did you mean `CNAME`?)"]),
        ("a FOO b", &["1:3: unknown record type `FOO`"]),
        ("a TYPE65536 b", &["1:3: unknown record type `TYPE65536`"]),
        ("a", &[&format!("1:1: {no_type}")]),
        ("a 60", &[&format!("1:3: {no_type}")]),
        ("a 60 60 A 10.0.0.1", &["1:6: unknown record type `60`"]),
        ("a IN IN A 10.0.0.1", &["1:6: unknown record type `IN`"]),
        (
            "a 1h30 A 10.0.0.1",
            &["1:3: `1h30` is not a TTL (a TTL is a number of seconds, or has units: 3600, 1h, 1h30m, 2d)"],
        ),
        ("a 25000d A 10.0.0.1", &["1:3: the TTL `25000d` exceeds 2147483647 seconds (RFC 2181 §8)"]),
        ("a CLASS3 A 10.0.0.1", &["1:3: class `CLASS3`: only class IN is supported"]),
        (
            "a \"A\" 10.0.0.1",
            &["1:3: quoted `A` is not a record type (write the type without quotes, before the data)"],
        ),
        ("a TYPE300 x", &["1:11: TYPE300 is supported in RFC 3597 form only (write `TYPE300 \\# LENGTH HEX`)"]),
        (
            "a SIG x",
            &["1:3: `SIG` is obsolete (RFC 3755) (use RRSIG, DNSKEY and NSEC, as tools that sign zones write them)"],
        ),
        ("a type48 \\# 0", &["1:10: not valid as DNSKEY RDATA: it ends within its flags"]),
        ("a ANY x", &["1:3: `ANY` is a query or meta type: no record can have it (RFC 6895 §3.1) (remove the line)"]),
    ]);
}

#[test]
fn names() {
    let long_label = "x".repeat(64);
    let long_name = ["x".repeat(50).as_str(); 5].join(".");
    check(&[
        (
            &format!("{long_label} A 10.0.0.1"),
            &[
                "1:1: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…` is not a domain name: a DNS label has at \
               most 63 octets, one here has 64",
            ],
        ),
        (
            &format!("a CNAME {long_name}"),
            &[
                "1:9: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxx…` is not a domain name: a domain name has at \
               most 255 octets in wire form",
            ],
        ),
        (".a A 10.0.0.1", &["1:1: `.a` is not a domain name: a domain name has no empty labels"]),
        ("a NS b..", &["1:6: `b..` is not a domain name: a domain name has no empty labels"]),
        (
            "a NS b\\25",
            &[
                "1:6: `b\\25` is not a domain name: a backslash must be followed by a character or by three digits up to 255",
            ],
        ),
        ("a NS \"b\"", &["1:6: a domain name must not be quoted (remove the quotes)"]),
        (
            "\u{fc} NS b\na NS \u{fc}ber",
            &[
                "1:1: `\u{fc}` has non-ASCII characters (write internationalized names in xn-- form)",
                "2:6: `\u{fc}ber` has non-ASCII characters (write internationalized names in xn-- form)",
            ],
        ),
        (
            "a MX 10 10.0.0.1",
            &[
                "1:9: expected a name, found the address `10.0.0.1` (give the host a name with an A record, and write that \
               name)",
            ],
        ),
    ]);
    // In a reverse zone four numbers are nibbles, not an address.
    let reverse = parse(Path::new("ip6.arpa.zone"), b"1 CNAME 1.0.0.0", DEFAULT_TTL);
    assert!(reverse.is_ok(), "{reverse:?}");
}

#[test]
fn rdata_of_each_kind() {
    check(&[
        ("a A ::1", &["1:5: A address: expected an IPv4 address, found `::1` (an IPv6 address has the type AAAA)"]),
        (
            "a AAAA 10.0.0.1",
            &["1:8: AAAA address: expected an IPv6 address, found `10.0.0.1` (an IPv4 address has the type A)"],
        ),
        ("a A \"10.0.0.1\"", &["1:5: A address: expected an IPv4 address such as 192.0.2.1, found `10.0.0.1`"]),
        ("a SRV 0 0 65536 b", &["1:11: SRV port: expected a number up to 65535, found `65536`"]),
        ("a SRV 0 0 -1 b", &["1:11: SRV port: expected a number up to 65535, found `-1`"]),
        ("@ SOA a b 4294967296 1 1 1 1", &["1:11: SOA serial: expected a number up to 4294967295, found `4294967296`"]),
        ("a CAA 256 issue b", &["1:7: CAA flags: expected a number up to 255, found `256`"]),
        ("a CAA 0 \"\" b", &["1:9: CAA tag: expected letters and digits such as `issue`, found ``"]),
        ("a TLSA 3 1 1 0g", &["1:14: TLSA association data: expected pairs of hexadecimal digits, found `0g`"]),
        ("a TLSA 3 1 1 00", &["1:8: a digest of type 1 has 32 octets, this one has 1"]),
        ("a OPENPGPKEY A", &["1:14: OPENPGPKEY key: expected Base64, found `A`"]),
        (
            "a NS b\n DS 1 XYZ 2 00",
            &["2:7: DS algorithm: expected a number up to 255 or a mnemonic such as ED25519, found `XYZ`"],
        ),
        // RFC 3597 §5 and §4: names in RDATA are not compressed.
        ("a A \\# 4 0a0000", &["1:10: the length is given as 4, but the data has 3 octets"]),
        ("a A \\# 3 0a0000", &["1:5: not valid as A RDATA: it ends within its address"]),
        ("a A \\# 5 0a00000001", &["1:5: not valid as A RDATA: octets follow its last field"]),
        ("a A \\#", &["1:5: A length: missing"]),
        ("a A \\# x", &["1:8: A length: expected a number up to 65535, found `x`"]),
        ("a TYPE300 \\# 2 0a0", &["1:16: TYPE300 data: expected pairs of hexadecimal digits, found `0a0`"]),
        ("a NS \\# 2 c000", &["1:6: not valid as NS RDATA: its name server is not an uncompressed name"]),
        ("a TXT \\# 2 0261", &["1:7: not valid as TXT RDATA: it ends within its text"]),
        ("a TXT \\# 0", &["1:7: not valid as TXT RDATA: it ends within its text"]),
        ("a CAA \\# 4 00012d00", &["1:7: not valid as CAA RDATA: its tag is not made of letters and digits"]),
    ]);
}

#[test]
fn service_parameters() {
    // RFC 9460 §2.1, §7, §8, and the failure cases of §D.3.
    check(&[
        ("a SVCB 1 . key123=a key123=b", &["1:21: duplicate service parameter `key123`"]),
        ("a SVCB 1 . mandatory", &["1:12: service parameter `mandatory`: expected comma-separated keys, found ``"]),
        ("a SVCB 1 . alpn", &["1:12: the service parameter `alpn` needs protocol names of 1 to 255 octets each"]),
        ("a SVCB 1 . port", &["1:12: service parameter `port`: expected a number up to 65535, found ``"]),
        (
            "a SVCB 1 . ipv4hint",
            &["1:12: service parameter `ipv4hint`: expected comma-separated IPv4 addresses, found ``"],
        ),
        (
            "a SVCB 1 . ipv6hint=",
            &["1:12: service parameter `ipv6hint`: expected comma-separated IPv6 addresses, found ``"],
        ),
        ("a SVCB 1 . alpn=h2 no-default-alpn=abc", &["1:20: the service parameter `no-default-alpn` takes no value"]),
        ("a SVCB 1 . no-default-alpn", &["1:12: the service parameter `no-default-alpn` requires `alpn`"]),
        ("a SVCB 1 . mandatory=key123", &["1:12: the service parameter `mandatory` must list only keys of the record"]),
        ("a SVCB 1 . mandatory=mandatory", &["1:12: the service parameter `mandatory` must not list itself"]),
        (
            "a SVCB 1 . mandatory=key123,key123 key123=abc",
            &["1:12: the service parameter `mandatory` must list each key once"],
        ),
        ("a SVCB 1 . port=99999", &["1:12: service parameter `port`: expected a number up to 65535, found `99999`"]),
        ("a SVCB 1 . alpn=a,,b", &["1:12: the service parameter `alpn` needs protocol names of 1 to 255 octets each"]),
        ("a SVCB 1 . ech=x", &["1:12: service parameter `ech`: expected Base64, found `x`"]),
        (
            "a SVCB 1 . foo=bar",
            &[
                "1:12: unknown service parameter `foo` (known are mandatory, alpn, no-default-alpn, port, ipv4hint, ech, \
               ipv6hint, dohpath, ohttp; others are written keyNNNNN)",
            ],
        ),
        (
            "a SVCB 1 . key=a key01=a key65536=a",
            &[
                "1:12: unknown service parameter `key` (known are mandatory, alpn, no-default-alpn, port, ipv4hint, ech, \
               ipv6hint, dohpath, ohttp; others are written keyNNNNN)",
            ],
        ),
        ("a SVCB 1 . key65535", &["1:12: the service parameter `key65535` is reserved"]),
        (
            "a SVCB 1 . alpn=\"h2\"port=1",
            &["1:12: service parameters are written `key=value` or `key=\"value\"`, separated by blanks"],
        ),
        (
            "a SVCB \\# 12 0001 00 0004 0001 00 0003 00",
            &["1:14: the length is given as 12, but the data has 11 octets"],
        ),
        ("a SVCB \\# 7 0001 00 0004 0001", &["1:8: not valid as SVCB RDATA: its parameters are truncated"]),
        (
            "a SVCB \\# 13 0001 00 0009 0000 0009 0000 0000",
            &["1:8: not valid as SVCB RDATA: its parameters are not sorted by key"],
        ),
    ]);
}

#[test]
fn directives() {
    check(&[
        (
            "$INCLUDE x.zone",
            &[
                "1:10: cannot include `x.zone`: it is not read: a zone file includes at most 100 files (included files are in the \
               folder of the zone files or below it; paths are relative to that folder)",
            ],
        ),
        (
            "$FOO x",
            &[
                "1:1: unknown directive `$FOO` (directives are $ORIGIN, $TTL, $INCLUDE and $GENERATE; a name that begins with `$` is written `\\$`)",
            ],
        ),
        ("$ORIGIN", &["1:1: `$ORIGIN` needs a value"]),
        ("$ORIGIN a b", &["1:11: unexpected `b`"]),
        ("$TTL 60 60", &["1:9: unexpected `60`"]),
        ("$TTL \"60\"", &["1:6: `60` is not a TTL (a TTL is a number of seconds, or has units: 3600, 1h, 1h30m, 2d)"]),
        (
            "$GENERATE 3-1 a$ A 10.0.0.$",
            &["1:11: `3-1` is not a range (a range is START-STOP or START-STOP/STEP, such as 1-254)"],
        ),
        (
            "$GENERATE 1-3/0 a$ A 10.0.0.$",
            &["1:11: `1-3/0` is not a range (a range is START-STOP or START-STOP/STEP, such as 1-254)"],
        ),
        ("$GENERATE 1-3", &["1:11: $GENERATE has no record (such as `$GENERATE 1-9 host-$ A 10.0.0.$`)"]),
        ("$GENERATE 0-65536 a$ A 10.0.0.1", &["1:11: 65537 records from one directive, at most 65536 are allowed"]),
        (
            "$GENERATE 254-300 a$ A 10.0.0.$\nb A x",
            &[
                "1:24: for `$` = 256: A address: expected an IPv4 address such as 192.0.2.1, found `10.0.0.256`",
                "2:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`",
            ],
        ),
        (
            "$GENERATE 1-9 a$ A 10.0.0.${-5}",
            &[
                "1:20: for `$` = 1: invalid template `10.0.0.${-5}` (`$` may be followed by `{OFFSET,WIDTH,BASE}`; the result must not be negative)",
            ],
        ),
    ]);
    for braced in ["", "x", "1,", "1,256", "1,1,q", "1,1,d,1", "99999999999999999999"] {
        let text = format!("$GENERATE 1-1 a${{{braced}}} A 10.0.0.1");
        let problems = problems(&text);
        assert!(problems.len() == 1 && problems[0].contains("invalid template"), "{text}: {problems:?}");
    }
    // A dollar sign that does not begin a directive.
    assert_eq!(problems("\\$foo A 10.0.0.1\na$b A 10.0.0.1"), Vec::<String>::new());
}

#[test]
fn file_name_and_encoding() {
    let cases: &[(&str, &[u8], &str)] = &[
        (
            "z.test",
            b"",
            "1:1: the name of this zone file is not `NAME.zone`, `NAME.db` or `db.NAME` (the file that holds the zone example.org is named \
             `example.org.zone`)",
        ),
        (
            ".zone",
            b"",
            "1:1: the name of this zone file has no zone (the file that holds the zone example.org is \
             named `example.org.zone`)",
        ),
        (
            "..zone",
            b"",
            "1:1: the name of this zone file names the root zone, which is not supported (the file that holds the zone \
             example.org is named `example.org.zone`)",
        ),
        (
            "a..b.zone",
            b"",
            "1:1: the name of this zone file is not a domain name: a domain name has no empty labels (the file that holds \
             the zone example.org is named `example.org.zone`)",
        ),
        (
            "a b.zone",
            b"",
            "1:1: the name of this zone file contains ' '; write internationalized names in xn-- form (the file that \
             holds the zone example.org is named `example.org.zone`)",
        ),
        (
            "db.127",
            b"",
            "1:1: the name of this zone file is not that of a zone: the file of a reverse zone is named such as \
             `10.in-addr.arpa.zone` (the file that holds the zone example.org is named `example.org.zone`)",
        ),
        ("z.test.zone", b"a A 10.0.0.1\nb \0", "2:3: NUL octet: this is not a text file"),
        ("z.test.zone", b"\xff\xfea\0", "1:1: the file is written in UTF-16 (save it as UTF-8)"),
    ];
    for (path, text, expected) in cases {
        let problems = parse(Path::new(path), text, DEFAULT_TTL).unwrap_err();
        assert_eq!(lines(&problems), [*expected], "{path}");
    }
}

#[test]
fn many_problems_are_counted() {
    let problems = problems("a A x\n".repeat(1234));
    assert_eq!(problems.len(), 101);
    assert_eq!(problems[99], "100:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`");
    assert_eq!(problems[100], "100:5: and 1134 more problems");
}
