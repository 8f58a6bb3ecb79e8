//! `muster zone`: the zones that an agent answers.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    time::SystemTime,
};

use hyper::{Method, body::Bytes};
use serde::Serialize;

use super::{
    Exit,
    client::{self, Client, ClientError, print_json, segment, with, with_exit},
    members::since,
    output::{print, print_error},
    table::{Table, printable},
};
use crate::{
    api::zones::{Notified, Record, Records, Secondary, Zone},
    dns::message::{codes::rtype, presentation::rdata},
    files::{
        read::read_included,
        zone_file::{self, MAX_ZONE_FILE},
    },
    model::{zone::ZoneFile, zone_serial::is_later},
};

/// Kind of zones that clients change by updates.
const DYNAMIC: &str = "dynamic";
/// Endpoint of the zones.
const PATH: &str = "/v1/muster/zones";
/// TTL in seconds of records in a file without an SOA and any TTL, as in the configuration.
const DEFAULT_TTL: u32 = 5;

#[derive(Debug, clap::Args)]
pub(super) struct Args {
    #[command(subcommand)]
    action: Action,
    #[command(flatten)]
    client: client::Args,
}

#[derive(Debug, clap::Subcommand)]
enum Action {
    /// List the zones with serial, source and secondaries
    List,
    /// Print all records of a zone as a zone file
    Show {
        /// Name of the zone
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        zone: String,
    },
    /// Compare a zone with a zone file; exit with 1 if they differ
    Diff {
        /// Name of the zone
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        zone: String,
        /// Zone file; the files of `$INCLUDE` are below its folder
        file: PathBuf,
    },
    /// Send NOTIFY of a zone to the secondaries now
    Notify {
        /// Name of the zone
        #[arg(value_parser = clap::builder::NonEmptyStringValueParser::new())]
        zone: String,
    },
}

pub(super) fn run(args: &Args) -> Exit {
    let Args { action, client: options } = args;
    let json = options.json;
    match action {
        Action::List => with(options, |client| {
            let answer = client.get(PATH)?;
            let zones: Vec<Zone> = client.read(&answer)?;
            if json {
                print_json(client, &answer)
            } else {
                print(&table(&zones, SystemTime::now()));
                Ok(())
            }
        }),
        Action::Show { zone } => with(options, |client| {
            let (answer, records) = records(client, zone)?;
            if json { print_json(client, &answer) } else { print_records(&records) }
        }),
        Action::Diff { zone, file } => with_exit(options, |client| diff(client, zone, file, json)),
        Action::Notify { zone } => with(options, |client| {
            let answer = client.change(Method::PUT, &format!("/v1/muster/notify/{}", segment(zone)), Bytes::new())?;
            let Notified { secondaries } = client.read(&answer)?;
            if json {
                return print_json(client, &answer);
            }
            let plural = if secondaries == 1 { "y" } else { "ies" };
            print(&format!("{}: NOTIFY to {secondaries} secondar{plural}\n", printable(zone)));
            Ok(())
        }),
    }
}

fn records(client: &Client, zone: &str) -> Result<(Bytes, Records), ClientError> {
    let answer = client.get(&format!("{PATH}/{}", segment(zone)))?;
    let records = client.read(&answer)?;
    Ok((answer, records))
}

fn print_records(records: &Records) -> Result<(), ClientError> {
    let lines: String = records.records.iter().map(|record| printable(&line(record)).into_owned() + "\n").collect();
    print(&lines);
    Ok(())
}

fn line(record: &Record) -> String {
    format!("{} {} IN {} {}", record.name, record.ttl, record.rtype, record.data)
}

