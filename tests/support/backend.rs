//! Little web servers that programs are sent to: each says its name.

use std::{
    io::{BufRead, BufReader, Write},
    net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream},
    thread,
};

/// A web server: `/metrics` is for Prometheus, every other path answers with the server's name. It ends with the process.
pub struct Backend {
    address: SocketAddr,
}

impl Backend {
    /// So many servers on addresses of their own, from 127.0.0.2 on, and on one port: whoever reads address records alone
    /// cannot tell ports apart.
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

    /// Where it is.
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
    // Whoever asked may be gone: it is not this server's affair.
    let _ = write!(
        stream,
        "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {length}\r\nConnection: close\r\n\r\n{body}"
    );
}
