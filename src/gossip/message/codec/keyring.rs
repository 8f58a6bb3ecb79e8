//! Encoding of keyring requests, their outcomes, and keyrings.

use super::{Reader, bounded, one_line, within, write_name, write_number, write_text};
use crate::{
    gossip::message::{KeyringChange, KeyringOutcome, MAX_REASON_LEN, MAX_UNREACHABLE, MessageError, RingState},
    model::keyring::{KEY_LEN, Key, KeyId, Keyring, MAX_KEYS},
};

// First octet of each change and outcome. Numbers are never reused: 2 of the changes and 1 of the outcomes had no rotation.
const INSTALL: u8 = 1;
const REMOVE: u8 = 3;
const LIST: u8 = 4;
const USE: u8 = 5;
const REFUSED: u8 = 2;
const RING: u8 = 3;

pub(super) fn write_change(change: &KeyringChange, out: &mut Vec<u8>) {
    match change {
        KeyringChange::Install(key) => {
            out.push(INSTALL);
            out.extend(key.octets());
        }
        KeyringChange::Use { key, rotation } => {
            out.push(USE);
            out.extend(key.0);
            write_number(*rotation, out);
        }
        KeyringChange::Remove(id) => {
            out.push(REMOVE);
            out.extend(id.0);
        }
        KeyringChange::List => out.push(LIST),
    }
}

pub(super) fn write_outcome(outcome: &KeyringOutcome<'_>, out: &mut Vec<u8>) -> Result<(), MessageError> {
    match outcome {
        KeyringOutcome::Ring(RingState { rotation, keys, unreachable }) => {
            out.push(RING);
            write_number(*rotation, out);
            out.push(bounded(keys, MAX_KEYS, "keyring")?.len() as u8);
            out.extend(keys.iter().flat_map(|id| id.0));
            out.push(bounded(unreachable, MAX_UNREACHABLE, "list of members")?.len() as u8);
            unreachable.iter().for_each(|name| write_name(name, out));
            Ok(())
        }
        KeyringOutcome::Refused(reason) => {
            out.push(REFUSED);
            write_text(one_line(reason)?, MAX_REASON_LEN, "reason", out)
        }
    }
}

pub(super) fn write_keyring(ring: &Keyring, out: &mut Vec<u8>) {
    write_number(ring.rotation(), out);
    // A ring has at most MAX_KEYS keys.
    out.push(ring.iter().len() as u8);
    ring.iter().for_each(|key| out.extend(key.octets()));
}

impl<'a> Reader<'a> {
    pub(super) fn keyring_change(&mut self) -> Result<KeyringChange, MessageError> {
        Ok(match self.octet()? {
            INSTALL => KeyringChange::Install(Key::from_random(self.array::<KEY_LEN>()?)),
            USE => KeyringChange::Use { key: KeyId(self.array()?), rotation: self.number()? },
            REMOVE => KeyringChange::Remove(KeyId(self.array()?)),
            LIST => KeyringChange::List,
            octet => return Err(MessageError::Choice { what: "keyring change", octet }),
        })
    }

    pub(super) fn outcome(&mut self) -> Result<KeyringOutcome<'a>, MessageError> {
        match self.octet()? {
            RING => {
                let rotation = self.number()?;
                let count = self.octet()?.into();
                within(count, MAX_KEYS, "keyring")?;
                let keys = (0..count).map(|_| self.array().map(KeyId)).collect::<Result<_, _>>()?;
                let count = self.octet()?.into();
                within(count, MAX_UNREACHABLE, "list of members")?;
                let unreachable = (0..count).map(|_| self.name()).collect::<Result<_, _>>()?;
                Ok(KeyringOutcome::Ring(RingState { rotation, keys, unreachable }))
            }
            REFUSED => self.text(MAX_REASON_LEN, "reason").and_then(one_line).map(KeyringOutcome::Refused),
            octet => Err(MessageError::Choice { what: "keyring outcome", octet }),
        }
    }

    pub(super) fn keyring(&mut self) -> Result<Keyring, MessageError> {
        let rotation = self.number()?;
        let count: usize = self.octet()?.into();
        within(count, MAX_KEYS, "keyring")?;
        let mut ring: Option<Keyring> = None;
        for _ in 0..count {
            let key = Key::from_random(self.array::<KEY_LEN>()?);
            match &mut ring {
                None => ring = Some(Keyring::new(key)),
                Some(ring) if ring.get(key.id()).is_some() => return Err(MessageError::Keys),
                Some(ring) => {
                    ring.install(key).map_err(|_| MessageError::Keys)?;
                }
            }
        }
        ring.map(|ring| ring.as_of(rotation)).ok_or(MessageError::Keys)
    }
}
