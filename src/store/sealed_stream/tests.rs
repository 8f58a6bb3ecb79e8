//! Connections on loopback, with attackers on the path.

use std::{
    future::Future,
    sync::{Arc, Mutex},
};

use bytes::Bytes;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    task::JoinSet,
};

use super::*;
use crate::gossip::STORE_PREFIX;

/// Exceeds any delay on a busy machine.
const DEADLINE: Duration = Duration::from_secs(30);

async fn soon<T>(what: &str, future: impl Future<Output = T>) -> T {
    timeout(DEADLINE, future).await.unwrap_or_else(|_| panic!("no {what}"))
}

fn ring(keys: &[u8]) -> Option<Keyring> {
    let key = |number: &u8| Key::from_random([*number; 32]);
    let (first, rest) = keys.split_first()?;
    let mut ring = Keyring::new(key(first));
    for number in rest {
        ring.install(key(number)).unwrap();
    }
    Some(ring)
}

fn keyring(keys: &[u8]) -> (watch::Sender<Option<Keyring>>, watch::Receiver<Option<Keyring>>) {
    watch::channel(ring(keys))
}

async fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    (listener, address)
}

/// Accepts connections as gossip does, until one is refused for another reason than its key.
async fn accept_next(
    listener: &TcpListener,
    keyring: &watch::Receiver<Option<Keyring>>,
) -> Result<SealedStream, HandshakeError> {
    loop {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut prefix = [0; STORE_PREFIX.len()];
        stream.read_exact(&mut prefix).await?;
        assert_eq!(prefix, STORE_PREFIX);
        let accepted = accept(stream, keyring.clone(), "server").await;
        if !matches!(accepted, Err(HandshakeError::UnknownKey(_))) {
            return accepted;
        }
    }
}

/// Two ends of a connection.
async fn pair(
    of_client: &watch::Receiver<Option<Keyring>>,
    of_server: &watch::Receiver<Option<Keyring>>,
) -> (SealedStream, SealedStream) {
    let (listener, address) = listen().await;
    let (client, server) =
        tokio::join!(connect(address, of_client, "client", "server"), accept_next(&listener, of_server));
    (client.unwrap(), server.unwrap())
}

