//! Errors and warnings of the whole zone: CNAMEs, delegations, the apex, targets.

use super::*;

/// Checks the errors and warnings of each text. A text with errors has no warnings to compare.
fn check(cases: &[(&str, &[&str], &[&str])]) {
    for (text, expected_problems, expected_warnings) in cases {
        assert_eq!(problems(text), *expected_problems, "{text}");
        if expected_problems.is_empty() {
            assert_eq!(warnings(text), *expected_warnings, "{text}");
        }
    }
}

#[test]
fn name_with_a_cname_has_no_other_records() {
    // RFC 1034 §3.6.2, RFC 2181 §10.1.
    let rule = "(a name with a CNAME can have no other records (RFC 1034 §3.6.2))";
    check(&[
        ("a CNAME b\na CNAME b", &[], &[]),
        (
            "a CNAME b\na CNAME c",
            &["2:1: `a.z.test.` has a second CNAME; the first is in line 1 (a name can have only one CNAME)"],
            &[],
        ),
        (
            "a CNAME b\nx A 10.0.0.1\nA TXT x",
            &[&format!("1:1: `a.z.test.` has a CNAME in addition to its TXT record in line 3 {rule}")],
            &[],
        ),
        (
            "@ SOA a b 1 1 1 1 1\n CNAME c",
            &[&format!("2:2: `z.test.` has a CNAME in addition to its SOA record in line 1 {rule}")],
            &[],
        ),
        (
            "@ CNAME c",
            &["1:1: a CNAME at the apex conflicts with the zone's SOA and NS (write A and AAAA records here)"],
            &[],
        ),
        ("a CNAME a", &["1:1: CNAME loop: `a.z.test.` leads back to itself"], &[]),
        (
            "a CNAME b\nb CNAME c\nc CNAME a",
            &[
                "1:1: CNAME loop: `a.z.test.` leads back to itself",
                "2:1: CNAME loop: `b.z.test.` leads back to itself",
                "3:1: CNAME loop: `c.z.test.` leads back to itself",
            ],
            &[],
        ),
        ("$GENERATE 1-16 a$ CNAME a${1}", &[], &[]),
        ("$GENERATE 0-16 a$ CNAME a${1}", &[], &["1:1: the CNAME chain of `a0.z.test.` is longer than 16"]),
    ]);
}

#[test]
fn dname_redirects_all_names_below_it() {
    // RFC 6672 §2.3, §2.4, §3.3.
    let below = "is never answered (remove it: a DNAME redirects all names below its owner (RFC 6672 §2.4))";
    check(&[
        ("a DNAME b\na A 10.0.0.1\na TXT x", &[], &[]),
        ("@ SOA a b. 1 1 1 1 1\n DNAME example.\n NS ns.example.", &[], &[]),
        ("a DNAME b\nx MX 1 mx.a", &[], &[]),
        (
            "a DNAME b\nx.a A 10.0.0.1",
            &[&format!("2:1: `x.a.z.test.` is below the DNAME of `a.z.test.` in line 1 and {below}")],
            &[],
        ),
        (
            "@ DNAME example.\nx A 10.0.0.1",
            &[&format!("2:1: `x.z.test.` is below the DNAME of `z.test.` in line 1 and {below}")],
            &[],
        ),
        (
            "a DNAME b\na DNAME c",
            &["2:1: `a.z.test.` has a second DNAME; the first is in line 1 (a name can have only one DNAME)"],
            &[],
        ),
        (
            "a CNAME b\na DNAME c",
            &[
                "1:1: `a.z.test.` has a CNAME in addition to its DNAME record in line 2 (a name with a CNAME can have no \
               other records (RFC 1034 §3.6.2))",
            ],
            &[],
        ),
        (
            "a DNAME b\na NS ns.example.",
            &[
                "1:1: `a.z.test.` has a DNAME and NS records (RFC 6672 §2.3) (delegate the name or redirect it)",
                "1:1: the DNAME of `a.z.test.` is occluded by the delegation of `a.z.test.` (move it to the delegated zone)",
            ],
            &[],
        ),
        (
            "*.a DNAME b",
            &[],
            &[
                "1:1: the DNAME of the wildcard `*.a.z.test.` redirects no names (RFC 6672 §3.3) (write it without `*.`)",
            ],
        ),
    ]);
}

