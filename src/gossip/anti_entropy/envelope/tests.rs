//! Messages of chitchat, and messages that it would not survive.

use super::{super::codec::Codec, stream::MAX_BLOCK, *};

fn run(name: &str, generation: u64) -> ChitchatId {
    ChitchatId::new(name, generation, ([10, 0, 0, 1], 7946).into())
}

fn entry(name: &str) -> Versions {
    Versions { id: run(name, 1), heartbeat: 5, collected: 1, max: 9 }
}

/// A stream of plain blocks.
fn plain(content: &[u8]) -> Vec<u8> {
    let blocks = content.chunks(MAX_BLOCK).flat_map(|block| {
        let [a, b] = u16::try_from(block.len()).unwrap().to_le_bytes();
        [2, a, b].into_iter().chain(block.iter().copied())
    });
    blocks.chain([0]).collect()
}

/// A stream as chitchat writes it.
fn stream(content: &[u8]) -> Vec<u8> {
    let mut out = vec![];
    stream::write(content, &mut out);
    out
}

/// A message of a type with these parts.
fn message(kind: u8, parts: &[&[u8]]) -> Vec<u8> {
    let [a, b] = MAGIC.to_le_bytes();
    [&[a, b, VERSION, kind][..], &parts.concat()].concat()
}

fn digest(runs: &[(ChitchatId, [u64; 3])]) -> Vec<u8> {
    let mut content = vec![];
    for (id, counters) in runs {
        id.serialize(&mut content);
        counters.iter().for_each(|counter| counter.serialize(&mut content));
    }
    content
}

fn node(id: &ChitchatId) -> Vec<u8> {
    [vec![NODE], id.serialize_to_vec(), vec![0; 16]].concat()
}

fn key_value(key: &str, value: &str, version: u64, status: u8) -> Vec<u8> {
    [vec![KEY_VALUE], key.serialize_to_vec(), value.serialize_to_vec(), version.serialize_to_vec(), vec![status]]
        .concat()
}

fn set_max_version(version: u64) -> Vec<u8> {
    [vec![SET_MAX_VERSION], version.serialize_to_vec()].concat()
}

fn ack(operations: &[Vec<u8>]) -> Vec<u8> {
    message(ACK, &[&plain(&operations.concat())])
}

/// Each message that is accepted is decoded by chitchat, which encodes it to the same octets.
#[tokio::test]
async fn accepted_messages_are_those_of_chitchat() {
    let long = "x".repeat(LONGEST_VALUE);
    let many: Vec<_> = (1..=3000).map(|at| (run(&format!("n{at:04}"), at), [at, 0, COUNTER_END - 1])).collect();
    let delta = [
        node(&run("a", 1)),
        key_value("i/web/a", "{}", 3, SET),
        key_value("h/web/a", "", 4, DELETE),
        node(&run("b", MAX_GENERATION + INCARNATIONS - 1)),
        set_max_version(7),
        node(&ChitchatId::new("c", 0, "[2001:db8::1]:1".parse().unwrap())),
        key_value(&long[..LONGEST_KEY], &long, COUNTER_END - 1, SET),
        node(&run("d", 1)),
    ];
    let delta = stream(&delta.concat());
    let cluster = "service.local.".serialize_to_vec();
    let messages = [
        message(SYN, &[&stream(&[]), &cluster]),
        message(SYN, &[&stream(&digest(&many)), &cluster]),
        message(SYN_ACK, &[&stream(&digest(&many[..2])), &delta]),
        message(ACK, &[&delta]),
        message(ACK, &[&stream(&[])]),
        message(BAD_CLUSTER, &[]),
    ];
    let mut codec = Codec::open().await.unwrap();
    for octets in messages {
        assert_eq!(Envelope::read(&octets).unwrap().write(), octets);
        codec.feed(&octets).unwrap();
        let decoded = codec.decoded().await.unwrap();
        assert_eq!(codec.encode(decoded.envelope).await.unwrap(), octets);
    }
}

