//! The form of a bulk state transfer: whole states of runs, one after the other, in parts that fit a frame.
//!
//! A run has its identity, the version up to which tombstones were collected, its version, its number of keys, and the keys.
//! The octets of all runs are cut into blocks, and the blocks into parts ([`stream`]), regardless of the borders of runs. The
//! bounds on names, keys, values and versions are those of chitchat's messages ([`envelope`](super::envelope)).

use std::collections::HashSet;

use chitchat::{ChitchatId, Serializable};
use thiserror::Error;

use super::{
    Entry,
    envelope::{EnvelopeError, MAX_RUNS, Reader, write_change},
    stream::{self, MAX_BLOCK, MAX_BLOCKS, StreamError},
};
use crate::gossip::{
    message::MAX_GOSSIP,
    peer_replica::{Change, MAX_INSTANCES},
};

/// Largest number of keys of a run: instance, state and report of each instance, once live and once deleted, and some of the
/// node itself. Larger runs are left to gossip.
pub(super) const MAX_KEYS: usize = 6 * MAX_INSTANCES + 1024;
/// Largest number of octets in a transfer, decompressed: ten times 100,000 instances of usual size.
pub(super) const MAX_OCTETS: usize = 512 << 20;

/// Whole state of one run.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct RunState {
    pub(super) id: ChitchatId,
    /// Version up to which tombstones were collected.
    pub(super) collected: u64,
    /// Version up to which all changes are included.
    pub(super) max: u64,
    /// All keys, tombstones included.
    pub(super) entries: Vec<Entry>,
}

