//! Valid entries and their records.

use super::*;

#[test]
fn omitted_fields_come_from_previous_lines() {
    // RFC 1035 §5.1, RFC 2308 §4.
    let cases: &[(&str, &[&str])] = &[
        ("a A 10.0.0.1", &["a.z.test. 5 IN A 10.0.0.1"]),
        ("a 60 A 10.0.0.1", &["a.z.test. 60 IN A 10.0.0.1"]),
        ("a IN A 10.0.0.1", &["a.z.test. 5 IN A 10.0.0.1"]),
        ("a 60 IN A 10.0.0.1", &["a.z.test. 60 IN A 10.0.0.1"]),
        ("a IN 60 A 10.0.0.1", &["a.z.test. 60 IN A 10.0.0.1"]),
        ("A class1 0 type1 10.0.0.1", &["a.z.test. 0 IN A 10.0.0.1"]),
        ("in in mx 1 mx", &["in.z.test. 5 IN MX 1 mx.z.test."]),
        (
            "a A 10.0.0.1\n A 10.0.0.2\n\tAAAA ::1",
            &["a.z.test. 5 IN A 10.0.0.1", "a.z.test. 5 IN A 10.0.0.2", "a.z.test. 5 IN AAAA ::1"],
        ),
        (
            "@ NS a.\nz.test. TXT x\nb.Z.TEST. CNAME @",
            &["z.test. 5 IN NS a.", "z.test. 5 IN TXT x", "b.z.test. 5 IN CNAME z.test."],
        ),
        (
            "$ORIGIN sub\na CNAME b\n$ORIGIN z.test.\nc CNAME @\n$ORIGIN test.\nd.z CNAME e",
            &["a.sub.z.test. 5 IN CNAME b.sub.z.test.", "c.z.test. 5 IN CNAME z.test.", "d.z.test. 5 IN CNAME e.test."],
        ),
        (
            "a A 10.0.0.1\nb 60 A 10.0.0.1\nc A 10.0.0.1\n$TTL 70\nd A 10.0.0.1\ne 80 A 10.0.0.1\nf A 10.0.0.1",
            &[
                "a.z.test. 5 IN A 10.0.0.1",
                "b.z.test. 60 IN A 10.0.0.1",
                "c.z.test. 60 IN A 10.0.0.1",
                "d.z.test. 70 IN A 10.0.0.1",
                "e.z.test. 80 IN A 10.0.0.1",
                "f.z.test. 70 IN A 10.0.0.1",
            ],
        ),
        // As BIND 9.18: without a TTL at the SOA, its minimum is the default.
        (
            "@ SOA a b 1 2 3 4 300\nc A 10.0.0.1\nd 60 A 10.0.0.1\ne A 10.0.0.1",
            &[
                "z.test. 300 IN SOA a.z.test. b.z.test. 1 2 3 4 300",
                "c.z.test. 300 IN A 10.0.0.1",
                "d.z.test. 60 IN A 10.0.0.1",
                "e.z.test. 300 IN A 10.0.0.1",
            ],
        ),
        (
            "@ 1000 SOA a b 1 2 3 4 300\nc A 10.0.0.1\nd 60 A 10.0.0.1\ne A 10.0.0.1",
            &[
                "z.test. 1000 IN SOA a.z.test. b.z.test. 1 2 3 4 300",
                "c.z.test. 1000 IN A 10.0.0.1",
                "d.z.test. 60 IN A 10.0.0.1",
                "e.z.test. 60 IN A 10.0.0.1",
            ],
        ),
        (
            "$TTL 70\n@ SOA a b 1 2 3 4 300\nc A 10.0.0.1",
            &["z.test. 70 IN SOA a.z.test. b.z.test. 1 2 3 4 300", "c.z.test. 70 IN A 10.0.0.1"],
        ),
        ("", &[]),
        ("; nothing\n\n   \n\t; more nothing\n( ; still nothing\n)", &[]),
    ];
    for (text, expected) in cases {
        assert_eq!(records(text), *expected, "{text}");
    }
}

