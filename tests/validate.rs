//! `muster validate`: output and exit codes of the built program.

#![allow(clippy::unwrap_used, reason = "tests fail by panicking")]

mod support;

use std::{
    fs::{self, File, Permissions},
    os::unix::fs::{PermissionsExt, symlink},
    path::Path,
};

use support::{
    process::{self, Finish},
    run,
};
use tempfile::TempDir;

/// Creates a folder with these files.
fn folder(files: &[(&str, &[u8])]) -> TempDir {
    let folder = run::temp_dir();
    // Its secrets cannot be read by other users.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o700)).unwrap();
    for (path, content) in files {
        let path = folder.path().join(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }
    folder
}

/// Runs `muster validate PATHS` in a folder; returns exit code, standard output and standard error.
fn validate(folder: &Path, paths: &[&str]) -> (i32, String, String) {
    let output = process::muster().arg("validate").args(paths).current_dir(folder).finish();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code().unwrap(), text(output.stdout), text(output.stderr))
}

/// Validators refuse answers of a zone that the signed zone above does not delegate, and of one whose signatures have expired.
#[test]
fn zones_that_validators_refuse_have_warnings() {
    let config = "domain: service.local\ndatacenter: dc1\nnode: a\nservices_dir: s\nzones_dir: zones\n\
                  store: {voters: [a]}\n\
                  dns:\n  keys_dir: tsig\n  dnssec: [service.local]\n  dnssec_keys_dir: keys\n\
                  \x20 dynamic: [{zone: dyn.service.local, name_servers: [ns1.example.org], keys: [{key: k}]}]\n\
                  \x20 secondary: [{zone: copy.service.local, primaries: [127.0.0.1]}]\n";
    let head = "@ 60 SOA ns.example.org. h 1 1 1 1 1\n@ 60 NS ns.example.org.\n";
    let signatures: String = ["SOA", "NS", "DNSKEY", "NSEC"]
        .map(|of| format!("@ 60 RRSIG {of} 13 2 60 20200102000000 20200101000000 1 old.test. AAAA\n"))
        .concat();
    let signed = format!("{head}@ 60 DNSKEY 257 3 13 AAAA\n@ 60 NSEC @ NS SOA RRSIG NSEC DNSKEY\n{signatures}");
    let with = |discovery: &str| {
        let folder = folder(&[
            ("muster.yaml", config.as_bytes()),
            ("zones/old.test.zone", signed.as_bytes()),
            ("zones/file.service.local.zone", head.as_bytes()),
            ("zones/service.local.zone", discovery.as_bytes()),
        ]);
        validate(folder.path(), &["muster.yaml"]).1
    };
    let shown = with("x 60 A 192.0.2.1\n");
    let expected = [
        "zones/old.test.zone:1:1: warning: all signatures of the zone old.test. have expired, the last one at 2020-01-02T00:00:00Z",
        "zones/file.service.local.zone:1:1: warning: the signed zone service.local. does not delegate file.service.local.: ",
        "muster.yaml:1:1: warning: the signed zone service.local. does not delegate dyn.service.local.: ",
        "muster.yaml:1:1: warning: the signed zone service.local. does not delegate copy.service.local.: ",
    ];
    for line in expected {
        assert!(shown.contains(line), "{line} in\n{shown}");
    }
    let delegations = ["file", "dyn", "copy"].map(|name| format!("{name} 60 NS ns.example.org.\n")).concat();
    let shown = with(&delegations);
    assert!(!shown.contains("delegate"), "{shown}");
}

