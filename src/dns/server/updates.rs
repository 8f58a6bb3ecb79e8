//! Answers to updates of dynamic zones (RFC 2136), whose signature was verified.

use std::{net::IpAddr, sync::Arc};

use arc_swap::ArcSwap;
use tokio::{
    sync::watch,
    time::{Instant, timeout_at},
};
use tracing::{debug, info, warn};

use crate::{
    dns::{
        dynamic::{Effect, Failure, LIMIT, Updater},
        message::{
            codes::{Rcode, ede, opcode, option, rtype},
            query::HEADER,
        },
        update::message::{MessageError, Update, edns_payload, zone_name, zone_section},
        zone::{Tables, serial::is_later},
    },
    metrics::{UpdateOutcome, Updates as Counts},
    model::name::Name,
};

/// Server of updates. Clones share it.
#[derive(Clone)]
pub struct Updates {
    /// Carries out updates.
    pub updater: Updater,
    /// Metrics.
    pub counts: Counts,
}

/// Published tables, and a notice of each publication.
#[derive(Clone)]
pub struct Published {
    /// The newest tables.
    pub tables: Arc<ArcSwap<Tables>>,
    /// Changes with each publication.
    pub changes: watch::Receiver<()>,
}

impl Published {
    /// Waits until this node answers a zone with this serial or a later one, or not at all.
    async fn reaches(&self, zone: &Name, serial: u32) {
        let mut changes = self.changes.clone();
        loop {
            changes.mark_unchanged();
            let tables = self.tables.load_full();
            let known = tables.zone_named(zone.wire());
            if known.is_none_or(|zone| !is_later(serial, tables.serial_of(zone))) || changes.changed().await.is_err() {
                return;
            }
        }
    }
}

/// Code of a reply, and the Extended DNS Error of a client with EDNS.
struct Reply {
    rcode: Rcode,
    error: Option<(u16, String)>,
}

impl Updates {
    /// Waits until this node answers the dynamic zones as the store has them.
    pub async fn reach(&self, published: &Published) {
        for (zone, serial) in self.updater.loaded().await {
            published.reaches(&zone, serial).await;
        }
    }

    /// Carries out an update, which this key has signed, and returns the reply without a signature.
    pub(super) async fn answer(
        &self,
        published: &Published,
        message: &[u8],
        key: &Name,
        client: Option<IpAddr>,
    ) -> Vec<u8> {
        let until = Instant::now() + LIMIT;
        let client = shown(client);
        let known = known_zone(&published.tables.load(), message).cloned();
        let known = known.as_ref();
        let update = match Update::parse(message) {
            Ok(update) => update,
            Err(error) => {
                info!(client, %key, %error, "update refused");
                self.counts.count(known, UpdateOutcome::Malformed);
                let rcode = if matches!(error, MessageError::Class(_)) { Rcode::NotAuth } else { Rcode::FormErr };
                return write(message, &Reply { rcode, error: Some((ede::OTHER, error.to_string())) });
            }
        };
        let zone = &update.zone;
        let reply = match self.updater.update(&update, key).await {
            Ok(effect) => {
                let outcome = match effect {
                    Effect::Changed(serial) => {
                        info!(client, %key, %zone, serial, "zone updated");
                        UpdateOutcome::Changed
                    }
                    Effect::Unchanged(_) => UpdateOutcome::Unchanged,
                };
                self.counts.count(known, outcome);
                // The client may ask this node next. The update is carried out in any case.
                let _ = timeout_at(until, published.reaches(zone, effect.serial())).await;
                Reply { rcode: Rcode::NoError, error: None }
            }
            Err(failure) => {
                let (outcome, rcode, code) = match &failure {
                    Failure::NotDynamic if published.tables.load().zone_named(zone.wire()).is_none() => {
                        (UpdateOutcome::Refused, Rcode::NotAuth, ede::NOT_AUTHORITATIVE)
                    }
                    Failure::NotDynamic | Failure::Key => (UpdateOutcome::Refused, Rcode::Refused, ede::PROHIBITED),
                    Failure::Update(error) if error.is_prerequisite() => {
                        (UpdateOutcome::Prerequisite, error.rcode(), ede::OTHER)
                    }
                    Failure::Update(error) if error.rcode() == Rcode::Refused => {
                        (UpdateOutcome::Refused, Rcode::Refused, ede::PROHIBITED)
                    }
                    Failure::Update(error) => (UpdateOutcome::Malformed, error.rcode(), ede::OTHER),
                    Failure::Store(_) | Failure::Timeout | Failure::Contention => {
                        (UpdateOutcome::Failed, Rcode::ServFail, ede::NOT_READY)
                    }
                };
                match outcome {
                    UpdateOutcome::Failed => warn!(client, %key, %zone, reason = %failure, "update failed"),
                    UpdateOutcome::Prerequisite => debug!(client, %key, %zone, reason = %failure, "update not made"),
                    _ => info!(client, %key, %zone, reason = %failure, "update refused"),
                }
                self.counts.count(known, outcome);
                Reply { rcode, error: Some((code, failure.to_string())) }
            }
        };
        write(message, &reply)
    }