/// Keys of the client and of the server, the node that the client wants, and the node that the server sees or the error.
type HandshakeCase = (&'static [u8], &'static [u8], &'static str, Result<&'static str, &'static str>);

#[tokio::test]
async fn handshake_needs_a_common_key_and_the_right_name() {
    let cases: &[HandshakeCase] = &[
        (&[], &[], "server", Ok("client")),
        (&[1], &[1], "server", Ok("client")),
        (&[1], &[2, 1], "server", Ok("client")),
        // The primary key is refused, another one is not.
        (&[2, 3, 1], &[1], "server", Ok("client")),
        (&[1], &[2], "server", Err("UnknownKey")),
        (&[1, 3], &[2, 4], "server", Err("UnknownKey")),
        (&[1], &[], "server", Err("ServerIsOpen")),
        (&[], &[1], "server", Err("ClientIsOpen")),
        (&[1], &[1], "other", Err("OtherNode(\"server\")")),
        (&[], &[], "other", Err("OtherNode(\"server\")")),
    ];
    for (of_client, of_server, wanted, expected) in cases {
        let (listener, address) = listen().await;
        let (_keep, of_client) = keyring(of_client);
        let (_keep_too, of_server) = keyring(of_server);
        let server = async {
            // Ends when the client has its outcome.
            accept_next(&listener, &of_server).await.map(|stream| stream.peer.clone()).ok()
        };
        let client = async {
            let outcome = connect(address, &of_client, "client", wanted).await;
            outcome.map(|stream| stream.peer).map_err(|error| format!("{error:?}"))
        };
        match expected {
            Ok(from) => {
                let (client, server) = soon("handshake", async { tokio::join!(client, server) }).await;
                assert_eq!((client.as_deref(), server.as_deref()), (Ok("server"), Some(*from)), "{wanted}");
            }
            Err(error) => {
                let outcome = soon("refusal", async {
                    tokio::select! { outcome = client => outcome, () = async { server.await; std::future::pending().await } => unreachable!() }
                })
                .await;
                let shown = outcome.unwrap_err();
                assert!(shown.starts_with(error), "{shown} instead of {error}");
            }
        }
    }
}

#[tokio::test]
async fn messages_of_any_length_arrive_in_order_in_both_directions() {
    for keys in [&[][..], &[1]] {
        let (_keep, keyring) = keyring(keys);
        let (client, server) = pair(&keyring, &keyring).await;
        for (mut from, mut to) in [(client.writer, server.reader), (server.writer, client.reader)] {
            let lengths = [0, 1, 15, 16, 4095, 70_000, 3, MAX_MESSAGE, 5];
            let sent = async {
                for len in lengths {
                    // Some are flushed together.
                    from.queue(&[&vec![len as u8; len / 2], &vec![len as u8; len - len / 2]]).unwrap();
                    if len % 2 == 1 {
                        from.flush().await.unwrap();
                    }
                }
                from
            };
            let received = async {
                for len in lengths {
                    assert_eq!(to.read().await.unwrap(), vec![len as u8; len]);
                }
            };
            let (mut from, ()) = soon("messages", async { tokio::join!(sent, received) }).await;
            let longest = vec![0; MAX_MESSAGE + 1];
            assert!(matches!(from.queue(&[&longest]), Err(StreamError::TooLong(_))));
            assert_eq!(from.queued(), 0);
            drop(from);
            assert!(matches!(soon("end", to.read()).await, Err(StreamError::Closed)));
        }
    }
}

#[tokio::test]
async fn server_refuses_what_is_no_handshake() {
    let hello = |version, mode| [&[version, mode][..], &[0; 36]].concat();
    let frame = |octets: &[u8]| [&(octets.len() as u32).to_be_bytes()[..], octets].concat();
    let open = hello(1, 0);
    let cases: Vec<(&[u8], Vec<u8>, &str)> = vec![
        (&[], vec![], "Io"),
        (&[], open[..20].to_vec(), "Io"),
        (&[], hello(9, 0), "Version"),
        (&[], hello(1, 7), "Malformed"),
        (&[1], hello(1, 1), "UnknownKey"),
        (&[1], b"GET / HTTP/1.1\r\nHost: example.test\r\n\r\n and more".to_vec(), "Version"),
        (&[], open.clone(), "Stream(Closed"),
        (&[], [&open[..], &frame(b"")].concat(), "Malformed"),
        (&[], [&open[..], &frame(b"\x01a")].concat(), "Malformed"),
        (&[], [&open[..], &frame(b"\x02..\x06server")].concat(), "Malformed"),
        (&[], [&open[..], &frame(&[b'a'; 257])].concat(), "Stream(TooLong(257)"),
        (&[], [&open[..], &[255; 8]].concat(), "Stream(TooLong(4294967295)"),
        (&[], [&open[..], &frame(b"\x01a\x05other")].concat(), "OtherNode"),
    ];
    for (keys, octets, expected) in cases {
        let (_keep, keyring) = keyring(keys);
        let (listener, address) = listen().await;
        let mut client = TcpStream::connect(address).await.unwrap();
        let (stream, _) = listener.accept().await.unwrap();
        client.write_all(&octets).await.unwrap();
        client.shutdown().await.unwrap();
        let error = soon("refusal", accept(stream, keyring, "server")).await.unwrap_err();
        assert!(format!("{error:?}").starts_with(expected), "{error:?} instead of {expected}");
    }
}

#[tokio::test]
async fn silent_peers_are_given_up() {
    let (_keep, keyring) = keyring(&[1]);
    let (listener, address) = listen().await;
    // The kernel accepts the connection, no process answers.
    let client = connect(address, &keyring, "client", "server");
    let _silent = TcpStream::connect(address).await.unwrap();
    let (stream, _) = listener.accept().await.unwrap();
    let (client, server) =
        soon("ends", async { tokio::join!(client, accept(stream, keyring.clone(), "server")) }).await;
    assert!(matches!(client, Err(HandshakeError::TimedOut)), "{client:?}");
    assert!(matches!(&server, Err(HandshakeError::TimedOut)), "{server:?}");
    let (mut client, _server) = pair(&keyring, &keyring).await;
    assert!(matches!(soon("end", client.reader.read()).await, Err(StreamError::Silent)));
}

#[tokio::test]
async fn connection_ends_on_both_sides_when_its_key_is_removed() {
    for (before, after) in [(&[1, 2][..], &[2][..]), (&[], &[1])] {
        let (client_keys, of_client) = keyring(before);
        let (server_keys, of_server) = keyring(before);
        let (mut client, mut server) = pair(&of_client, &of_server).await;
        // A rotation that keeps the key changes nothing.
        if !before.is_empty() {
            client_keys.send_replace(ring(&[2, 1]));
            client.writer.queue(&[b"x"]).unwrap();
            client.writer.flush().await.unwrap();
            assert_eq!(soon("message", server.reader.read()).await.unwrap(), "x");
        }
        client_keys.send_replace(ring(after));
        assert!(matches!(soon("end", client.reader.read()).await, Err(StreamError::KeyRemoved)));
        server_keys.send_replace(ring(after));
        assert!(matches!(soon("end", server.reader.read()).await, Err(StreamError::KeyRemoved)));
    }
}

/// Attack on the path.
#[derive(Clone, Copy)]
enum Attack {
    /// Changes an octet from the client (0) or from the server (1), at this position.
    Change(usize, usize),
    /// Repeats what follows the client's hello.
    Repeat,
}

/// Octets from the client and from the server, as an attacker on the path recorded them.
type Recorded = Arc<Mutex<[Vec<u8>; 2]>>;

/// Relays one connection to `to`.
async fn relay(to: SocketAddr, attack: Option<Attack>) -> (SocketAddr, Recorded) {
    let (listener, address) = listen().await;
    let recorded = Recorded::default();
    let record = recorded.clone();
    tokio::spawn(async move {
        let (client, _) = listener.accept().await.unwrap();
        let server = TcpStream::connect(to).await.unwrap();
        let (from_client, to_client) = client.into_split();
        let (from_server, to_server) = server.into_split();
        let copy = async |direction: usize, mut from: OwnedReadHalf, mut to: OwnedWriteHalf| {
            let (mut at, mut buffer) = (0, [0; 1024]);
            while let Ok(len @ 1..) = from.read(&mut buffer).await {
                let mut times = 1;
                match attack {
                    Some(Attack::Change(changed, position)) if changed == direction => {
                        let in_buffer = position.checked_sub(at).filter(|position| *position < len);
                        in_buffer.into_iter().for_each(|position| buffer[position] ^= 1);
                    }
                    Some(Attack::Repeat) if direction == 0 && at > 0 => times = 2,
                    _ => {}
                }
                at += len;
                record.lock().unwrap()[direction].extend(&buffer[..len]);
                if to.write_all(&buffer[..len].repeat(times)).await.is_err() {
                    break;
                }
            }
        };
        tokio::join!(copy(0, from_client, to_server), copy(1, from_server, to_client));
    });
    (address, recorded)
}

/// Sends a message each way through a relay. Returns what arrived at the server and at the client.
async fn exchange(attack: Option<Attack>) -> (Option<Bytes>, Option<Bytes>, Recorded) {
    let (_keep, keyring) = keyring(&[1]);
    let (listener, address) = listen().await;
    let (address, recorded) = relay(address, attack).await;
    let server = async {
        let (mut stream, _) = listener.accept().await.ok()?;
        let mut prefix = [0; STORE_PREFIX.len()];
        stream.read_exact(&mut prefix).await.ok()?;
        if prefix != STORE_PREFIX {
            return None;
        }
        let mut server = accept(stream, keyring.clone(), "server").await.ok()?;
        let message = server.reader.read().await.ok()?;
        server.writer.queue(&[b"to client"]).ok()?;
        server.writer.flush().await.ok()?;
        Some(message)
    };
    let client = async {
        let mut client = connect(address, &keyring, "client", "server").await.ok()?;
        client.writer.queue(&[b"to server"]).ok()?;
        client.writer.flush().await.ok()?;
        client.reader.read().await.ok()
    };
    let (at_server, at_client) = tokio::join!(server, client);
    (at_server, at_client, recorded)
}

#[tokio::test]
async fn every_changed_octet_is_detected() {
    let (at_server, at_client, recorded) = soon("exchange", exchange(None)).await;
    assert_eq!((at_server.unwrap(), at_client.unwrap()), ("to server".into(), "to client".into()));
    let lengths = recorded.lock().unwrap().each_ref().map(Vec::len);
    let mut exchanges = JoinSet::new();
    for (direction, len) in lengths.into_iter().enumerate() {
        for position in 0..len {
            exchanges.spawn(async move {
                let (at_server, at_client, _) = exchange(Some(Attack::Change(direction, position))).await;
                // A change of the server's last message is detected by the client.
                let arrived = (at_server.is_some() && direction == 0, at_client.is_some());
                assert_eq!(arrived, (false, false), "direction {direction}, octet {position}");
            });
        }
    }
    assert!(exchanges.len() > 200, "{lengths:?}");
    soon("exchanges", exchanges.join_all()).await;
}

#[tokio::test]
async fn recorded_connection_is_useless_to_both_sides() {
    let (.., recorded) = soon("exchange", exchange(None)).await;
    let [of_client, of_server] = recorded.lock().unwrap().clone();
    let (_keep, keyring) = keyring(&[1]);
    let (listener, address) = listen().await;
    let mut attacker = TcpStream::connect(address).await.unwrap();
    attacker.write_all(&of_client).await.unwrap();
    let error = soon("refusal", accept_next(&listener, &keyring)).await.unwrap_err();
    assert!(matches!(error, HandshakeError::Stream(StreamError::Forged)), "{error:?}");
    // The recording of the server, played to a client.
    let (error, ()) = soon("refusal", async {
        tokio::join!(connect(address, &keyring, "client", "server"), async {
            let (mut attacker, _) = listener.accept().await.unwrap();
            attacker.write_all(&of_server).await.unwrap();
            let _ = attacker.read_to_end(&mut vec![]).await;
        })
    })
    .await;
    assert!(matches!(error, Err(HandshakeError::Proof)), "{error:?}");
}

#[tokio::test]
async fn repeated_frame_is_refused() {
    let (at_server, at_client, _) = soon("exchange", exchange(Some(Attack::Repeat))).await;
    assert_eq!((at_server, at_client), (None, None));
}
