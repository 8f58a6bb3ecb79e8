//! Small web servers that respond with their name.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

/// Web server: `/metrics` is in the format of Prometheus, every other path responds with the server's name. It runs until
/// the process ends.
pub struct Backend {
    address: SocketAddr,
}

impl Backend {
    /// Starts one server per name, on the addresses from 127.0.0.2 and one common port, since clients of address records
    /// cannot learn different ports.
    pub fn start(names: &[&str]) -> Vec<Self> {
        let at = |number: usize, port: u16| SocketAddr::from((Ipv4Addr::new(127, 0, 0, number as u8 + 2), port));
        let listeners = loop {
            let first = TcpListener::bind(at(0, 0)).unwrap();
            let port = first.local_addr().unwrap().port();
            let others: Result<Vec<TcpListener>, _> =
                (1..names.len()).map(|number| TcpListener::bind(at(number, port))).collect();
            if let Ok(others) = others {
                break std::iter::once(first).chain(others);
            }
        };
        listeners.zip(names).map(|(listener, name)| Self::serve(listener, name)).collect()
    }

    fn serve(listener: TcpListener, name: &str) -> Self {
        let (address, name) = (listener.local_addr().unwrap(), name.to_owned());
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let name = name.clone();
                thread::spawn(move || answer(stream, &name));
            }
        });
        Self { address }
    }

    /// Returns its address.
    pub fn address(&self) -> SocketAddr {
        self.address
    }
}

fn answer(mut stream: TcpStream, name: &str) {
    let mut lines = BufReader::new(stream.try_clone().unwrap()).lines().map_while(Result::ok);
    let Some(request) = lines.next() else { return };
    lines.take_while(|line| !line.is_empty()).for_each(drop);
    let body = match request.split(' ').nth(1) {
        Some("/metrics") => format!("# TYPE test_backend gauge\ntest_backend{{name=\"{name}\"}} 1\n"),
        _ => format!("{name}\n"),
    };
    let length = body.len();
    // The client may have closed the connection.
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}