/// Name, files, paths, exit code and output.
type Case = (&'static str, Vec<(&'static str, &'static str)>, Vec<&'static str>, i32, &'static str);

#[test]
fn problems_are_printed_in_order_and_counted() {
    let cases: Vec<Case> = vec![
        (
            "a valid service file",
            vec![("web.yaml", "service: web\n")],
            vec!["web.yaml"],
            0,
            "1 file checked: no problems\n",
        ),
        (
            "a folder of service files and of files that agents ignore",
            vec![
                ("s/web.yaml", "service: web\n"),
                ("s/db.yml", "service: db\n"),
                ("s/.web.yaml.swp", "x"),
                ("s/README.md", "x"),
                ("s/web.yaml~", "x"),
            ],
            vec!["s"],
            0,
            "2 files checked: no problems\n",
        ),
        (
            "ignored files that their author may expect to be read",
            vec![
                ("s/web.yaml", "service: web\n"),
                ("s/web.json", "{}"),
                ("s/example.org", "x"),
                ("s/more/db.yaml", "service: db\n"),
            ],
            vec!["s"],
            0,
            "s/example.org:1:1: warning: ignored: only files that end in .yaml or .yml, and zone files (NAME.zone, NAME.db, db.NAME), are read\n\
             s/more:1:1: warning: ignored: only files that end in .yaml or .yml, and zone files (NAME.zone, NAME.db, db.NAME), are read\n\
             s/web.json:1:1: warning: ignored: only files that end in .yaml or .yml, and zone files (NAME.zone, NAME.db, db.NAME), are read\n\
             1 file checked: no problems, 3 warnings\n",
        ),
        (
            "an empty folder beside a service file",
            vec![("web.yaml", "service: web\n"), ("s/README", "x")],
            vec!["web.yaml", "s"],
            0,
            "1 file checked: no problems\n",
        ),
        (
            "ignored files in the folders of a configuration",
            vec![
                (
                    "muster.yaml",
                    "node: host-a\nservices_dir: s\nzones_dir: z\ndata_dir: d\ngossip: {insecure: true}\nhttp: {tokens_dir: t}\n",
                ),
                ("s/web.yaml", "service: web\n"),
                ("s/example.org.zone", "x"),
                ("z/example.org", "x"),
                ("t/a.yaml", "tokens:\n- {name: a, scope: read, token: 0123456789abcdefg}\n"),
                ("t/b.txt", "x"),
                ("notes.txt", "x"),
            ],
            vec!["muster.yaml"],
            0,
            "s/example.org.zone:1:1: warning: ignored: only files that end in .yaml or .yml are read\n\
             t/b.txt:1:1: warning: ignored: only files that end in .yaml or .yml are read\n\
             z/example.org:1:1: warning: ignored: only files named NAME.zone, NAME.db or db.NAME are read\n\
             3 files checked: no problems, 3 warnings\n",
        ),
        (
            "files without content",
            vec![
                ("s/a.yaml", ""),
                ("s/b.yaml", "# nothing\n---\n"),
                ("s/c.yaml", "services: []\n"),
                ("service.local.zone", ""),
            ],
            vec!["s", "service.local.zone"],
            0,
            "s/a.yaml:1:1: warning: the file is empty (to withdraw its services, delete the file or write `services: []`)\n\
             s/b.yaml:1:1: warning: the file has no content (to withdraw its services, delete the file or write `services: []`)\n\
             s/c.yaml:1:11: warning: the list of services is empty (the file defines no service)\n\
             service.local.zone:1:1: warning: the file has no records (delete the file to withdraw its records)\n\
             4 files checked: no problems, 4 warnings\n",
        ),
        (
            "problems of several files",
            vec![
                ("s/b.yaml", "service: b\nport: x\nprt: 1\n"),
                ("s/a.yaml", "services:\n- {service: a, ports: {a_b: 1}}\n"),
                ("s/c.yaml", "a: b: c\n"),
            ],
            vec!["s"],
            1,
            "s/a.yaml:2:24: `a_b` cannot be a port's name: '_' is not allowed in a DNS label: use letters, digits and hyphens (did you mean `a-b`?)\n\
             s/b.yaml:2:7: expected a port from 1 to 65535, found `x`\n\
             s/b.yaml:3:1: unknown key `prt` (did you mean `port`?)\n\
             s/c.yaml:1:5: mapping values are not allowed in this context (a text that contains `: ` has to be quoted; or is the line indented too far?)\n\
             3 files checked: 4 problems\n",
        ),
        (
            "warnings only",
            vec![("web.yaml", "service: web\nid: a\ntags: [tcp]\n")],
            vec!["web.yaml"],
            0,
            "web.yaml:3:8: warning: `_SERVICE._tcp` selects the protocol, not the tag `tcp` (choose another tag; `protocol` sets the transport)\n\
             1 file checked: no problems, 1 warning\n",
        ),
        (
            "problems across files",
            vec![
                ("s/a.yaml", "service: web\nid: one\n"),
                ("s/b.yaml", "service: web\nid: one\nchecks: {alias: db}\n"),
                ("s/c.yaml", "service: c\nchecks: {alias: d}\n"),
                ("s/d.yaml", "service: d\nchecks: [{alias: c}, {alias: e}]\n"),
            ],
            vec!["s"],
            1,
            "s/b.yaml:1:1: the instance `web/one` is already defined at s/a.yaml:1:1 (give each instance its own `id`)\n\
             s/c.yaml:1:1: alias checks form a cycle: `c` → `d` → `c` (no service in the cycle can become healthy first)\n\
             s/d.yaml:1:1: warning: the check `alias: e` names a service that no file defines (the check is critical until the service is defined)\n\
             4 files checked: 2 problems, 1 warning\n",
        ),
        (
            "a configuration and its service files",
            vec![
                ("etc/muster.yaml", "node: a\nservices_dir: s\nzones_dir: .\n"),
                ("etc/s/web.yaml", "service: web\nchecks: {exec: [/bin/true]}\n"),
            ],
            vec!["etc/muster.yaml"],
            1,
            "etc/s/web.yaml:2:10: this node does not allow `exec` checks (set `checks: {allow_exec: true}` in the node's configuration)\n\
             2 files checked: 1 problem\n",
        ),
        (
            "a folder of configuration, merged",
            vec![
                ("etc/10.yaml", "node: a\nservices_dir: s\nzones_dir: .\n"),
                ("etc/20.yaml", "checks: {allow_exec: true}\n"),
                ("etc/30.yml", "node: b_c\n"),
                ("etc/s/web.yaml", "service: web\nchecks: {exec: [/bin/true]}\n"),
            ],
            vec!["etc"],
            0,
            "etc/30.yml:1:1: warning: ignored: the agent reads configuration from *.yaml only (rename it to end in `.yaml`)\n\
             4 files checked: no problems, 1 warning\n",
        ),
        (
            "a configuration, with its service files given again",
            vec![
                ("muster.yaml", "node: a\nservices_dir: s\nzones_dir: .\n"),
                ("s/web.yaml", "service: web\nport: x\n"),
            ],
            vec!["muster.yaml", "s", "s/web.yaml"],
            1,
            "s/web.yaml:2:7: expected a port from 1 to 65535, found `x`\n2 files checked: 1 problem\n",
        ),
        (
            "service files elsewhere, checked by the given configuration",
            vec![
                ("muster.yaml", "node: a\nservices_dir: s\nzones_dir: .\n"),
                ("s/a.yaml", "service: a\n"),
                ("web.yaml", "service: web\nchecks: {exec: [/bin/true]}\n"),
            ],
            vec!["web.yaml", "muster.yaml"],
            1,
            "web.yaml:2:10: this node does not allow `exec` checks (set `checks: {allow_exec: true}` in the node's configuration)\n\
             3 files checked: 1 problem\n",
        ),
        (
            "exec checks are allowed without a configuration",
            vec![("web.yaml", "service: web\nchecks: {exec: [/bin/true]}\n")],
            vec!["web.yaml"],
            0,
            "1 file checked: no problems\n",
        ),
        (
            "a misspelt key does not change the kind of file",
            vec![
                ("a.yaml", "servise: web\nport: 80\nchecks: []\n"),
                ("b.yaml", "domian: a.b\nnode: b\nservices_dir: .\n"),
            ],
            vec!["a.yaml", "b.yaml"],
            1,
            "a.yaml:1:1: `service` is missing (as in `service: web`)\n\
             a.yaml:1:1: unknown key `servise` (did you mean `service`?)\n\
             b.yaml:1:1: unknown key `domian` (did you mean `domain`?)\n\
             2 files checked: 3 problems\n",
        ),
        (
            "a missing folder of the configuration",
            vec![("muster.yaml", "node: a\nservices_dir: s\nzones_dir: .\n")],
            vec!["muster.yaml"],
            0,
            "muster.yaml:1:1: warning: the folder s does not exist (`services_dir` names it)\n1 file checked: no problems, 1 warning\n",
        ),
    ];
    for (name, files, paths, exit, expected) in cases {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        let folder = folder(&files);
        assert_eq!(validate(folder.path(), &paths), (exit, expected.to_owned(), String::new()), "{name}");
    }
}

#[test]
fn zone_files_are_checked_with_the_services_of_their_node() {
    const ZONE: &str = "@ SOA ns admin 1 1h 1h 1h 1h\n@ NS ns\nns A 10.0.0.1\n";
    let cases: Vec<Case> = vec![
        (
            "a valid zone",
            vec![("example.org.zone", ZONE)],
            vec!["example.org.zone"],
            0,
            "1 file checked: no problems\n",
        ),
        (
            "static names that conflict with services",
            vec![
                ("muster.yaml", "node: a\nservices_dir: s\nzones_dir: z\nalias_domains: [alias.example]\n"),
                ("s/web.yaml", "service: web\n"),
                (
                    "z/service.local.zone",
                    "mail A 10.0.0.1\nweb A 10.0.0.1\nweb A 10.0.0.2\na.web A 10.0.0.1\n_web._tcp SRV 0 0 80 mail\n",
                ),
                ("z/alias.example.zone", "mail A 10.0.0.1\n"),
            ],
            vec!["muster.yaml"],
            1,
            "z/alias.example.zone:1:1: alias.example. is an alias of service.local. (put its records into service.local.zone)\n\
             z/service.local.zone:2:1: web.service.local. is a name of the service `web` (its records follow the health of the instances: choose another name)\n\
             z/service.local.zone:4:1: a.web.service.local. is a name of the service `web` (its records follow the health of the instances: choose another name)\n\
             z/service.local.zone:5:1: _web._tcp.service.local. is a name of the service `web` (its records follow the health of the instances: choose another name)\n\
             4 files checked: 4 problems\n",
        ),
        (
            "static names in a zone with the names of Consul",
            vec![
                (
                    "muster.yaml",
                    "node: a\nservices_dir: s\nzones_dir: z\nalias_domains: [{domain: consul, scheme: consul}]\n",
                ),
                ("s/web.yaml", "service: web\n"),
                (
                    "z/consul.zone",
                    "web A 10.0.0.1\nweb.service.dc1 A 10.0.0.1\n_web._tcp SRV 0 0 80 web\ndb.service A 10.0.0.2\n",
                ),
            ],
            vec!["muster.yaml"],
            1,
            "z/consul.zone:2:1: web.service.dc1.consul. is a name of the service `web` (its records follow the health of the instances: choose another name)\n\
             z/consul.zone:3:1: _web._tcp.consul. is a name of the service `web` (its records follow the health of the instances: choose another name)\n\
             3 files checked: 2 problems\n",
        ),
        (
            "a conflict without a configuration",
            vec![("f/web.yaml", "service: web\n"), ("f/service.local.zone", "web A 10.0.0.1\n")],
            vec!["f"],
            1,
            "f/service.local.zone:1:1: web.service.local. is a name of the service `web` (its records follow the health of the instances: choose another name)\n\
             2 files checked: 1 problem\n",
        ),
        (
            "a zone file given with its configuration",
            vec![
                ("muster.yaml", "node: a\nservices_dir: s\nzones_dir: z\n"),
                ("s/web.yaml", "service: web\n"),
                ("service.local.zone", "web A 10.0.0.1\n"),
            ],
            vec!["service.local.zone", "muster.yaml"],
            1,
            "service.local.zone:1:1: web.service.local. is a name of the service `web` (its records follow the health of the instances: choose another name)\n\
             3 files checked: 1 problem\n",
        ),
        (
            "one zone in two files, and a broken one",
            vec![("a/Example.org.zone", ZONE), ("b/example.org.zone", ZONE), ("b/x.zone", "@ A 10.0.0.300\n")],
            vec!["a", "b"],
            1,
            "b/example.org.zone:1:1: the zone example.org. is already defined in a/Example.org.zone (keep each zone in one file)\n\
             b/x.zone:1:5: ",
        ),
    ];
    for (name, files, paths, exit, expected) in cases {
        let files: Vec<_> = files.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        let folder = folder(&files);
        let (code, out, err) = validate(folder.path(), &paths);
        assert_eq!((code, err.as_str()), (exit, ""), "{name}");
        assert!(out.starts_with(expected), "{name}: {out}");
    }
}

#[test]
fn unparsable_files_have_one_problem_each() {
    let bomb: String =
        (1..20).map(|n| format!("a{n}: &a{n} [{}]\n", vec![format!("*a{}", n - 1); 9].join(","))).collect();
    let bomb = format!("a0: &a0 [x]\n{bomb}");
    let flat = format!("- &a [{}]\n{}", "x,".repeat(100_000), "- *a\n".repeat(100_000));
    let deep = "{a: ".repeat(100_000);
    let cases: &[(&str, &[u8], &str)] = &[
        ("binary.yaml", b"\x7fELF\x02\x01\x01\0\xff", "this is not UTF-8 text"),
        ("bomb.yaml", bomb.as_bytes(), "more than 250000 values"),
        ("deep.yaml", deep.as_bytes(), "nested deeper than 32 levels"),
        ("flat.yaml", flat.as_bytes(), "more than 250000 values"),
        ("latin-1.yaml", b"service: caf\xe9\n", "this is not UTF-8 text"),
        ("utf-16.yaml", b"\xff\xfes\0e\0r\0", "the file is UTF-16"),
        ("zero.yaml", b"service: web\0\n", "the character U+0000 is not text"),
    ];
    let files: Vec<_> = cases.iter().map(|(path, bytes, _)| (*path, *bytes)).collect();
    let folder = folder(&files);
    // A sparse file of 50 MB.
    File::create(folder.path().join("large.yaml")).unwrap().set_len(50 << 20).unwrap();
    let (exit, out, _) = validate(folder.path(), &["."]);
    assert_eq!(exit, 1);
    let mut lines: Vec<&str> = out.lines().collect();
    assert_eq!(lines.pop(), Some("8 files checked: 8 problems"));
    let large = ("large.yaml", &b""[..], "the file is larger than 1024 KiB");
    for (path, _, message) in cases.iter().chain([&large]) {
        assert!(
            lines.iter().any(|line| line.starts_with(&format!("./{path}:")) && line.contains(message)),
            "{path}: {out}"
        );
    }
}

#[test]
fn byte_order_marks_and_crlf_are_valid() {
    let folder = folder(&[
        ("bom.yaml", b"\xef\xbb\xbfservice: a\n"),
        ("crlf.yaml", b"service: b\r\nmeta:\r\n  note: |\r\n    two\r\n    lines\r\n"),
    ]);
    let expected = "2 files checked: no problems\n".to_owned();
    assert_eq!(validate(folder.path(), &["."]), (0, expected, String::new()));
}

#[test]
fn unreadable_files_exit_with_2() {
    let folder = folder(&[("web.yaml", b"service: web\nport: x\n"), ("s/a.yaml", b"service: a\n")]);
    let problem = "web.yaml:2:7: expected a port from 1 to 65535, found `x`\n1 file checked: 1 problem\n";
    let cases: [(&[&str], &str, &str); 3] = [
        (&["gone"], "", "muster: cannot read gone: No such file or directory (os error 2)\n"),
        (&["web.yaml", "gone"], problem, "muster: cannot read gone: No such file or directory (os error 2)\n"),
        (&["/dev/zero"], "", "muster: cannot read /dev/zero: not a regular file\n"),
    ];
    for (paths, out, err) in cases {
        assert_eq!(validate(folder.path(), paths), (2, out.to_owned(), err.to_owned()), "{paths:?}");
    }
}

/// As the agent reports them.
#[test]
fn subfolders_and_dangling_links_with_the_name_of_a_file_are_problems() {
    let folder = folder(&[("s/a.yaml", b"service: a\n"), ("s/sub.yaml/b.yaml", b""), ("m.yaml", b"services_dir: s\n")]);
    symlink("nothing", folder.path().join("s/dangling.yaml")).unwrap();
    let problems = "s/dangling.yaml:1:1: dangling symbolic link (fix or remove the link)\n\
                    s/sub.yaml:1:1: this is not a regular file (rename it, or move it out of this folder)\n";
    for (path, files) in [("s", "1 file"), ("m.yaml", "2 files")] {
        let out = format!("{problems}{files} checked: 2 problems\n");
        assert_eq!(validate(folder.path(), &[path]), (1, out, String::new()), "{path}");
    }
    // A folder of configurations may have any subfolder.
    fs::create_dir_all(folder.path().join("conf/sub.yaml")).unwrap();
    fs::write(folder.path().join("conf/m.yaml"), "services_dir: s\n").unwrap();
    let (exit, out, _) = validate(folder.path(), &["conf"]);
    assert!(exit == 0 && !out.contains("sub.yaml"), "{exit} {out}");
}

#[test]
fn folders_without_a_file_to_read_exit_with_2() {
    let folder = folder(&[("s/README", b"x"), ("t/web.json", b"{}"), ("t/.web.yaml.swp", b"x")]);
    let ignored = "t/web.json:1:1: warning: ignored: only files that end in .yaml or .yml, and zone files (NAME.zone, NAME.db, db.NAME), are read\n";
    for (path, out) in [("s", ""), ("t", ignored)] {
        let err = format!(
            "muster: {path}: no configuration, service or zone file in this folder (subfolders are not read)\n"
        );
        assert_eq!(validate(folder.path(), &[path]), (2, out.to_owned(), err));
    }
}

#[test]
fn unknown_options_exit_with_2_and_help_with_0() {
    let folder = folder(&[]);
    let (exit, out, err) = validate(folder.path(), &["--colour"]);
    assert_eq!((exit, out.as_str()), (2, ""));
    assert!(err.starts_with("error: unexpected argument '--colour' found"), "{err}");
    let (exit, out, err) = validate(folder.path(), &["--help"]);
    assert_eq!((exit, err.as_str()), (0, ""));
    assert!(out.contains("Files and folders to check [default: /etc/muster/muster.yaml]"), "{out}");
}

/// Files that would prevent the start of the agent or any access to its API.
#[test]
fn keys_tokens_and_certificates_of_a_configuration_are_checked() {
    let key = "A".repeat(43) + "=\n";
    let certificate = |is_ca| {
        let mut params = rcgen::CertificateParams::new(["host-a".to_owned()]).unwrap();
        params.is_ca = is_ca;
        params.self_signed(&rcgen::KeyPair::generate().unwrap()).unwrap().pem()
    };
    // As `openssl req -x509` makes one without further options.
    let authority = certificate(rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained));
    let server = certificate(rcgen::IsCa::NoCa);
    type Files<'a> = &'a [(&'a str, &'a str)];
    let cases: &[(&str, Files<'_>, i32, &str)] = &[
        ("gossip: {key_file: k}", &[("k", &key)], 0, "1 file checked: no problems\n"),
        ("gossip: {key_file: k}", &[], 1, "k:1:1: cannot read `gossip.key_file`"),
        ("gossip: {key_file: k}", &[("k", "short\n")], 1, "k:1:1: "),
        ("gossip: {key_file: k}", &[("k", "")], 1, "k:1:1: the file has no key: add one, `muster keygen` prints one\n"),
        ("gossip: {insecure: true}\nhttp: {tokens_dir: t}", &[], 1, "t:1:1: cannot read `http.tokens_dir`"),
        (
            "gossip: {insecure: true}\nhttp: {tokens_dir: t}",
            &[("t/a.yaml", "tokens: []\n")],
            0,
            "the HTTP API refuses all requests over TCP",
        ),
        (
            "gossip: {insecure: true}\nhttp: {tokens_dir: t}",
            &[("t/a.yaml", "tokens:\n- {name: a, scope: red}\n")],
            1,
            "t/a.yaml:2:",
        ),
        (
            "gossip: {insecure: true}\nhttp: {tokens_dir: t}",
            &[("t/a.yaml", "tokens: [{name: a, scope: read, token: 0123456789abcdef}]\n")],
            0,
            "2 files checked: no problems\n",
        ),
        (
            "resolver: {dnssec: validate, trust_anchors: k}",
            &[("k", "; none\n. IN DS 20326 8 2 E06D\n")],
            1,
            "k:2:1: the digest must be hexadecimal, of type 2 (SHA-256) or 4 (SHA-384)\n",
        ),
        ("resolver: {dnssec: validate, trust_anchors: k}", &[], 1, "k:1:1: cannot read `resolver.trust_anchors`"),
        ("resolver: {dnssec: validate, trust_anchors: .}", &[], 1, "this is not a regular file"),
        ("http: {tokens_dir: t}", &[], 1, "every local user could join by gossip and announce instances"),
        ("http: {tokens_dir: t}", &[], 1, "a key, which `muster keygen` prints"),
        ("http: {certificate: c, key: k}", &[("c", "")], 1, "k:1:1: cannot read `http.key`"),
        (
            "http: {certificate: c, key: k}",
            &[("c", &authority), ("k", "")],
            0,
            "c:1:1: warning: the certificate is that of an authority",
        ),
        ("http: {certificate: c, key: k}", &[("c", &server), ("k", "")], 0, "1 file checked: no problems\n"),
    ];
    for (config, files, code, expected) in cases {
        let mut all = vec![("m.yaml", format!("services_dir: s\n{config}\n")), ("s/.keep", String::new())];
        all.extend(files.iter().map(|(path, text)| (*path, (*text).to_owned())));
        let all: Vec<(&str, &[u8])> = all.iter().map(|(path, text)| (*path, text.as_bytes())).collect();
        let (exit, out, err) = validate(folder(&all).path(), &["m.yaml"]);
        assert!(exit == *code && out.contains(expected), "{config} {files:?}: {exit} {out}{err}");
    }
}