#[test]
fn letter_case_does_not_hide_targets() {
    let loops = "1:1: CNAME loop: `a.z.test.` leads back to itself";
    check(&[
        ("c NS NS.C\nns.c A 10.0.0.1", &[], &[]),
        ("a CNAME A", &[loops], &[]),
        ("a CNAME B\nb CNAME A", &[loops, "2:1: CNAME loop: `b.z.test.` leads back to itself"], &[]),
        (
            "a NS B\nb CNAME c",
            &["1:1: the NS target `b.z.test.` is the owner of a CNAME (RFC 2181 §10.3) (write the canonical name)"],
            &[],
        ),
    ]);
    let zone = read("@ SOA ns h 1 1 1 1 1\n NS NS\n MX 1 Mail\nns A 10.0.0.1\nmail A 10.0.0.2").unwrap();
    assert_eq!((zone.check_apex(Path::new("z")), zone.check_targets(Path::new("z"))), (vec![], vec![]));
}

#[test]
fn soa_and_ds_are_valid_at_certain_names_only() {
    check(&[
        ("@ SOA a b 1 1 1 1 1\n@ SOA A B 1 1 1 1 1", &[], &[]),
        (
            "@ SOA a b 1 1 1 1 1\n@ SOA a b 2 1 1 1 1",
            &["2:1: second SOA; the first is in line 1 (a zone has one SOA)"],
            &[],
        ),
        (
            "c SOA a b 1 1 1 1 1",
            &["1:1: an SOA belongs to the apex `z.test.`, not to `c.z.test.` (use `@` as its owner)"],
            &[],
        ),
        // RFC 4035 §2.4
        ("@ DS 1 8 99 00", &["1:1: DS at the apex of the zone (it belongs to the parent zone (RFC 4035 §2.4))"], &[]),
        ("c DS 1 8 99 00", &[], &["1:1: `c.z.test.` has a DS but no NS: it is not a delegation (RFC 4035 §2.4)"]),
    ]);
}

#[test]
fn delegation_occludes_names_below_it() {
    // RFC 1034 §4.2.1, RFC 2181 §6.
    let child = "(move it to the delegated zone)";
    check(&[
        // Glue of a server in the child zone, at the delegation itself, and in another child zone.
        ("c NS ns.c\nns.c A 10.0.0.1\nns.c AAAA ::1", &[], &[]),
        ("c NS c\nc A 10.0.0.1", &[], &[]),
        ("c NS ns.d\nd NS ns.d\nns.d A 10.0.0.1", &[], &[]),
        ("c NS ns.d\nd NS ns.example.", &[], &[]),
        ("c NS ns\nns A 10.0.0.1\nc NS ns.example.", &[], &[]),
        (
            "c NS ns.c",
            &["1:1: missing glue: `c.z.test.` is delegated to `ns.c.z.test.`, a name in the delegated zone (add \
               `ns.c.z.test. A ADDRESS`)"],
            &[],
        ),
        // The missing record may be the one with the error.
        ("c NS ns.c\nns.c A x", &["2:8: A address: expected an IPv4 address such as 192.0.2.1, found `x`"], &[]),
        (
            "c NS ns.\na.c TXT x\nc MX 1 m.\nb.a.c NS ns.",
            &[
                &format!("2:1: the TXT of `a.c.z.test.` is occluded by the delegation of `c.z.test.` {child}"),
                &format!("3:1: the MX of `c.z.test.` is occluded by the delegation of `c.z.test.` {child}"),
                &format!("4:1: the NS of `b.a.c.z.test.` is occluded by the delegation of `c.z.test.` {child}"),
            ],
            &[],
        ),
        (
            "c NS ns.\na.c A 10.0.0.1",
            &[],
            &[&format!(
                "2:1: `a.c.z.test.` is below the delegation of `c.z.test.` and is not glue: it is never answered {child}"
            )],
        ),
        // A wildcard does not delegate (RFC 4592 §4.2).
        ("*.w NS ns.\na.w TXT x\nb.*.w TXT x", &[], &[]),
    ]);
}

#[test]
fn targets_are_not_cnames() {
    // RFC 2181 §10.3. The checkers of other servers refuse it for NS and warn for other types.
    let hint = "is the owner of a CNAME (RFC 2181 §10.3) (write the canonical name)";
    check(&[
        ("@ NS a\na CNAME b", &[&format!("1:1: the NS target `a.z.test.` {hint}")], &[]),
        (
            "@ MX 1 a\n_x._tcp SRV 0 0 1 a\na CNAME b\n1 PTR a",
            &[],
            &[&format!("1:1: the MX target `a.z.test.` {hint}"), &format!("2:1: the SRV target `a.z.test.` {hint}")],
        ),
    ]);
}

