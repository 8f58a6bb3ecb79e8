//! The lower bound: a server that has nothing to do but to write a response to each client.

use std::{
    fs,
    io::{Read, Write},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::mpsc::{Receiver, Sender, channel},
    thread,
    time::Duration,
};

/// Length of the body, as in the agent's responses.
const BODY: usize = 921;

/// Running server. Its thread ends with it.
pub(crate) struct Writes {
    pub(crate) http: SocketAddr,
    rounds: Sender<()>,
    spent: Receiver<Duration>,
}

impl Writes {
    /// Starts a server for `count` clients on the cores of the calling thread.
    pub(crate) fn start(count: usize) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let http = listener.local_addr().unwrap();
        let ((rounds, begin), (report, spent)) = (channel(), channel());
        thread::spawn(move || serve(&listener, count, &begin, &report));
        Self { http, rounds, spent }
    }

    /// Writes a response to each client.
    pub(crate) fn write(&self) {
        self.rounds.send(()).unwrap();
    }

    /// Returns the CPU time of the latest round.
    pub(crate) fn spent(&self) -> Duration {
        self.spent.recv().unwrap()
    }
}

fn serve(listener: &TcpListener, count: usize, begin: &Receiver<()>, report: &Sender<Duration>) {
    let fields = "content-type: application/json\r\nx-consul-index: 7\r\nx-consul-knownleader: true\r\n";
    let head = format!("HTTP/1.1 200 OK\r\n{fields}content-length: {BODY}\r\n\r\n");
    let response = [head.as_bytes(), &[b' '; BODY]].concat();
    let mut first = accept(listener);
    first.write_all(&response).unwrap();
    drop(first);
    let mut clients: Vec<TcpStream> = (0..count).map(|_| accept(listener)).collect();
    while begin.recv().is_ok() {
        let before = cpu();
        for client in &mut clients {
            client.write_all(&response).unwrap();
        }
        report.send(cpu() - before).unwrap();
    }
}

fn accept(listener: &TcpListener) -> TcpStream {
    let (mut client, _) = listener.accept().unwrap();
    client.set_nodelay(true).unwrap();
    let _ = client.read(&mut [0; 1024]).unwrap();
    client
}

/// Returns the CPU time of this thread (`/proc/thread-self/schedstat`, in nanoseconds).
fn cpu() -> Duration {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap();
    Duration::from_nanos(text.split(' ').next().unwrap().parse().unwrap())
}