fn table(zones: &[Zone], now: SystemTime) -> String {
    let mut table = Table::with_head(&["ZONE", "KIND", "SERIAL", "RECORDS", "SOURCE", "CONFIRMED", "SECONDARIES"]);
    for zone in zones {
        let (source, confirmed) = match &zone.copy {
            Some(copy) => {
                let primary = if copy.primary.is_empty() { copy.primaries.join(" ") } else { copy.primary.clone() };
                let state = if copy.state == "current" { String::new() } else { format!(", {}", copy.state) };
                (primary + &state, since(&copy.confirmed, now))
            }
            None if zone.kind == DYNAMIC => ("the store".to_owned(), String::new()),
            None => (zone.file.clone(), String::new()),
        };
        let secondaries: Vec<String> = zone.secondaries.iter().map(|to| secondary(to, zone.serial)).collect();
        table.row([
            zone.zone.clone(),
            zone.kind.clone(),
            zone.serial.to_string(),
            zone.records.to_string(),
            source,
            confirmed,
            secondaries.join(" "),
        ]);
    }
    let mut text = table.to_string();
    for zone in zones {
        let problem = zone.copy.as_ref().map(|copy| copy.problem.as_str()).unwrap_or_default();
        if !problem.is_empty() {
            text.push_str(&format!("{}: {}\n", printable(&zone.zone), printable(problem)));
        }
    }
    text
}

/// Returns the serial that a secondary has, as far as it is known.
fn secondary(secondary: &Secondary, current: u32) -> String {
    let serial = match (secondary.serial, secondary.acknowledged) {
        (Some(serial), _) if is_later(current, serial) => format!("{serial} (behind)"),
        (Some(serial), _) => serial.to_string(),
        (None, Some(acknowledged)) => format!("{acknowledged} (acknowledged)"),
        (None, None) => "?".to_owned(),
    };
    format!("{}={serial}", secondary.address)
}

/// A difference between a file and a zone.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Difference {
    /// `file`: only the file has the record; `served`: only the zone has it.
    only: &'static str,
    #[serde(flatten)]
    record: Record,
}

fn diff(client: &Client, zone: &str, path: &PathBuf, json: bool) -> Result<Exit, ClientError> {
    let (_, served) = records(client, zone)?;
    let octets = match fs::read(path) {
        Ok(octets) => octets,
        Err(error) => {
            print_error!("{}: {error}", printable(&path.display().to_string()));
            return Ok(Exit::CouldNotRun);
        }
    };
    // The agent's rules on links and sizes.
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let read = |included: &Path| read_included(folder, included, MAX_ZONE_FILE as u64).text;
    let octets = zone_file::collect(path.parent().unwrap_or(folder), octets.into(), read).text;
    // The zone, not the name of the file, is the origin.
    let named = path.with_file_name(format!("{}.zone", zone.trim_end_matches('.')));
    let file = match zone_file::parse(&named, &octets, DEFAULT_TTL) {
        Ok(file) => file,
        Err(problems) => {
            for mut problem in problems {
                if problem.path == named {
                    problem.path.clone_from(path);
                }
                print_error!("{problem}");
            }
            return Ok(Exit::CouldNotRun);
        }
    };
    let differences = differences(&file, &served);
    if json {
        let value = serde_json::to_value(&differences).unwrap_or_default();
        print(&format!("{value:#}\n"));
    } else {
        for Difference { only, record } in &differences {
            let sign = if *only == "file" { '-' } else { '+' };
            print(&format!("{sign}{}\n", printable(&line(record))));
        }
    }
    Ok(if differences.is_empty() { Exit::Done } else { Exit::Problems })
}