#[test]
fn invalid_messages_are_refused() {
    use EnvelopeError as E;
    let a = run("a", 1);
    let cluster = "c".serialize_to_vec();
    let syn = |runs: &[(ChitchatId, [u64; 3])]| message(SYN, &[&plain(&digest(runs)), &cluster]);
    let of = |name: &str, generation, address: &str| ChitchatId::new(name, generation, address.parse().unwrap());
    let block = |kind: u8, content: &[u8]| {
        let [a, b] = u16::try_from(content.len()).unwrap().to_le_bytes();
        message(ACK, &[&[kind, a, b], content, &[0]])
    };
    let zeros = |len: usize| frame(&vec![0; len]);
    let too_many: Vec<_> = (0..=MAX_RUNS as u64).map(|at| (run("a", at), [0; 3])).collect();
    let compressed = stream(&digest(&too_many));
    let cases: Vec<(&str, Vec<u8>, E)> = vec![
        ("empty", vec![], E::Form),
        ("another version", vec![0x53, 0xb0, 0, BAD_CLUSTER], E::Form),
        ("another magic", vec![0x53, 0xb1, 1, BAD_CLUSTER], E::Form),
        ("unknown type", message(4, &[]), E::Form),
        ("test's panic", message(255, &[]), E::Form),
        ("trailing", message(BAD_CLUSTER, &[&[0]]), E::Trailing(1)),
        ("no end", message(ACK, &[]), StreamError::Truncated.into()),
        ("block too short", message(ACK, &[&[2, 9, 0, 1]]), StreamError::Truncated.into()),
        ("empty block", block(2, &[]), StreamError::BlockLength.into()),
        ("long block", block(2, &[0; MAX_BLOCK + 1]), StreamError::BlockLength.into()),
        ("unknown block", block(3, &[0]), StreamError::BlockType(3).into()),
        ("no frame", block(1, &[7; 30]), StreamError::Frame.into()),
        ("frame of 64 KiB", block(1, &zeros(65_535)), StreamError::BlockLength.into()),
        ("frame of 16 KiB and one", block(1, &zeros(MAX_BLOCK + 1)), StreamError::BlockLength.into()),
        ("empty frame", block(1, &zeros(0)), StreamError::BlockLength.into()),
        ("two frames", block(1, &[zeros(9), zeros(9)].concat()), StreamError::Frame.into()),
        ("zeros", block(1, &zeros(MAX_BLOCK)), E::Text("name of a node")),
        ("cluster", message(SYN, &[&[0], &"c".repeat(256).serialize_to_vec()]), E::Text("name of a cluster")),
        ("no cluster", message(SYN, &[&[0]]), E::Truncated),
        ("name", syn(&[(of("A", 1, "10.0.0.1:1"), [0; 3])]), E::Text("name of a node")),
        ("no name", syn(&[(of("", 1, "10.0.0.1:1"), [0; 3])]), E::Text("name of a node")),
        (
            "generation",
            syn(&[(run("a", MAX_GENERATION + INCARNATIONS), [0; 3])]),
            E::Generation(MAX_GENERATION + INCARNATIONS),
        ),
        ("port", syn(&[(of("a", 1, "10.0.0.1:0"), [0; 3])]), E::Address),
        ("address", syn(&[(of("a", 1, "0.0.0.0:1"), [0; 3])]), E::Address),
        ("heartbeat", syn(&[(a.clone(), [u64::MAX, 0, 0])]), E::Counter(u64::MAX)),
        ("collected", syn(&[(a.clone(), [0, COUNTER_END, 0])]), E::Counter(COUNTER_END)),
        ("version", syn(&[(a.clone(), [0, 0, u64::MAX])]), E::Counter(u64::MAX)),
        ("twice", syn(&[(a.clone(), [0; 3]), (a.clone(), [0; 3])]), E::Order),
        ("many runs", message(SYN, &[&compressed, &cluster]), E::Runs),
        ("change without run", ack(&[key_value("k", "", 1, SET)]), E::Operations),
        ("max without run", ack(&[set_max_version(1)]), E::Operations),
        ("unknown operation", ack(&[node(&a), vec![3]]), E::Operations),
        ("run twice", ack(&[node(&a), node(&run("b", 1)), node(&a)]), E::Operations),
        ("version zero", ack(&[node(&a), key_value("k", "", 0, SET)]), E::Operations),
        ("equal", ack(&[node(&a), key_value("k", "", 5, SET), key_value("l", "", 5, SET)]), E::Operations),
        ("large", ack(&[node(&a), key_value("k", "", u64::MAX, SET)]), E::Counter(u64::MAX)),
        ("status", ack(&[node(&a), key_value("k", "", 1, 2)]), E::Operations),
        ("max below", ack(&[node(&a), key_value("k", "", 9, SET), set_max_version(5)]), E::Operations),
        ("max twice", ack(&[node(&a), set_max_version(5), set_max_version(6)]), E::Operations),
        ("change behind max", ack(&[node(&a), set_max_version(5), key_value("k", "", 6, SET)]), E::Operations),
        ("empty key", ack(&[node(&a), key_value("", "", 1, SET)]), E::Text("key")),
        ("first character", ack(&[node(&a), key_value("é/x", "", 1, SET)]), E::Text("key")),
        ("long key", ack(&[node(&a), key_value(&"k".repeat(LONGEST_KEY + 1), "", 1, SET)]), E::Text("key")),
        ("long value", ack(&[node(&a), key_value("k", &"v".repeat(LONGEST_VALUE + 1), 1, SET)]), E::Text("value")),
        ("incomplete", ack(&[node(&a), vec![KEY_VALUE, 9]]), E::Truncated),
    ];
    for (what, octets, error) in cases {
        assert_eq!(Envelope::read(&octets), Err(error), "{what}");
    }
}

