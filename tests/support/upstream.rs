//! Scripted upstream server over UDP and TCP, on a free port.

use std::{
    io::{Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket},
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    thread,
    time::Duration,
};

use hickory_proto::{
    op::{Message, MessageType, ResponseCode},
    rr::{Name, RData, Record, RecordType, rdata::SOA},
    serialize::binary::BinEncodable,
};

use super::decode;

/// Received query.
#[derive(Clone)]
pub struct Asked {
    pub octets: Vec<u8>,
    pub message: Message,
    pub tcp: bool,
}

impl Asked {
    /// Returns the name in its received letter case.
    pub fn name(&self) -> String {
        self.message.queries[0].name().to_string()
    }

    /// Returns a reply with this code and no records.
    pub fn reply(&self, code: ResponseCode) -> Message {
        let mut reply = Message::query();
        reply.metadata = self.message.metadata;
        reply.metadata.message_type = MessageType::Response;
        reply.metadata.recursion_available = true;
        reply.metadata.response_code = code;
        reply.add_query(self.message.queries[0].clone());
        reply.edns.clone_from(&self.message.edns);
        if let Some(edns) = &mut reply.edns {
            edns.options_mut().options.clear();
        }
        reply
    }

    /// Returns a reply with one address record.
    pub fn address(&self, address: [u8; 4], ttl: u32) -> Message {
        let mut reply = self.reply(ResponseCode::NoError);
        let owner = self.message.queries[0].name().clone();
        reply.add_answer(Record::from_rdata(owner, ttl, RData::A(Ipv4Addr::from(address).into())));
        reply
    }

    /// Returns a negative reply with this negative TTL in seconds.
    pub fn nothing(&self, code: ResponseCode, ttl: u32) -> Message {
        let mut reply = self.reply(code);
        let zone = Name::from_ascii("example.").unwrap();
        let soa = SOA::new(zone.clone(), zone.clone(), 1, 3600, 600, 86400, ttl);
        reply.add_authority(Record::from_rdata(zone, ttl, RData::SOA(soa)));
        reply
    }

    pub fn qtype(&self) -> RecordType {
        self.message.queries[0].query_type()
    }
}

/// Encodes a message.
pub fn octets(message: &Message) -> Vec<u8> {
    message.to_bytes().unwrap()
}

/// Running upstream.
pub struct Upstream {
    address: SocketAddr,
    asked: Arc<Mutex<Vec<Asked>>>,
    silent: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
}

impl Upstream {
    /// Starts an upstream that sends all replies of `answer` in order; over TCP, only the first.
    pub fn start(answer: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        Self::start_at("127.0.0.1", answer)
    }

    /// Starts an upstream at another address of the loopback interface.
    pub fn start_at(ip: &str, answer: impl Fn(&Asked) -> Vec<Vec<u8>> + Send + Sync + 'static) -> Self {
        let (datagrams, connections) = loop {
            let connections = TcpListener::bind((ip, 0)).unwrap();
            if let Ok(datagrams) = UdpSocket::bind(connections.local_addr().unwrap()) {
                break (datagrams, connections);
            }
        };
        let address = connections.local_addr().unwrap();
        let upstream = Self { address, asked: Arc::default(), silent: Arc::default(), stop: Arc::default() };
        let answer = Arc::new(answer);
        let (asked, silent, stop) = (upstream.asked.clone(), upstream.silent.clone(), upstream.stop.clone());
        let take = move |octets: &[u8], tcp| {
            let message = decode(octets);
            let query = Asked { octets: octets.to_vec(), message, tcp };
            // Probes of loop detection are not queries of clients.
            if !query.name().to_lowercase().starts_with("muster-loop-") {
                asked.lock().unwrap().push(query.clone());
            }
            if silent.load(Ordering::SeqCst) { vec![] } else { answer(&query) }
        };
        let over_tcp = take.clone();
        datagrams.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
        thread::spawn(move || {
            let mut octets = [0; 4096];
            while !stop.load(Ordering::SeqCst) {
                let Ok((len, client)) = datagrams.recv_from(&mut octets) else { continue };
                let (take, socket, query) = (take.clone(), datagrams.try_clone().unwrap(), octets[..len].to_vec());
                // A thread per query, so that a slow answer does not delay others.
                thread::spawn(move || {
                    for reply in take(&query, false) {
                        socket.send_to(&reply, client).unwrap();
                    }
                });
            }
        });
        thread::spawn(move || {
            for stream in connections.incoming() {
                let (Ok(mut stream), take) = (stream, over_tcp.clone()) else { return };
                thread::spawn(move || {
                    let mut length = [0; 2];
                    while stream.read_exact(&mut length).is_ok() {
                        let mut query = vec![0; u16::from_be_bytes(length).into()];
                        stream.read_exact(&mut query).unwrap();
                        let Some(reply) = take(&query, true).into_iter().next() else { return };
                        let framed = [&(reply.len() as u16).to_be_bytes(), &reply[..]].concat();
                        if stream.write_all(&framed).is_err() {
                            return;
                        }
                    }
                });
            }
        });
        upstream
    }

    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Returns the queries received so far.
    pub fn asked(&self) -> Vec<Asked> {
        self.asked.lock().unwrap().clone()
    }

    /// Stops or resumes answering.
    pub fn set_silent(&self, silent: bool) {
        self.silent.store(silent, Ordering::SeqCst);
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::SeqCst);
    }
}