    /// Returns the reply to an update without a signature.
    pub(super) fn refuse_unsigned(&self, tables: &Tables, message: &[u8], client: Option<IpAddr>) -> Vec<u8> {
        info!(client = shown(client), reason = "it is not signed with a TSIG key", "update refused");
        self.counts.count(known_zone(tables, message), UpdateOutcome::Refused);
        let error = Some((ede::PROHIBITED, "an update needs a TSIG key".to_owned()));
        write(message, &Reply { rcode: Rcode::Refused, error })
    }
}

/// Returns the zone of this node that an update is for.
fn known_zone<'t>(tables: &'t Tables, message: &[u8]) -> Option<&'t Name> {
    Some(&tables.zone_named(zone_name(message)?.wire())?.origin)
}

/// Returns a reply with this code and the zone section of the update.
pub(super) fn error(update: &[u8], rcode: Rcode) -> Vec<u8> {
    write(update, &Reply { rcode, error: None })
}

fn shown(client: Option<IpAddr>) -> String {
    client.map(|client| client.to_string()).unwrap_or_default()
}

/// Longest text of an Extended DNS Error: with all other parts, the reply fits 512 octets.
const MAX_TEXT: usize = 160;

fn write(update: &[u8], reply: &Reply) -> Vec<u8> {
    let zone = zone_section(update);
    let mut message = vec![0; HEADER];
    message[..2].copy_from_slice(update.get(..2).unwrap_or(&[0, 0]));
    // QR, and no other flag (RFC 2136 §2.2).
    (message[2], message[3]) = (0x80 | opcode::UPDATE << 3, reply.rcode as u8);
    message[5] = u8::from(!zone.is_empty());
    message.extend_from_slice(zone);
    if edns_payload(update).is_some() {
        message[11] = 1;
        // The root, the type, and the smallest payload that a client may announce, which is what an update over UDP needs.
        message.push(0);
        message.extend_from_slice(&rtype::OPT.to_be_bytes());
        message.extend_from_slice(&[2, 0, 0, 0, 0, 0]);
        let text = reply.error.as_ref().map(|(code, text)| {
            let end = text.char_indices().map(|(at, _)| at).take_while(|at| *at <= MAX_TEXT).last().unwrap_or_default();
            let text = if text.len() <= MAX_TEXT { text.as_str() } else { &text[..end] };
            [&code.to_be_bytes()[..], text.as_bytes()].concat()
        });
        let data_len = text.as_ref().map_or(0, |text| text.len() + 4) as u16;
        message.extend_from_slice(&data_len.to_be_bytes());
        if let Some(text) = text {
            message.extend_from_slice(&option::EDE.to_be_bytes());
            message.extend_from_slice(&(text.len() as u16).to_be_bytes());
            message.extend_from_slice(&text);
        }
    }
    message
}

#[cfg(test)]
mod tests {
    use tokio::time::sleep;

    use super::*;
    use crate::{
        dns::zone::Settings,
        model::{
            name::label,
            zone::{Source, with_serial},
        },
    };

    /// Tables with a dynamic zone of this serial.
    fn tables(serial: u32) -> Arc<Tables> {
        let mut tables = Tables::new(Settings::new(label("a"), label("dc1"), Name::parse("service.local").unwrap()));
        tables.set_zones(&[Arc::new(with_serial("dyn.test", serial, Source::Updates))]);
        Arc::new(tables)
    }

    /// The client may ask right after the reply.
    #[tokio::test(start_paused = true)]
    async fn reply_waits_until_the_update_is_published() {
        let (notices, changes) = watch::channel(());
        let published = Published { tables: Arc::new(ArcSwap::new(tables(6))), changes };
        let zone = Name::parse("dyn.test").unwrap();
        published.reaches(&zone, 6).await;
        published.reaches(&Name::parse("other.test").unwrap(), 9).await;
        let begun = Instant::now();
        let publishing = async {
            for serial in [6, 7, 9] {
                sleep(LIMIT).await;
                published.tables.store(tables(serial));
                notices.send_replace(());
            }
        };
        let waiting = async {
            published.reaches(&zone, 8).await;
            begun.elapsed()
        };
        let (waited, ()) = tokio::join!(waiting, publishing);
        assert!(waited >= 3 * LIMIT, "{waited:?}");
    }
}