#[test]
fn layout_does_not_change_records() {
    // RFC 1035 §5.1: blanks, comments, parentheses, line ends, byte-order marks.
    let soa = "z.test. 60 IN SOA ns.z.test. h.z.test. 1 2 3 4 5";
    let address = "a.z.test. 60 IN A 10.0.0.1";
    let cases: &[(&str, &[&str])] = &[
        ("@ 60 SOA ns h 1 2 3 4 5\na 60 A 10.0.0.1\n", &[soa, address]),
        ("@ 60 SOA ns h 1 2 3 4 5\r\na 60 A 10.0.0.1\r\n", &[soa, address]),
        ("@ 60 SOA ns h 1 2 3 4 5 ; note\ra 60 A 10.0.0.1", &[soa, address]),
        ("\u{feff}@ 60 SOA ns h 1 2 3 4 5\na 60 A 10.0.0.1", &[soa, address]),
        ("@\t60\tSOA\tns\th\t1\t2\t3\t4\t5\t\na\t60\tA\t10.0.0.1;note", &[soa, address]),
        ("@ 60 SOA ns h (\n 1 ; serial ) \"\n 2 3\n\n4\n 5 )\na 60 A 10.0.0.1", &[soa, address]),
        ("@ 60 SOA ns h (1 2)(3)((4)5)\n(a 60\n) A (10.0.0.1)", &[soa, address]),
    ];
    for (text, expected) in cases {
        assert_eq!(records(text), *expected, "{text}");
    }
}

#[test]
fn times_can_have_units() {
    let cases = [
        ("0", 0),
        ("3600", 3600),
        ("1h", 3600),
        ("1H30m", 5400),
        ("1w2d3h4m5s", 788_645),
        ("2147483647", 2_147_483_647),
    ];
    for (text, seconds) in cases {
        let zone = read(format!("$TTL {text}\n@ SOA a b 1 {text} 3 4 5")).unwrap();
        assert_eq!(zone.records[0].ttl, seconds, "{text}");
        let refresh = decode(&zone.records[0]).to_string();
        assert!(refresh.ends_with(&format!(" 1 {seconds} 3 4 5")), "{refresh}");
    }
}

#[test]
fn names_can_hold_any_octet() {
    // RFC 1035 §5.1, RFC 2181 §11.
    let label = "x".repeat(63);
    // 3 × 64 octets, 55, and 8 of the zone.
    let name = format!("{label}.{label}.{label}.{}", "x".repeat(54));
    let cases: &[(&str, &[u8])] = &[
        (r"a\.b", b"\x03a.b\x01z\x04test\0"),
        (r"a\046b\000.c.", b"\x04a.b\0\x01c\0"),
        (r"\@", b"\x01@\x01z\x04test\0"),
        (r"a\ b\;\(\)\.\\.", b"\x08a b;().\\\0"),
        // In the letter case of the file.
        ("_Ldap._TCP", b"\x05_Ldap\x04_TCP\x01z\x04test\0"),
        ("Mixed.Case.example.", b"\x05Mixed\x04Case\x07example\0"),
        ("X.Z.Test.", b"\x01X\x01Z\x04Test\0"),
        ("*", b"\x01*\x01z\x04test\0"),
        (".", b"\0"),
    ];
    for (text, wire) in cases {
        assert_eq!(data(&format!("owner CNAME {text}")), *wire, "{text}");
    }
    assert_eq!(data(&format!("owner CNAME {label}"))[0], 63);
    assert_eq!(data(&format!("owner CNAME {name}")).len(), 255);
}

