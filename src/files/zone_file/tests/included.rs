//! `$INCLUDE`: texts collected from a folder, and what the parser makes of them.

use std::{collections::BTreeMap, path::PathBuf, sync::Arc};

use super::*;
use crate::files::{
    contents::ReadError,
    zone_file::{Collected, collect, included_only},
};

/// Zone file `z.test.zone` of a folder `zones` with these other files.
fn collected(text: &str, files: &[(&str, &str)]) -> Collected {
    let files: BTreeMap<&Path, &str> = files.iter().map(|(path, text)| (Path::new(*path), *text)).collect();
    collect(Path::new("/zones"), text.as_bytes().into(), |path| match files.get(path) {
        Some(text) => Ok(text.as_bytes().into()),
        None => Err(ReadError::Absent),
    })
}

fn parsed(text: &str, files: &[(&str, &str)]) -> Result<ZoneFile, Vec<Diagnostic>> {
    parse(Path::new("/zones/z.test.zone"), &collected(text, files).text, DEFAULT_TTL)
}

#[test]
fn included_records_follow_those_before_them() {
    // RFC 1035 §5.1: origin and owner are restored. As in BIND, the TTL is not.
    let text = "$TTL 60\na A 10.0.0.1\n$INCLUDE one.inc\n A 10.0.0.2\n$INCLUDE \"sub/two.inc\" sub ; note\nb A 10.0.0.3\n\
                $include /zones/./one.inc x.z.test.\n";
    let files = [
        ("one.inc", "i A 10.0.1.1\n$ORIGIN o\nj A 10.0.1.2\n"),
        ("sub/two.inc", "@ TXT x\n$TTL 70\n$INCLUDE three\n"),
        ("three", "k TXT y"),
    ];
    let zone = parsed(text, &files).map_err(|problems| lines(&problems)).unwrap();
    let mut records: Vec<_> =
        zone.records.iter().map(|record| (zone.files.place(record.line), decode(record).to_string())).collect();
    records.sort();
    let expected = [
        (("one.inc", 1), "i.x.z.test. 70 IN A 10.0.1.1"),
        (("one.inc", 1), "i.z.test. 60 IN A 10.0.1.1"),
        (("one.inc", 3), "j.o.x.z.test. 70 IN A 10.0.1.2"),
        (("one.inc", 3), "j.o.z.test. 60 IN A 10.0.1.2"),
        (("sub/two.inc", 1), "sub.z.test. 60 IN TXT x"),
        (("three", 1), "k.sub.z.test. 70 IN TXT y"),
        (("z.test.zone", 2), "a.z.test. 60 IN A 10.0.0.1"),
        (("z.test.zone", 4), "a.z.test. 60 IN A 10.0.0.2"),
        (("z.test.zone", 6), "b.z.test. 70 IN A 10.0.0.3"),
    ];
    assert_eq!(records, expected.map(|(place, text)| (place, text.to_owned())));
}

#[test]
fn problems_name_the_included_file() {
    let hint = "(included files are in the folder of the zone files or below it; paths are relative to that folder)";
    let files = [
        ("bad", "a A 10.0.0.1\nb A x\n"),
        ("secret", "abcdefgh01234567"),
        ("empty", ""),
        ("loop", "$INCLUDE loop"),
        ("again", "a CNAME c"),
        ("nul", "a TXT \0"),
        ("blank", " A 10.0.0.1"),
    ];
    let cases = [
        ("$INCLUDE bad", vec!["/zones/bad:2:5: A address: expected an IPv4 address such as 192.0.2.1, found `x`".to_owned()]),
        ("$INCLUDE none", vec![format!("/zones/z.test.zone:1:10: cannot include `none`: there is no such file {hint}")]),
        ("$INCLUDE ../x", vec![format!("/zones/z.test.zone:1:10: `../x` is outside the folder {hint}")]),
        ("$INCLUDE /etc/shadow", vec![format!("/zones/z.test.zone:1:10: `/etc/shadow` is outside the folder {hint}")]),
        ("$INCLUDE", vec!["/zones/z.test.zone:1:1: $INCLUDE needs a file (such as `$INCLUDE common.inc`)".to_owned()]),
        ("$INCLUDE bad a b", vec!["/zones/z.test.zone:1:16: unexpected `b`".to_owned()]),
        (
            "$INCLUDE empty",
            vec![format!(
                "/zones/z.test.zone:1:10: cannot include `empty`: the file is empty; to withdraw its records, remove this line {hint}"
            )],
        ),
        ("$INCLUDE nul", vec![format!("/zones/z.test.zone:1:10: cannot include `nul`: NUL octet: this is not a text file {hint}")]),
        (
            "a CNAME b\n$INCLUDE again",
            vec!["/zones/again:1:1: `a.z.test.` has a second CNAME; the first is in line 1 (a name can have only one CNAME)".to_owned()],
        ),
    ];
    for (text, expected) in cases {
        let problems = parsed(&format!("{text}\nx TXT x"), &files).unwrap_err();
        let found: Vec<String> = problems.iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{text}");
    }
    let found = parsed("x TXT x\n$INCLUDE loop", &files).unwrap_err();
    assert!(
        found.len() == 1 && found[0].to_string().contains("/zones/loop:1:10: $INCLUDE is nested deeper than 10"),
        "{found:?}"
    );
    let itself = "x TXT x\n$INCLUDE z.test.zone\n";
    let found = parsed(itself, &[("z.test.zone", itself)]).unwrap_err();
    let expected = "/zones/z.test.zone:2:10: $INCLUDE is nested deeper than 10";
    assert!(found.len() == 1 && found[0].to_string().starts_with(expected), "{found:?}");
    // A file without a valid record may be any other file: its content is not shown.
    let found = parsed("x TXT x\n$INCLUDE secret", &files).unwrap_err();
    assert!(found.iter().all(|problem| !problem.to_string().contains("abcdefgh")), "{found:?}");
    assert!(found.iter().all(|problem| problem.path == Path::new("/zones/secret")), "{found:?}");
}

#[test]
fn only_files_that_include_others_are_collected() {
    let plain = collected("a TXT (\n$INCLUDE x )\n; $INCLUDE x\n $INCLUDE x\n\\$INCLUDE TXT x\n", &[("x", "")]);
    assert_eq!(plain.included, Vec::<PathBuf>::new());
    let text: Arc<[u8]> = b"a TXT x".as_slice().into();
    assert!(Arc::ptr_eq(&collect(Path::new(""), text.clone(), |_| Err(ReadError::Absent)).text, &text));
    let many: String = (0..200).map(|at| format!("$INCLUDE f{at}\n")).collect();
    assert_eq!(collected(&many, &[]).included.len(), 100);
}

#[test]
fn files_that_others_include_are_no_zones() {
    let paths = |names: &[&str]| names.iter().map(PathBuf::from).collect::<Vec<_>>();
    let files = [
        ("a.zone", paths(&["b.zone", "c.zone", "sub/d"])),
        ("b.zone", paths(&["c.zone"])),
        ("c.zone", paths(&[])),
        ("self.zone", paths(&["self.zone"])),
        ("x.zone", paths(&["y.zone"])),
        ("y.zone", paths(&["x.zone"])),
    ];
    let included = included_only(files.iter().map(|(name, paths)| (Path::new(*name), paths.as_slice())));
    assert_eq!(included.into_iter().collect::<Vec<_>>(), ["b.zone", "c.zone", "sub/d"].map(Path::new));
}