/// A frame of any length.
fn frame(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 0).unwrap()
}

/// A datagram of 64 KiB whose blocks decompress to 64 KiB of zeros each: chitchat would allocate 200 MB.
#[test]
fn cost_of_a_bomb_is_bounded() {
    let frame = frame(&[0; MAX_BLOCK]);
    let [a, b] = u16::try_from(frame.len()).unwrap().to_le_bytes();
    let block = [&[1, a, b], &frame[..]].concat();
    let bomb = message(ACK, &[&block.repeat(65_000 / block.len()), &[0]]);
    assert_eq!(Envelope::read(&bomb), Err(StreamError::Blocks.into()));
    let within = message(ACK, &[&block.repeat(MAX_BLOCKS), &[0]]);
    assert!(!matches!(Envelope::read(&within), Err(EnvelopeError::Stream(_))));
}

#[test]
fn long_delta_is_cut_at_an_operation() {
    let value = "v".repeat(8000);
    for (runs, kind) in [(1, ACK), (7, ACK), (7, SYN_ACK)] {
        let mut operations = vec![];
        for at in 1..=runs {
            operations.push(node(&run("a", at)));
            operations.extend((1..=200).map(|version| key_value(&format!("k{version}"), &value, version, SET)));
        }
        let digest = if kind == SYN_ACK { stream(&digest(&[(run("a", 1), [1, 0, 1])])) } else { vec![] };
        let long = message(kind, &[&digest, &stream(&operations.concat())]);
        assert_eq!(Envelope::read(&long), Err(StreamError::Blocks.into()));
        let short = shortened(&long).unwrap().unwrap();
        Envelope::read(&short).unwrap();
        assert_eq!(shortened(&short), Ok(None));
        let (content, _) = stream::read(&short[HEADER + digest.len()..]).unwrap();
        assert!(operations.concat().starts_with(&content), "a prefix");
        assert!(content.len() > MAX_BLOCKS * MAX_BLOCK - 9000, "{}", content.len());
        // It ends with a whole operation.
        let mut rest = Operations::new(&content);
        while !rest.content.0.is_empty() {
            rest.read_next().unwrap();
        }
    }
    assert_eq!(shortened(&message(BAD_CLUSTER, &[])), Ok(None));
}

#[test]
fn digest_is_measured() {
    let envelope = Envelope::Syn { digest: vec![entry("a"), entry("b")], cluster: "c" };
    let octets = envelope.write();
    let len = octets.len() - HEADER - "c".serialized_len();
    assert_eq!(digest_len(&octets), Some(len));
    assert_eq!(digest_len(&message(ACK, &[&[0]])), None);
}