#[test]
fn rdata_of_each_type_is_encoded() {
    // In the format of the reference decoder; examples of the RFCs where available.
    let sha256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
    let cases: &[(&str, &str)] = &[
        ("A 192.0.2.1", "A 192.0.2.1"),
        ("NS ns.Example.ORG.", "NS ns.Example.ORG."),
        ("CNAME x", "CNAME x.z.test."),
        (
            r"SOA ns host\.master 4294967295 1h 2h 3w 5",
            r"SOA ns.z.test. host\.master.z.test. 4294967295 3600 7200 1814400 5",
        ),
        ("PTR x", "PTR x.z.test."),
        ("MX 10 .", "MX 10 ."),
        ("HINFO \"a b\" c", "HINFO a b c"),
        ("AAAA 2001:DB8::1", "AAAA 2001:db8::1"),
        ("SRV 1 2 65535 x", "SRV 1 2 65535 x.z.test."),
        // RFC 3403 §4.1, RFC 2915
        (
            r#"NAPTR 100 50 "s" "http+I2L+I2C+I2R" "" _http._tcp.gatech.edu."#,
            r#"NAPTR 100 50 "s" "http+I2L+I2C+I2R" "" _http._tcp.gatech.edu."#,
        ),
        // RFC 4255 §3.2
        ("SSHFP 2 1 123456789ABCDEF67890123456789abcdef67890", "SSHFP 2 1 123456789abcdef67890123456789abcdef67890"),
        // RFC 6698 §2.3: hexadecimal digits may be grouped.
        (&format!("TLSA 3 1 1 ( {} {} )", &sha256[..31], &sha256[31..]), &format!("TLSA 3 1 1 {sha256}")),
        (&format!("SMIMEA 3 1 1 {sha256}"), &format!("SMIMEA 3 1 1 {sha256}")),
        ("OPENPGPKEY AQID BAU=", "OPENPGPKEY AQIDBAU="),
        // RFC 8659 §4.2
        (r#"CAA 0 issue "ca1.example.net; account=230123""#, r#"CAA 0 issue "ca1.example.net; account=230123""#),
        ("CAA 128 iodef mailto:a@example.org", r#"CAA 128 iodef "mailto:a@example.org""#),
        ("SVCB 0 x", "SVCB 0 x.z.test."),
        ("HTTPS 1 . port=8443", "HTTPS 1 . port=8443"),
    ];
    for (text, expected) in cases {
        let owner = if text.starts_with("SOA") { "@" } else { "o" };
        let name = if owner == "@" { "z.test." } else { "o.z.test." };
        assert_eq!(records(format!("{owner} {text}")), [format!("{name} 5 IN {expected}")], "{text}");
    }
}

#[test]
fn rdata_is_encoded_to_the_octet() {
    let cases: &[(&str, &[u8])] = &[
        // RFC 1035 §5.1: words and quoted text with escapes.
        (r#"TXT "a\009b\255""#, b"\x04a\tb\xff"),
        (r#"TXT word "two words" "" "semi;colon" "quo\"te\\""#, b"\x04word\x09two words\0\x0asemi;colon\x07quo\"te\\"),
        (r"TXT un\032quoted @ \# 4", b"\x09un quoted\x01@\x01#\x014"),
        (r#"TXT "a""b""#, b"\x01a\x01b"),
        ("TXT \"na\u{ef}ve\ttab\"", b"\x0ana\xc3\xafve\ttab"),
        // RFC 1183 §2.2, §1
        ("RP a.b c.", b"\x01a\x01b\x01z\x04test\0\x01c\0"),
        ("AFSDB 1 x.", b"\0\x01\x01x\0"),
        // RFC 7553 §4.5: the target has no length octet.
        (r#"URI 10 1 "ftp://ftp1.example.com/public""#, b"\0\x0a\0\x01ftp://ftp1.example.com/public"),
        ("SPF \"v=spf1 -all\"", b"\x0bv=spf1 -all"),
        // RFC 3597 §5 and its examples.
        (r"TYPE731 \# 6 abcd ( ef 01 23 45 )", b"\xab\xcd\xef\x01\x23\x45"),
        (r"TYPE65534 \# 4 0a000001", b"\x0a\0\0\x01"),
        (r"TYPE62347 \# 0", b""),
        (r"A \# 4 0A000001", b"\x0a\0\0\x01"),
        (r"type1 10.0.0.1", b"\x0a\0\0\x01"),
        (r"MX \# 7 000A 01 41 01 42 00", b"\0\x0a\x01A\x01B\0"),
        (r"LOC \# 4 01000000", b"\x01\0\0\0"),
    ];
    for (text, expected) in cases {
        assert_eq!(data(&format!("o {text}")), *expected, "{text}");
    }
}

#[test]
fn rdata_equals_that_of_bind() {
    // `named-rrchecker -u` of BIND 9.18.
    let cases = [
        // RFC 1876 §3
        ("LOC 42 21 54 N 71 06 18 W -24m 30m", "0033161389172DD070BE15F000988D20"),
        ("LOC 52 N 4 53 E 0", "001216138B287200810C3FE000989680"),
        ("LOC 0 0 0.5 S 180 E 42849672.95m 0.01m 90000000m 3.5", "001099327FFFFE0CA69FB200FFFFFFFF"),
        // RFC 4034 §3, §4, §2
        (
            "RRSIG MX 13 2 3600 20261231235959 20261201000000 12345 Example.ORG. AQID BAUG",
            "000F0D0200000E106B36EC7F6B0E0E003039074578616D706C65034F524700010203040506",
        ),
        (
            "NSEC Next.example. A MX RRSIG NSEC TYPE1234",
            "044E657874076578616D706C65000006400100000003041B\
             000000000000000000000000000000000000000000000000000020",
        ),
        ("DNSKEY 257 3 13 AQID BA==", "0101030D01020304"),
        // RFC 5155 §3, §4
        (
            "NSEC3 1 1 12 aabbccdd 2t7b4g4vsa5smi47k61mv5bv1a22bojr MX DNSKEY NS SOA NSEC3PARAM RRSIG",
            "0101000C04AABBCCDD14174EB2409FE28BCB4887A1836F957F0A8425E27B000722010000000290",
        ),
        ("NSEC3 1 0 0 - 2T7B4G4VSA5SMI47K61MV5BV1A22BOJR", "010000000014174EB2409FE28BCB4887A1836F957F0A8425E27B"),
        ("NSEC3PARAM 1 0 0 -", "0100000000"),
        // RFC 8078 §4
        ("CDNSKEY 0 3 0 AA==", "0000030000"),
        ("CDS 0 0 0 00", "0000000000"),
        // RFC 7477 §2.1.2, RFC 8976 §2
        ("CSYNC 66 3 A NS AAAA", "000000420003000460000008"),
        ("ZONEMD 2018031500 1 1 FEBE 3D4C", "7848B78C0101FEBE3D4C"),
    ];
    for (text, expected) in cases {
        let expected = data_encoding::HEXUPPER.decode(expected.as_bytes()).unwrap();
        assert_eq!(data(&format!("o {text}")), expected, "{text}");
        let generic = format!("o {} \\# {} {}", text.split(' ').next().unwrap(), expected.len(), hex(&expected));
        assert_eq!(data(&generic), expected, "{generic}");
    }
}

fn hex(octets: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(octets)
}

#[test]
fn signed_zone_is_read() {
    // Beside a CNAME and at a delegation; signatures have the TTLs of their RRsets (RFC 4034 §3, §4).
    let signature = |rtype: &str| format!("RRSIG {rtype} 13 3 60 20261231235959 20261201000000 1 z.test. AQID");
    let text = format!(
        "$TTL 60\nalias CNAME b\n {}\n NSEC b CNAME RRSIG NSEC\n 30 {}\nc NS ns.example.\n DS 1 13 99 00\n {}\n NSEC a NS DS",
        signature("CNAME"),
        signature("NSEC"),
        signature("DS"),
    );
    let zone = read(&text).map_err(|problems| lines(&problems)).unwrap();
    let ttls: Vec<_> = zone.records.iter().filter(|record| record.rtype == 46).map(|record| record.ttl).collect();
    assert_eq!((zone.records.len(), ttls, zone.warnings), (8, vec![60, 60, 30], vec![]));
}

#[test]
fn records_that_differ_in_letter_case_are_duplicates() {
    // RFC 4343 §3: only names compare without letter case. 65 and 97 are `A` and `a`.
    let zone = read("a MX 65 B\na MX 97 b\na MX 97 B\nb TXT x\nb TXT X\n").unwrap();
    let shown: Vec<_> = zone.records.iter().map(|record| decode(record).to_string()).collect();
    assert_eq!(
        shown,
        [
            "a.z.test. 5 IN MX 65 B.z.test.",
            "a.z.test. 5 IN MX 97 b.z.test.",
            "b.z.test. 5 IN TXT X",
            "b.z.test. 5 IN TXT x"
        ]
    );
}

#[test]
fn ds_is_kept_at_a_delegation() {
    // RFC 4034 §5.4; the algorithm by number and by mnemonic.
    for algorithm in ["5", "RSASHA1", "rsasha1"] {
        let text = format!("o NS ns.test.\n DS 60485 {algorithm} 1 ( 2BB183AF5F22588179A5\n 3B0A98631FAD1A292118 )");
        let zone = read(&text).unwrap();
        let digest = b"\x2b\xb1\x83\xaf\x5f\x22\x58\x81\x79\xa5\x3b\x0a\x98\x63\x1f\xad\x1a\x29\x21\x18";
        assert_eq!(zone.records[1].rdata, [&b"\xec\x45\x05\x01"[..], digest].concat(), "{text}");
        assert_eq!(zone.warnings, []);
    }
}

#[test]
fn service_parameters_match_the_test_vectors() {
    // RFC 9460 §D.2, in its order, with z.test. for example.com.
    let target = b"\x03foo\x01z\x04test\0";
    let cases: &[(&str, [&[u8]; 3])] = &[
        ("16 foo port=53", [b"\0\x10", target, b"\0\x03\0\x02\0\x35"]),
        ("1 foo key667=hello", [b"\0\x01", target, b"\x02\x9b\0\x05hello"]),
        (r#"1 foo key667="hello\210qoo""#, [b"\0\x01", target, b"\x02\x9b\0\x09hello\xd2qoo"]),
        (
            r#"1 foo (ipv6hint="2001:db8::1,2001:db8::53:1")"#,
            [
                b"\0\x01",
                target,
                b"\0\x06\0\x20\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\0\0\x01\x20\x01\x0d\xb8\0\0\0\0\0\0\0\0\0\x53\0\x01",
            ],
        ),
        (
            r#"1 foo ipv6hint="2001:db8:122:344::192.0.2.33""#,
            [b"\0\x01", target, b"\0\x06\0\x10\x20\x01\x0d\xb8\x01\x22\x03\x44\0\0\0\0\xc0\0\x02\x21"],
        ),
        (
            "16 foo (alpn=h2,h3-19 mandatory=ipv4hint,alpn\n ipv4hint=192.0.2.1)",
            [b"\0\x10", target, b"\0\0\0\x04\0\x01\0\x04\0\x01\0\x09\x02h2\x05h3-19\0\x04\0\x04\xc0\0\x02\x01"],
        ),
        (r#"16 foo alpn="f\\\\oo\\,bar,h2""#, [b"\0\x10", target, b"\0\x01\0\x0c\x08f\\oo,bar\x02h2"]),
        (r"16 foo alpn=f\\\092oo\092,bar,h2", [b"\0\x10", target, b"\0\x01\0\x0c\x08f\\oo,bar\x02h2"]),
        // Beyond the vectors: keys without a value, and those of RFC 9461 and RFC 9540.
        (
            r#"1 . ech="AEn+" no-default-alpn alpn=h2 dohpath=/q{?dns} ohttp key9="""#,
            [
                b"\0\x01",
                b"\0",
                b"\0\x01\0\x03\x02h2\0\x02\0\0\0\x05\0\x03\0\x49\xfe\0\x07\0\x08/q{?dns}\0\x08\0\0\0\x09\0\0",
            ],
        ),
        (r"1 . key3=\000\053", [b"\0\x01", b"\0", b"\0\x03\0\x02\0\x35"]),
    ];
    for (text, expected) in cases {
        for rtype in ["SVCB", "HTTPS"] {
            assert_eq!(data(&format!("o {rtype} {text}")), expected.concat(), "{text}");
        }
    }
}

#[test]
fn generate_expands_numbers() {
    let cases: &[(&str, &[&str])] = &[
        (
            "$GENERATE 1-3 h$ A 10.0.0.$",
            &["h1.z.test. 5 IN A 10.0.0.1", "h2.z.test. 5 IN A 10.0.0.2", "h3.z.test. 5 IN A 10.0.0.3"],
        ),
        ("$GENERATE 10-30/20 $ 60 IN A 10.0.0.${-9}", &["10.z.test. 60 IN A 10.0.0.1", "30.z.test. 60 IN A 10.0.0.21"]),
        ("$generate 31-31 ${0,3}.${1,0,x}.${1,4,X}.${0,2,o} CNAME x", &["031.20.0020.37.z.test. 5 IN CNAME x.z.test."]),
        // As in BIND, the width of nibbles counts their dots.
        (
            "$GENERATE 30-30 ${0,0,n}.${0,7,N}.${0,8,n}x CNAME y",
            &["e.1.e.1.0.0.e.1.0.0.x.z.test. 5 IN CNAME y.z.test."],
        ),
        (r"$GENERATE 1-1 $ CNAME \$.$$.$", &[r"1.z.test. 5 IN CNAME \$.\$.1.z.test."]),
        (
            "a A 10.0.0.1\n$GENERATE 1-1 b$ A 10.0.0.2\n A 10.0.0.3",
            &["a.z.test. 5 IN A 10.0.0.1", "b1.z.test. 5 IN A 10.0.0.2", "a.z.test. 5 IN A 10.0.0.3"],
        ),
        ("$GENERATE 7-7 a TXT \"no $ here, but \\$\" x", &["a.z.test. 5 IN TXT no 7 here, but $x"]),
    ];
    for (text, expected) in cases {
        assert_eq!(records(text), *expected, "{text}");
    }
    assert_eq!(read("$GENERATE 0-65535 h$ A 10.0.0.1").unwrap().records.len(), 65_536);
}

#[test]
fn rrset_has_no_duplicates_and_one_ttl() {
    // RFC 2181 §5, §5.2.
    let text = "a 60 A 10.0.0.2\nb A 10.0.0.9\nA 30 A 10.0.0.1\na 90 A 10.0.0.2\na 10 TXT x";
    let zone = read(text).unwrap();
    let got: Vec<_> = zone.records.iter().map(|record| (decode(record).to_string(), record.line)).collect();
    let expected = [
        ("a.z.test. 30 IN A 10.0.0.1", 3),
        ("a.z.test. 30 IN A 10.0.0.2", 1),
        ("a.z.test. 10 IN TXT x", 5),
        ("b.z.test. 60 IN A 10.0.0.9", 2),
    ];
    assert_eq!(got, expected.map(|(text, line)| (text.to_owned(), line)));
}

#[test]
fn records_have_their_position() {
    // A byte-order mark is not counted; columns count characters, not octets; every kind of line end counts once.
    let text = "\u{feff}a TXT \"\u{fc}\"\r\n\r\n   A 10.0.0.1\r( ; \u{fc}\n   b A 10.0.0.1 )\n";
    let places: Vec<_> = read(text).unwrap().records.iter().map(|record| (record.line, record.column)).collect();
    assert_eq!(places, [(3, 4), (1, 1), (5, 4)]);
}

#[test]
fn zone_is_named_by_the_file() {
    let cases = [
        ("z.test.zone", "z.test."),
        ("/etc/muster/zones/Z.Test..zone", "z.test."),
        ("10.in-addr.arpa.zone", "10.in-addr.arpa."),
        (r"0\0470.2.0.192.in-addr.arpa.zone", "0/0.2.0.192.in-addr.arpa."),
        ("local.zone", "local."),
        ("db.local", "local."),
        ("zones/db.Example.org", "example.org."),
        ("example.org.db", "example.org."),
        ("db.example.db", "db.example."),
    ];
    for (path, origin) in cases {
        let zone = parse(Path::new(path), b"@ TXT x", DEFAULT_TTL).unwrap();
        assert_eq!(zone.origin.to_string(), origin, "{path}");
        assert_eq!(zone.records[0].owner, zone.origin, "{path}");
    }
}