/// Reasons for ending a transfer.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum StateError {
    /// A part is no valid stream of blocks.
    #[error("invalid part: {0}")]
    Part(#[from] StreamError),
    /// A run or a key breaks the bounds of chitchat's messages.
    #[error("invalid state: {0}")]
    Item(#[from] EnvelopeError),
    /// The receiver's own run is among the runs, or a run occurs twice.
    #[error("state of the receiver's own run, or of one run twice")]
    Run,
    /// More than [`MAX_RUNS`] runs.
    #[error("more than {MAX_RUNS} runs")]
    Runs,
    /// A run has too many keys; holds their number.
    #[error("a run of {0} keys exceeds the limit of {MAX_KEYS}")]
    Keys(u32),
    /// A key has a later version than its run, or none, or an unknown status.
    #[error("invalid version or status of a key")]
    Version,
    /// The transfer is too large.
    #[error("more than {MAX_OCTETS} octets of state")]
    TooLarge,
    /// The last part ends within a run.
    #[error("the state is incomplete")]
    Truncated,
}

/// Writes runs into parts.
#[derive(Default)]
pub(super) struct Writer {
    /// Octets that do not fill a block yet.
    pending: Vec<u8>,
    part: Vec<u8>,
    blocks: usize,
}

impl Writer {
    /// Writes the head of a run, to be followed by its keys.
    pub(super) fn run(&mut self, id: &ChitchatId, collected: u64, max: u64, keys: u32) {
        id.serialize(&mut self.pending);
        collected.serialize(&mut self.pending);
        max.serialize(&mut self.pending);
        self.pending.extend_from_slice(&keys.to_le_bytes());
    }

    /// Writes a key of the last run.
    pub(super) fn key(&mut self, key: &Change<'_>) {
        write_change(key, &mut self.pending);
    }

    /// Returns the next full part, if any.
    pub(super) fn take_full(&mut self) -> Option<Vec<u8>> {
        let mut taken = 0;
        let mut full = None;
        for block in self.pending.chunks_exact(MAX_BLOCK) {
            stream::write_block(block, &mut self.part);
            (taken, self.blocks) = (taken + MAX_BLOCK, self.blocks + 1);
            if self.blocks == MAX_BLOCKS || self.part.len() + stream::HEADER + MAX_BLOCK + 1 > MAX_GOSSIP {
                full = Some(self.close());
                break;
            }
        }
        self.pending.drain(..taken);
        full
    }

    /// Returns the last part, to be called once [`take_full`](Self::take_full) returns none.
    pub(super) fn finish(mut self) -> Vec<u8> {
        let rest = std::mem::take(&mut self.pending);
        if !rest.is_empty() {
            stream::write_block(&rest, &mut self.part);
        }
        self.close()
    }

    fn close(&mut self) -> Vec<u8> {
        self.blocks = 0;
        let mut part = std::mem::take(&mut self.part);
        part.push(stream::END);
        part
    }
}

/// Reads runs from parts.
pub(super) struct Decoder {
    own: ChitchatId,
    /// Octets of an incomplete item.
    rest: Vec<u8>,
    octets: usize,
    seen: HashSet<ChitchatId>,
    /// Run whose keys are arriving, with the number of those to come.
    run: Option<(RunState, u32)>,
}

impl Decoder {
    /// Creates a decoder for the node with this run.
    pub(super) fn new(own: ChitchatId) -> Self {
        Self { own, rest: Vec::new(), octets: 0, seen: HashSet::new(), run: None }
    }

    /// Reads the next part. Returns the runs that are complete with it.
    ///
    /// # Errors
    /// Fails on any input that [`Writer`] does not produce from valid state.
    pub(super) fn read(&mut self, part: &[u8]) -> Result<Vec<RunState>, StateError> {
        let (content, behind) = stream::read(part)?;
        if !behind.is_empty() {
            return Err(EnvelopeError::Trailing(behind.len()).into());
        }
        self.octets += content.len();
        if self.octets > MAX_OCTETS {
            return Err(StateError::TooLarge);
        }
        let mut octets = std::mem::take(&mut self.rest);
        octets.extend_from_slice(&content);
        let mut reader = Reader(&octets);
        let mut complete = Vec::new();
        loop {
            let start = reader.0;
            match self.read_item(&mut reader) {
                Ok(run) => complete.extend(run),
                Err(StateError::Item(EnvelopeError::Truncated)) => {
                    self.rest = start.to_vec();
                    return Ok(complete);
                }
                Err(error) => return Err(error),
            }
        }
    }

    /// Ends the transfer.
    ///
    /// # Errors
    /// Fails if a run is incomplete.
    pub(super) fn finish(self) -> Result<(), StateError> {
        if self.rest.is_empty() && self.run.is_none() { Ok(()) } else { Err(StateError::Truncated) }
    }

    /// Reads the head of a run or a key; returns the run if it is complete. Changes nothing if the item is truncated.
    fn read_item(&mut self, reader: &mut Reader<'_>) -> Result<Option<RunState>, StateError> {
        match self.run.take() {
            None => {
                let id = reader.run()?;
                let (collected, max) = (reader.counter()?, reader.counter()?);
                let keys = u32::from_le_bytes(reader.array()?);
                if keys as usize > MAX_KEYS {
                    return Err(StateError::Keys(keys));
                }
                if self.seen.len() == MAX_RUNS {
                    return Err(StateError::Runs);
                }
                if id == self.own || !self.seen.insert(id.clone()) {
                    return Err(StateError::Run);
                }
                let run = RunState { id, collected, max, entries: Vec::new() };
                Ok(self.advance(run, keys))
            }
            Some((mut run, keys)) => match read_key(reader, run.max) {
                Ok(entry) => {
                    run.entries.push(entry);
                    Ok(self.advance(run, keys - 1))
                }
                Err(error) => {
                    self.run = Some((run, keys));
                    Err(error)
                }
            },
        }
    }

    fn advance(&mut self, run: RunState, keys: u32) -> Option<RunState> {
        if keys == 0 {
            return Some(run);
        }
        self.run = Some((run, keys));
        None
    }
}

fn read_key(reader: &mut Reader<'_>, max: u64) -> Result<Entry, StateError> {
    let Change { key, version, value } = reader.change()?.ok_or(StateError::Version)?;
    if version == 0 || version > max {
        return Err(StateError::Version);
    }
    Ok(Entry { key: key.to_owned(), version, value: value.map(str::to_owned) })
}

#[cfg(test)]
mod tests {
    use super::{
        super::envelope::{LONGEST_KEY, LONGEST_VALUE},
        *,
    };

    fn id(name: &str) -> ChitchatId {
        ChitchatId::new(name, 1, ([10, 0, 0, 1], 7946).into())
    }

    fn state(name: &str, keys: u64) -> RunState {
        let entry = |at: u64| Entry {
            key: format!("i/web/{name}-{at}"),
            version: at,
            value: (!at.is_multiple_of(5)).then(|| format!("value {}", at.wrapping_mul(0x9e37_79b9_7f4a_7c15))),
        };
        RunState { id: id(name), collected: 1, max: keys + 3, entries: (1..=keys).map(entry).collect() }
    }

    fn parts(states: &[RunState]) -> Vec<Vec<u8>> {
        let (mut writer, mut parts) = (Writer::default(), vec![]);
        for state in states {
            writer.run(&state.id, state.collected, state.max, state.entries.len() as u32);
            for entry in &state.entries {
                writer.key(&entry.as_change());
                parts.extend(writer.take_full());
            }
        }
        while let Some(part) = writer.take_full() {
            parts.push(part);
        }
        parts.push(writer.finish());
        parts
    }

    fn read(parts: &[Vec<u8>]) -> Result<Vec<RunState>, StateError> {
        let (mut decoder, mut runs) = (Decoder::new(id("own")), vec![]);
        for part in parts {
            runs.extend(decoder.read(part)?);
        }
        decoder.finish().map(|()| runs)
    }

    /// A part with these items.
    fn part(write: impl FnOnce(&mut Writer)) -> Vec<u8> {
        let mut writer = Writer::default();
        write(&mut writer);
        let mut part = vec![];
        stream::write(&writer.pending, &mut part);
        part
    }

    #[test]
    fn states_of_several_parts_are_read_as_written() {
        let states = [state("a", 20_000), state("empty", 0), state("b", 3)];
        let parts = parts(&states);
        assert!(parts.len() > 2, "{} parts", parts.len());
        assert!(parts.iter().all(|part| part.len() <= MAX_GOSSIP));
        assert_eq!(read(&parts).unwrap(), states);
    }

    #[test]
    fn missing_parts_are_noticed() {
        let parts = parts(&[state("a", 20_000)]);
        assert_eq!(read(&parts[..parts.len() - 1]), Err(StateError::Truncated));
        assert!(read(&parts[1..]).is_err());
        assert_eq!(read(&[]), Ok(vec![]));
    }

    #[test]
    fn invalid_states_are_refused() {
        let head = |name: &'static str, keys: u32| move |writer: &mut Writer| writer.run(&id(name), 0, 9, keys);
        let twice = |writer: &mut Writer| {
            head("a", 0)(writer);
            head("a", 0)(writer);
        };
        let key = |key: &'static str, version: u64, value: &'static str| {
            move |writer: &mut Writer| {
                writer.run(&id("a"), 0, 9, 1);
                writer.key(&Change { key, version, value: Some(value) });
            }
        };
        let long: &'static str = "x".repeat(LONGEST_VALUE + 1).leak();
        let text = |what| StateError::Item(EnvelopeError::Text(what));
        let cases = [
            ("own run", part(head("own", 0)), StateError::Run),
            ("run twice", part(twice), StateError::Run),
            ("too many keys", part(head("a", MAX_KEYS as u32 + 1)), StateError::Keys(MAX_KEYS as u32 + 1)),
            ("later than the run", part(key("k", 10, "")), StateError::Version),
            ("version zero", part(key("k", 0, "")), StateError::Version),
            ("key outside ASCII", part(key("é", 1, "")), text("key")),
            ("empty key", part(key("", 1, "")), text("key")),
            ("long key", part(key(&long[..LONGEST_KEY + 1], 1, "")), text("key")),
            ("long value", part(key("k", 1, long)), text("value")),
            ("incomplete", part(head("a", 1)), StateError::Truncated),
            ("no stream", vec![7], StateError::Part(StreamError::Truncated)),
            ("trailing", vec![stream::END, 1], StateError::Item(EnvelopeError::Trailing(1))),
        ];
        for (case, part, expected) in cases {
            assert_eq!(read(&[part]), Err(expected), "{case}");
        }
    }

    #[test]
    fn mutated_parts_never_panic() {
        let good = parts(&[state("a", 300), state("b", 300)]);
        let mut rng = fastrand::Rng::with_seed(7);
        for _ in 0..3_000 {
            let mut parts = good.clone();
            let part = rng.usize(..parts.len());
            let part = &mut parts[part];
            for _ in 0..rng.usize(1..4) {
                let at = rng.usize(..part.len());
                part[at] = rng.u8(..);
            }
            part.truncate(rng.usize(1..=part.len()));
            if let Ok(runs) = read(&parts) {
                assert!(
                    runs.iter().flat_map(|run| run.entries.iter().map(|entry| entry.version <= run.max)).all(|it| it)
                );
            }
        }
    }

    #[test]
    fn mutated_content_never_panics() {
        let mut content = vec![];
        for part in parts(&[state("a", 200)]) {
            content.extend(stream::read(&part).unwrap().0);
        }
        let mut rng = fastrand::Rng::with_seed(8);
        for _ in 0..3_000 {
            let mut content = content.clone();
            let at = rng.usize(..content.len());
            content[at] ^= 1 << rng.u8(..8);
            let mut part = vec![];
            stream::write(&content, &mut part);
            let _ = read(&[part]);
        }
    }
}