/// Returns the records that a file or a zone lacks, sorted. Letter case counts in data, which some primaries fold, and not in owner
/// names.
fn differences(file: &ZoneFile, served: &Records) -> Vec<Difference> {
    let of_file = file.records.iter().map(|record| Record {
        name: record.owner.to_string().to_ascii_lowercase(),
        rtype: rtype::name(record.rtype).into_owned(),
        ttl: record.ttl,
        data: rdata(record.rtype, &record.rdata),
    });
    let served = served.records.iter().cloned();
    let served = served.map(|record| Record { name: record.name.to_ascii_lowercase(), ..record });
    let (of_file, served): (BTreeSet<Record>, BTreeSet<Record>) = (of_file.collect(), served.collect());
    let mut differences: Vec<Difference> = of_file
        .difference(&served)
        .map(|record| Difference { only: "file", record: record.clone() })
        .chain(served.difference(&of_file).map(|record| Difference { only: "served", record: record.clone() }))
        .collect();
    differences
        .sort_by(|a, b| (&a.record.name, &a.record.rtype, a.only).cmp(&(&b.record.name, &b.record.rtype, b.only)));
    differences
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::zones::Copy;

    #[test]
    fn zones_have_their_source_and_the_serials_of_secondaries() {
        let zone = |zone: &str, kind: &str, records| Zone {
            zone: zone.to_owned(),
            kind: kind.to_owned(),
            serial: 7,
            records,
            ..Zone::default()
        };
        let copy = |state: &str, primary: &str, problem: &str| Copy {
            state: state.to_owned(),
            primaries: vec!["192.0.2.1:53".to_owned(), "192.0.2.2:53".to_owned()],
            primary: primary.to_owned(),
            problem: problem.to_owned(),
            ..Copy::default()
        };
        let secondary =
            |host: u8, serial, acknowledged| Secondary { address: format!("10.0.9.{host}:53"), acknowledged, serial };
        let zones = [
            Zone {
                secondaries: vec![secondary(1, Some(7), Some(7)), secondary(2, None, None)],
                ..zone("a.test.", "discovery", 1234)
            },
            Zone {
                file: "b.test.zone".to_owned(),
                secondaries: vec![secondary(1, Some(6), Some(7)), secondary(2, None, Some(7))],
                ..zone("b.test.", "file", 12)
            },
            Zone { copy: Some(copy("current", "192.0.2.2:53", "")), ..zone("c.test.", "secondary", 3) },
            Zone { copy: Some(copy("missing", "", "192.0.2.1:53: refused")), ..zone("d.test.", "secondary", 0) },
        ];
        let expected = "\
ZONE     KIND       SERIAL  RECORDS  SOURCE                              CONFIRMED  SECONDARIES
a.test.  discovery  7       1234     -                                   -          10.0.9.1:53=7 10.0.9.2:53=?
b.test.  file       7       12       b.test.zone                         -          10.0.9.1:53=6 (behind) 10.0.9.2:53=7 (acknowledged)
c.test.  secondary  7       3        192.0.2.2:53                        -          -
d.test.  secondary  7       0        192.0.2.1:53 192.0.2.2:53, missing  -          -
d.test.: 192.0.2.1:53: refused
";
        assert_eq!(table(&zones, SystemTime::now()), expected);
    }

    #[test]
    fn differences_are_those_of_records_and_ttls() {
        let text = "$TTL 60\n@ SOA ns h 1 60 60 600 60\n@ NS ns\nns A 192.0.2.1\nA TXT \"x\"\n";
        let file = zone_file::parse(Path::new("z.test.zone"), text.as_bytes(), DEFAULT_TTL).unwrap();
        let record = |name: &str, rtype: &str, ttl, data: &str| Record {
            name: name.to_owned(),
            rtype: rtype.to_owned(),
            ttl,
            data: data.to_owned(),
        };
        let served = Records {
            zone: "z.test.".to_owned(),
            serial: 1,
            records: vec![
                record("z.test.", "SOA", 60, "ns.z.test. h.z.test. 1 60 60 600 60"),
                record("z.test.", "NS", 60, "ns.z.test."),
                record("ns.z.test.", "A", 30, "192.0.2.1"),
                record("A.z.test.", "TXT", 60, "\"x\""),
                record("b.z.test.", "TXT", 60, "\"y\""),
            ],
        };
        let lines: Vec<String> =
            differences(&file, &served).iter().map(|found| format!("{} {}", found.only, line(&found.record))).collect();
        let expected = [
            "served b.z.test. 60 IN TXT \"y\"",
            "file ns.z.test. 60 IN A 192.0.2.1",
            "served ns.z.test. 30 IN A 192.0.2.1",
        ];
        assert_eq!(lines, expected);
    }
}