#[test]
fn missing_final_dot_is_a_warning() {
    let hint = "(end an absolute name with a dot)";
    check(&[
        (
            "a CNAME web.z.test\nb.Z.test A 10.0.0.1",
            &[],
            &[
                &format!("1:9: `web.z.test` has no final dot and means `web.z.test.z.test.` {hint}"),
                &format!("2:1: `b.Z.test` has no final dot and means `b.z.test.z.test.` {hint}"),
            ],
        ),
        (
            "$ORIGIN sub\na MX 1 z.test",
            &[],
            &[&format!("2:8: `z.test` has no final dot and means `z.test.sub.z.test.` {hint}")],
        ),
        (
            "$GENERATE 1-9 a$ CNAME b$.z.test",
            &[],
            &[&format!("1:24: `b1.z.test` has no final dot and means `b1.z.test.z.test.` {hint}")],
        ),
        ("a CNAME xz.test\nb CNAME test\nc CNAME z.test.", &[], &[]),
    ]);
    // Zones in `arpa` that are not reverse zones (RFC 8375, RFC 9665).
    for path in ["home.arpa.zone", "service.arpa.zone", "xin-addr.arpa.zone"] {
        let zone = parse(Path::new(path), b"lb._dns-sd._udp PTR lan\n1.0.0.10 PTR x", DEFAULT_TTL).unwrap();
        assert_eq!(zone.warnings, [], "{path}");
    }
    let reverse = parse(Path::new("10.in-addr.arpa.zone"), b"1 PTR web.example.org\n2 PTR web.", DEFAULT_TTL).unwrap();
    assert_eq!(
        lines(&reverse.warnings),
        [
            "1:1: `1.10.in-addr.arpa.` points to `web.example.org.10.in-addr.arpa.`, a name in the reverse zone (is the final dot missing?)"
        ]
    );
}

#[test]
fn zone_needs_an_soa_and_a_name_server_with_an_address() {
    let soa = "@ SOA ns h 1 1 1 1 1\n";
    let no_soa = "1:1: the zone `z.test.` has no SOA (such as `@ SOA ns hostmaster 1 1h 15m 1w 5m`)";
    let no_ns = "1:1: the zone `z.test.` has no name server (such as `@ NS ns` and `ns A 10.0.0.7`)";
    let no_address = "2:1: the name server `ns.z.test.` has no address (add an A or AAAA record for it)";
    let cases: &[(&str, &[&str])] = &[
        ("@ NS ns\nns A 10.0.0.1", &[]),
        ("@ NS ns\nns AAAA ::1", &[]),
        ("@ NS ns.example.", &[]),
        ("@ NS ns.w\n*.w A 10.0.0.1", &[]),
        ("@ NS ns.c\nc NS ns.example.", &[]),
        ("@ NS ns", &[no_address]),
        ("@ NS ns\nns TXT x\n* A 10.0.0.1", &[no_address]),
        ("a A 10.0.0.1", &[no_ns]),
    ];
    for (text, expected) in cases {
        let got = read(format!("{soa}{text}")).unwrap().check_apex(Path::new("z.test.zone"));
        assert_eq!(lines(&got), *expected, "{text}");
    }
    let got = read("a A 10.0.0.1").unwrap().check_apex(Path::new("z.test.zone"));
    assert_eq!(lines(&got), [no_soa, no_ns]);
}

#[test]
fn targets_in_the_zone_without_an_address_are_warnings() {
    let missing = |place: &str, rtype: &str, name: &str| {
        format!("{place}: the {rtype} target `{name}` has no address in this zone (is the final dot missing?)")
    };
    let cases: &[(&str, &[String])] = &[
        ("@ MX 1 a\na A 10.0.0.1\n MX 2 .\n MX 3 m.example.\n MX 4 b.w\n*.w AAAA ::1", &[]),
        ("@ MX 1 m.example.org", &[missing("1:1", "MX", "m.example.org.z.test.")]),
        (
            "_x._tcp SRV 0 0 1 a\na TXT x\nb NS ns.example\nc NS b.c.\n",
            &[missing("1:1", "SRV", "a.z.test."), missing("3:1", "NS", "ns.example.z.test.")],
        ),
        // Delegated names have addresses elsewhere; `check_apex` checks the name servers of the apex.
        ("@ MX 1 a.c\nc NS ns.example.\n@ NS nowhere", &[]),
    ];
    for (text, expected) in cases {
        let got = lines(&read(text).unwrap().check_targets(Path::new("z.test.zone")));
        assert_eq!(got, *expected, "{text}");
    }
}

#[test]
fn rrset_must_fit_in_a_message() {
    let texts = |count: u32| (0..count).map(|n| format!("a TXT {n:0200}\n")).collect::<String>();
    assert_eq!(problems(texts(306)), Vec::<String>::new());
    assert_eq!(
        problems(texts(307)),
        ["1:1: the TXT RRset of `a.z.test.` has 65391 octets, too many for a DNS message"]
    );
}
