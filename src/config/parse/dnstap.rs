//! Parser of the table `dns.dnstap`.

use std::path::PathBuf;

use super::super::Dnstap;
use crate::{
    dns::tap::{Direction, Kind, Selection},
    yaml::{
        reader::Reader,
        tree::{Node, Value},
    },
};

/// Most octets of the path of a socket: `sun_path` has one more for its end (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

/// Words of `messages`.
const WORDS: [(&str, Selection); 13] = [
    ("all", Selection::ALL),
    ("auth", Selection::both(Kind::Auth)),
    ("auth-query", Selection::one(Kind::Auth, Direction::Query)),
    ("auth-response", Selection::one(Kind::Auth, Direction::Response)),
    ("client", Selection::both(Kind::Client)),
    ("client-query", Selection::one(Kind::Client, Direction::Query)),
    ("client-response", Selection::one(Kind::Client, Direction::Response)),
    ("forwarder", Selection::both(Kind::Forwarder)),
    ("forwarder-query", Selection::one(Kind::Forwarder, Direction::Query)),
    ("forwarder-response", Selection::one(Kind::Forwarder, Direction::Response)),
    ("update", Selection::both(Kind::Update)),
    ("update-query", Selection::one(Kind::Update, Direction::Query)),
    ("update-response", Selection::one(Kind::Update, Direction::Response)),
];

/// Reads the table; `null` is none.
pub(super) fn read_dnstap(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<Dnstap> {
    if matches!(node.value, Value::Null) {
        return None;
    }
    let table = reader.table(node, "the table `dnstap`", &["socket", "messages"])?;
    let socket = reader.required(&table, "socket", "socket: /run/dnstap/muster.sock");
    let socket = socket.and_then(|node| read_socket(reader, node));
    let messages = match table.get("messages") {
        Some(node) => {
            let items = reader.one_or_list(node);
            if items.is_empty() {
                reader.mismatch(node, "at least one kind of message, such as `auth`");
            }
            let selections = items.iter().filter_map(|item| reader.word(item, &WORDS));
            selections.fold(Selection::default(), Selection::or)
        }
        None => Selection::ALL,
    };
    Some(Dnstap { socket: socket?, messages })
}

/// Reads the path of a socket. The system permits fewer octets than for other paths (unix(7)).
fn read_socket(reader: &Reader<'_, '_>, node: &Node<'_>) -> Option<PathBuf> {
    let path = reader.path(node)?;
    let len = path.as_os_str().len();
    if len <= MAX_SOCKET_PATH {
        return Some(path);
    }
    reader.error(node.id, format!("the path of a socket has at most {MAX_SOCKET_PATH} octets, and this one {len}"));
    None
}
