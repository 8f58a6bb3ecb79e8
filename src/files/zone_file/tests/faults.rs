//! What is wrong with one entry, where, and what the user is told.

use super::*;

/// Each text has the problems that stand beside it, and no others.
fn check(cases: &[(&str, &[&str])]) {
    for (text, expected) in cases {
        assert_eq!(problems(text), *expected, "{text}");
    }
}

#[test]
fn a_bad_entry_costs_one_problem_and_the_rest_is_read() {
    check(&[
        (
            "a A 10.0.0\nb A 10.0.0.1\nc AAAA x\n$TTL x\nd MX a b\ne",
            &[
                "1:5: A address: expected an IPv4 address such as 192.0.2.1, found `10.0.0`",
                "3:8: AAAA address: expected an IPv6 address such as 2001:db8::1, found `x`",
                "4:6: `x` is no TTL (a TTL is a number of seconds, or has units: 3600, 1h, 1h30m, 2d)",
                "5:6: MX preference: expected a number up to 65535, found `a`",
                "6:1: this line ends before a record type (a record is `[NAME] [TTL] [IN] TYPE DATA`)",
            ],
        ),
        // What continues an owner that is wrong has faults of its own, but not that one again.
        (
            "a..b A 10.0.0.1\n A 10.0.0\n A 10.0.0.2\nc A 10.0.0.3",
            &[
                "1:1: `a..b` is no domain name: a domain name has no empty labels",
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
fn what_the_reference_parser_lets_pass_or_misreads_is_found() {
    // The faults that hickory-proto 0.26 has as a parser of zone files. Those that it rejects for no reason are records
    // here, see the other tables.
    let text = "x".repeat(256);
    check(&[
        ("a 60 IN", &["1:6: this line ends before a record type (a record is `[NAME] [TTL] [IN] TYPE DATA`)"]),
        (
            "a.example. A 10.0.0.1",
            &[
                "1:1: `a.example.` is not in the zone `z.test.` (the file's name names its zone; without a final dot a name \
               is completed with it)",
            ],
        ),
        (
            "a A 10.0.0.1\na CNAME b",
            &["2:1: `a.z.test.` has a CNAME beside its A record in line 1 (a name with a CNAME has no other records \
               (RFC 1034 §3.6.2))"],
        ),
        (
            &format!("a TXT {text}"),
            &[
                "1:7: a text has at most 255 octets, this one has 256 (split it into several quoted texts, which readers put \
               together again)",
            ],
        ),
        ("a TXT", &["1:3: TXT text: missing"]),
        ("a TXT \\256", &["1:7: after a backslash stands a character or three digits up to 255"]),
        ("a 4294967295 A 10.0.0.1", &["1:3: the TTL `4294967295` is above 2147483647 seconds (RFC 2181 §8)"]),
        (
            "a A 10.0.0.1 10.0.0.2",
            &[
                "1:14: `10.0.0.2` is one field too many for A (one record stands on one line; a comment begins with `;`)",
            ],
        ),
        ("a CH A 10.0.0.1", &["1:3: class `CH`: muster serves class IN alone"]),
        ("a SVCB 1 . key9=a key9=b", &["1:19: `key9` is given twice"]),
        (
            "a LOC 42 21 54 N 71 06 18 W -24m 30m",
            &["1:7: LOC data is read in the form of RFC 3597 only (write `TYPE29 \\# LENGTH HEX`)"],
        ),
        (
            "a DNAME b",
            &[
                "1:3: a DNAME cannot be served: muster does not rewrite names (RFC 6672) (write a CNAME for each name, or a \
               wildcard CNAME)",
            ],
        ),
    ]);
}

#[test]
fn layout_that_does_not_end() {
    check(&[
        ("a TXT \"b\nc TXT \"d\"", &["1:7: this quote is not closed in its line (end the text with `\"`)"]),
        ("a TXT \"b\\\"\nc TXT \"d\"", &["1:7: this quote is not closed in its line (end the text with `\"`)"]),
        (
            "a A 10.0.0.1 )\nb A x",
            &[
                "1:14: this parenthesis closes none (one that is part of a text stands in quotes, or as `\\)`)",
                "2:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`",
            ],
        ),
        // The rest of the file is not lost with it.
        (
            "a A 10.0.0.1\n@ SOA a b (\n  1 2 3 4 5\nb A x\nc MX (\n 10 a )\nd A y (",
            &[
                "2:11: this parenthesis is never closed (end the record with `)`)",
                "4:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`",
                "7:7: this parenthesis is never closed (end the record with `)`)",
            ],
        ),
        (
            "a TXT ( \"b )\n c\nd A x",
            &[
                "1:9: this quote is not closed in its line (end the text with `\"`)",
                "3:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`",
            ],
        ),
        (
            "a TXT \"say \"hi\" now\"",
            &[
                "1:13: a blank is missing between a quoted text and what is next to it (a quote within a text is written \
               `\\\"`)",
            ],
        ),
        ("a TXT b\\", &["1:7: after a backslash stands a character or three digits up to 255"]),
        ("a TXT b\u{1}", &["1:8: a control character, octet 1 (in a text it is written `\\DDD`)"]),
        ("a TXT \"b\u{7f}\"", &["1:9: a control character in a text (it is written `\\DDD`)"]),
    ]);
}

#[test]
fn the_front_of_a_record() {
    let no_type = "this line ends before a record type (a record is `[NAME] [TTL] [IN] TYPE DATA`)";
    check(&[
        (
            " A 10.0.0.1\nb A 10.0.0.1",
            &[
                "1:2: this line begins with a blank, and there is no owner above it to continue (begin the line with a name, \
               or with `@` for the zone itself)",
            ],
        ),
        (
            "a A 10.0.0.1\n b A 10.0.0.1",
            &[
                "2:2: `b` is no record type (a line that begins with a blank continues the owner above it; a name stands at \
               its beginning)",
            ],
        ),
        ("a 10.0.0.1", &["1:3: `10.0.0.1` stands where the record's type is missing (write `A 10.0.0.1`)"]),
        ("a 60 ::1", &["1:6: `::1` stands where the record's type is missing (write `AAAA ::1`)"]),
        ("a CNMAE b", &["1:3: `CNMAE` is no record type (did you mean `CNAME`?)"]),
        ("a FOO b", &["1:3: `FOO` is no record type"]),
        ("a TYPE65536 b", &["1:3: `TYPE65536` is no record type"]),
        ("a", &[&format!("1:1: {no_type}")]),
        ("a 60", &[&format!("1:3: {no_type}")]),
        ("a 60 60 A 10.0.0.1", &["1:6: `60` is no record type"]),
        ("a IN IN A 10.0.0.1", &["1:6: `IN` is no record type"]),
        (
            "a 1h30 A 10.0.0.1",
            &["1:3: `1h30` is no TTL (a TTL is a number of seconds, or has units: 3600, 1h, 1h30m, 2d)"],
        ),
        ("a 25000d A 10.0.0.1", &["1:3: the TTL `25000d` is above 2147483647 seconds (RFC 2181 §8)"]),
        ("a CLASS3 A 10.0.0.1", &["1:3: class `CLASS3`: muster serves class IN alone"]),
        (
            "a \"A\" 10.0.0.1",
            &["1:3: `A` in quotes is no record type (the type stands before the data, without quotes)"],
        ),
        ("a TYPE300 x", &["1:11: TYPE300 data is read in the form of RFC 3597 only (write `TYPE300 \\# LENGTH HEX`)"]),
        (
            "a RRSIG x",
            &[
                "1:3: `RRSIG` belongs to a signed zone, and muster serves none yet (use the file from before it was signed)",
            ],
        ),
        (
            "a type48 \\# 0",
            &["1:3: `type48` belongs to a signed zone, and muster serves none yet (use the file from before it was \
               signed)"],
        ),
        (
            "a ANY x",
            &[
                "1:3: `ANY` is a type of questions and messages: no record can have it (RFC 6895 §3.1) (remove the line)",
            ],
        ),
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
                "1:1: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx…` is no domain name: a DNS label has at \
               most 63 octets, one here has 64",
            ],
        ),
        (
            &format!("a CNAME {long_name}"),
            &[
                "1:9: `xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx.xxxxxxxxx…` is no domain name: a domain name has at \
               most 255 octets in wire form",
            ],
        ),
        (".a A 10.0.0.1", &["1:1: `.a` is no domain name: a domain name has no empty labels"]),
        ("a NS b..", &["1:6: `b..` is no domain name: a domain name has no empty labels"]),
        (
            "a NS b\\25",
            &["1:6: `b\\25` is no domain name: after a backslash stands a character or three digits up to 255"],
        ),
        ("a NS \"b\"", &["1:6: a domain name stands without quotes (remove the quotes)"]),
        (
            "\u{fc} NS b\na NS \u{fc}ber",
            &[
                "1:1: `\u{fc}` has characters beyond ASCII (a name of another script is written in its xn-- form)",
                "2:6: `\u{fc}ber` has characters beyond ASCII (a name of another script is written in its xn-- form)",
            ],
        ),
        (
            "a MX 10 10.0.0.1",
            &[
                "1:9: `10.0.0.1` is an address, and here stands a name (give the host a name with an A record, and write that \
               name)",
            ],
        ),
    ]);
    // Four nibbles are no address in a reverse zone.
    let reverse = parse(Path::new("ip6.arpa.zone"), b"1 CNAME 1.0.0.0", DEFAULT_TTL);
    assert!(reverse.is_ok(), "{reverse:?}");
}

#[test]
fn data_of_each_kind() {
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
        ("a TLSA 3 1 1 00", &["1:8: a digest of kind 1 has 32 octets, this one has 1"]),
        ("a OPENPGPKEY A", &["1:14: OPENPGPKEY key: expected Base64, found `A`"]),
        (
            "a NS b\n DS 1 XYZ 2 00",
            &["2:7: DS algorithm: expected a number up to 255 or a mnemonic such as ED25519, found `XYZ`"],
        ),
        // RFC 3597 §5, and RFC 3597 §4: names in data are not compressed.
        ("a A \\# 4 0a0000", &["1:10: the length is given as 4, and here are 3 octets"]),
        ("a A \\# 3 0a0000", &["1:5: this is no A data: it ends within its address"]),
        ("a A \\# 5 0a00000001", &["1:5: this is no A data: it goes on after its last field"]),
        ("a A \\#", &["1:5: A length: missing"]),
        ("a A \\# x", &["1:8: A length: expected a number up to 65535, found `x`"]),
        ("a TYPE300 \\# 2 0a0", &["1:16: TYPE300 data: expected pairs of hexadecimal digits, found `0a0`"]),
        ("a NS \\# 2 c000", &["1:6: this is no NS data: its name server is no uncompressed name"]),
        ("a TXT \\# 2 0261", &["1:7: this is no TXT data: it ends within its text"]),
        ("a TXT \\# 0", &["1:7: this is no TXT data: it ends within its text"]),
        ("a CAA \\# 4 00012d00", &["1:7: this is no CAA data: its tag is not made of letters and digits"]),
    ]);
}

#[test]
fn service_parameters() {
    // RFC 9460 §2.1, §7, §8, and the failure cases of §D.3.
    check(&[
        ("a SVCB 1 . key123=a key123=b", &["1:21: `key123` is given twice"]),
        (
            "a SVCB 1 . mandatory",
            &["1:12: service parameter `mandatory`: expected names of keys, commas between, found ``"],
        ),
        ("a SVCB 1 . alpn", &["1:12: the service parameter `alpn` holds protocol names of 1 to 255 octets each"]),
        ("a SVCB 1 . port", &["1:12: service parameter `port`: expected a number up to 65535, found ``"]),
        (
            "a SVCB 1 . ipv4hint",
            &["1:12: service parameter `ipv4hint`: expected IPv4 addresses, commas between, found ``"],
        ),
        (
            "a SVCB 1 . ipv6hint=",
            &["1:12: service parameter `ipv6hint`: expected IPv6 addresses, commas between, found ``"],
        ),
        ("a SVCB 1 . alpn=h2 no-default-alpn=abc", &["1:20: the service parameter `no-default-alpn` has no value"]),
        ("a SVCB 1 . no-default-alpn", &["1:12: the service parameter `no-default-alpn` stands only beside `alpn`"]),
        (
            "a SVCB 1 . mandatory=key123",
            &["1:12: the service parameter `mandatory` names only keys that the record has"],
        ),
        ("a SVCB 1 . mandatory=mandatory", &["1:12: the service parameter `mandatory` does not name itself"]),
        (
            "a SVCB 1 . mandatory=key123,key123 key123=abc",
            &["1:12: the service parameter `mandatory` names each key once"],
        ),
        ("a SVCB 1 . port=99999", &["1:12: service parameter `port`: expected a number up to 65535, found `99999`"]),
        ("a SVCB 1 . alpn=a,,b", &["1:12: the service parameter `alpn` holds protocol names of 1 to 255 octets each"]),
        ("a SVCB 1 . ech=x", &["1:12: service parameter `ech`: expected Base64, found `x`"]),
        (
            "a SVCB 1 . foo=bar",
            &["1:12: `foo` is no service parameter (known are mandatory, alpn, no-default-alpn, port, ipv4hint, ech, \
               ipv6hint, dohpath, ohttp, and any as keyNNNNN)"],
        ),
        (
            "a SVCB 1 . key=a key01=a key65536=a",
            &["1:12: `key` is no service parameter (known are mandatory, alpn, no-default-alpn, port, ipv4hint, ech, \
               ipv6hint, dohpath, ohttp, and any as keyNNNNN)"],
        ),
        ("a SVCB 1 . key65535", &["1:12: the service parameter `key65535` is reserved"]),
        (
            "a SVCB 1 . alpn=\"h2\"port=1",
            &["1:12: service parameters are written `key=value` or `key=\"value\"`, a blank between them"],
        ),
        ("a SVCB \\# 12 0001 00 0004 0001 00 0003 00", &["1:14: the length is given as 12, and here are 11 octets"]),
        ("a SVCB \\# 7 0001 00 0004 0001", &["1:8: this is no SVCB data: its parameters end too soon"]),
        (
            "a SVCB \\# 13 0001 00 0009 0000 0009 0000 0000",
            &["1:8: this is no SVCB data: its parameters are not in the order of their keys"],
        ),
    ]);
}

#[test]
fn directives() {
    check(&[
        ("$INCLUDE x.zone", &["1:1: muster includes no files: one file holds one zone (put the records here)"]),
        (
            "$FOO x",
            &[
                "1:1: `$FOO` is no directive (those are $ORIGIN, $TTL and $GENERATE; a name that begins so is written `\\$`)",
            ],
        ),
        ("$ORIGIN", &["1:1: `$ORIGIN` has nothing behind it"]),
        ("$ORIGIN a b", &["1:11: `b` is one too many here"]),
        ("$TTL 60 60", &["1:9: `60` is one too many here"]),
        ("$TTL \"60\"", &["1:6: `60` is no TTL (a TTL is a number of seconds, or has units: 3600, 1h, 1h30m, 2d)"]),
        (
            "$GENERATE 3-1 a$ A 10.0.0.$",
            &["1:11: `3-1` is no range of numbers (a range is START-STOP or START-STOP/STEP, such as 1-254)"],
        ),
        (
            "$GENERATE 1-3/0 a$ A 10.0.0.$",
            &["1:11: `1-3/0` is no range of numbers (a range is START-STOP or START-STOP/STEP, such as 1-254)"],
        ),
        (
            "$GENERATE 1-3",
            &["1:11: the record that is to be generated is missing (such as `$GENERATE 1-9 host-$ A 10.0.0.$`)"],
        ),
        ("$GENERATE 0-65536 a$ A 10.0.0.1", &["1:11: 65537 records from one line, at most 65536 are made"]),
        (
            "$GENERATE 254-300 a$ A 10.0.0.$\nb A x",
            &[
                "1:24: with 256 for `$`: A address: expected an IPv4 address such as 192.0.2.1, found `10.0.0.256`",
                "2:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`",
            ],
        ),
        (
            "$GENERATE 1-9 a$ A 10.0.0.${-5}",
            &[
                "1:20: with 1 for `$`: `10.0.0.${-5}` cannot be filled in (behind `$` may stand `{OFFSET,WIDTH,BASE}`; the \
               result is not negative)",
            ],
        ),
    ]);
    for braced in ["", "x", "1,", "1,256", "1,1,q", "1,1,d,1", "99999999999999999999"] {
        let text = format!("$GENERATE 1-1 a${{{braced}}} A 10.0.0.1");
        let problems = problems(&text);
        assert!(problems.len() == 1 && problems[0].contains("cannot be filled in"), "{text}: {problems:?}");
    }
    // A dollar sign that begins no directive.
    assert_eq!(problems("\\$foo A 10.0.0.1\na$b A 10.0.0.1"), Vec::<String>::new());
}

#[test]
fn the_file_as_a_whole() {
    let cases: &[(&str, &[u8], &str)] = &[
        (
            "z.test",
            b"",
            "1:1: the name of this zone file does not end in `.zone` (the file that holds the zone example.org is named \
             `example.org.zone`)",
        ),
        (
            ".zone",
            b"",
            "1:1: the name of this zone file has no zone in front of `.zone` (the file that holds the zone example.org is \
             named `example.org.zone`)",
        ),
        (
            "..zone",
            b"",
            "1:1: the name of this zone file names the root, which is no zone of ours (the file that holds the zone \
             example.org is named `example.org.zone`)",
        ),
        (
            "a..b.zone",
            b"",
            "1:1: the name of this zone file holds no domain name: a domain name has no empty labels (the file that holds \
             the zone example.org is named `example.org.zone`)",
        ),
        (
            "a b.zone",
            b"",
            "1:1: the name of this zone file has ' ' in it; other scripts are written in their xn-- form (the file that \
             holds the zone example.org is named `example.org.zone`)",
        ),
        ("z.test.zone", b"a A 10.0.0.1\nb \0", "2:3: a zero octet: this is no text file"),
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
