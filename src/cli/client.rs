//! The commands' way to a running agent: one request on one connection.

use std::{future::pending, io, os::fd::AsFd, path::PathBuf, time::Duration};

use http_body_util::{BodyExt, Collected, Full, Limited};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Bytes, Incoming},
    client::conn::http1,
    header::{self, HeaderValue},
};
use hyper_util::rt::TokioIo;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use percent_encoding::{NON_ALPHANUMERIC, percent_encode};
use serde::de::DeserializeOwned;
use tokio::{
    net::{TcpStream, UnixStream},
    runtime::{Builder, Runtime},
    signal::unix::{SignalKind, signal},
    time::{sleep, timeout},
};
use tokio_rustls::{client::TlsStream, rustls::RootCertStore};
use tokio_util::either::Either;

use super::{
    Exit,
    address::Address,
    ask_error::AskError,
    table::{print, printable},
    tls::{self, CaFileError},
    token::token,
};
use crate::api;

/// How long a connection may take: the agent is on this host, or not far.
const CONNECT: Duration = Duration::from_secs(5);
/// How long an answer may take: longer than the agent waits for anything that it is told to do.
const ANSWER: Duration = Duration::from_secs(20);
/// Octets of an answer: thousands of members fit.
const MAX_ANSWER: usize = 64 * 1024 * 1024;
/// How often it is looked whether what a command prints is still read.
const LOOK: Duration = Duration::from_millis(500);

/// TCP, TLS over it, or a Unix socket.
type Connection = Either<TcpStream, Either<TlsStream<TcpStream>, UnixStream>>;

/// Which agent is asked, and how.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// The agent's HTTP API: http://host:port, https://host:port or unix:///path
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "MUSTER_HTTP_ADDR",
        default_value = "http://127.0.0.1:8500",
        global = true
    )]
    http_addr: Address,
    /// A file with the token to show; else the variable MUSTER_HTTP_TOKEN holds it
    #[arg(long, value_name = "PATH", global = true)]
    token_file: Option<PathBuf>,
    /// A file with the authorities that may certify an agent behind https://, in PEM; else those that this host trusts
    #[arg(long, value_name = "PATH", global = true)]
    ca_file: Option<PathBuf>,
    /// Print JSON, for programs
    #[arg(long, global = true)]
    pub(super) json: bool,
}

/// Why a command got no result.
#[derive(Debug)]
pub(super) enum ClientError {
    /// The agent said no; its words.
    Refused(String),
    /// It could not be asked; why, and what to do.
    NotAsked(String),
}

impl ClientError {
    /// Tells the user.
    pub(super) fn report(&self) -> Exit {
        let (Self::Refused(text) | Self::NotAsked(text)) = self;
        // Line by line: an agent's words may have several.
        for (at, line) in text.lines().enumerate() {
            eprintln!("{}{}", if at == 0 { "muster: " } else { "" }, printable(line));
        }
        match self {
            Self::Refused(_) => Exit::Refused,
            Self::NotAsked(_) => Exit::CouldNotRun,
        }
    }
}

/// Asks one agent.
pub(super) struct Client {
    address: Address,
    token: Option<HeaderValue>,
    ca_file: Option<PathBuf>,
    /// What may certify the agent, if it is asked over TLS.
    authorities: Option<RootCertStore>,
    runtime: Runtime,
}

/// Runs a command that asks an agent.
pub(super) fn with(args: &Args, command: impl FnOnce(&Client) -> Result<(), ClientError>) -> Exit {
    match Client::new(args).and_then(|client| command(&client)) {
        Ok(()) => Exit::Done,
        Err(trouble) => trouble.report(),
    }
}

impl Client {
    fn new(args: &Args) -> Result<Self, ClientError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ClientError::NotAsked(format!("cannot begin to ask: {error}")))?;
        let token = token(args.token_file.as_deref()).map_err(|error| {
            ClientError::NotAsked(format!(
                "{error}\n--token-file names a file with one token, and MUSTER_HTTP_TOKEN holds one."
            ))
        })?;
        let (address, ca_file) = (args.http_addr.clone(), args.ca_file.clone());
        // A file that is named is read, needed or not: a wrong name is found at once.
        let authorities = (ca_file.is_some() || matches!(address, Address::Https(_)))
            .then(|| tls::authorities(ca_file.as_deref()))
            .transpose()
            .map_err(|error| ClientError::NotAsked(format!("{error}\n{}", CaFileError::ADVICE)))?;
        if token.is_some() && address.is_open() {
            eprintln!("muster: warning: whoever listens on the way to {address} can read the token: use https://");
        }
        Ok(Self { address, token, ca_file, authorities, runtime })
    }

    /// The agent itself. Give no order without having seen that it is one: Consul's agents listen on the same port, and
    /// would obey.
    pub(super) fn myself(&self) -> Result<api::Agent, ClientError> {
        self.read(&self.get("/v1/agent/self")?)
    }

    /// What the agent shows there, as it came.
    pub(super) fn get(&self, path: &str) -> Result<Bytes, ClientError> {
        self.ask(Method::GET, path, Bytes::new())
    }

    /// Gives an order.
    pub(super) fn order(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        self.myself()?;
        self.ask(method, path, body)
    }

    /// Takes an answer for one of a muster agent.
    pub(super) fn read<T: DeserializeOwned>(&self, answer: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(answer).map_err(|error| {
            let address = &self.address;
            ClientError::NotAsked(format!(
                "what answers at {address} is no muster agent: {error}\nName the agent's address by --http-addr or \
                 MUSTER_HTTP_ADDR."
            ))
        })
    }

    /// Runs what goes on until somebody ends it: by SIGINT or SIGTERM, or because nobody reads what is printed any more.
    pub(super) fn run(&self, endless: impl Future<Output = Result<(), ClientError>>) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            tokio::select! {
                ended = endless => ended,
                () = interrupted() => Ok(()),
                () = unread() => Ok(()),
            }
        })
    }

    /// Begins an answer that has no end. `seen` is the last of its events that was seen. Only within [`run`](Self::run).
    pub(super) async fn open(&self, path: &str, seen: Option<u64>) -> Result<Incoming, ClientError> {
        let answer = timeout(ANSWER, self.begin(path, seen)).await;
        let answer = answer.unwrap_or(Err(AskError::NoAnswer(ANSWER)));
        let answer = answer.map_err(|why| self.not_asked(&why))?;
        let status = answer.status();
        if status.is_success() {
            return Ok(answer.into_body());
        }
        let text = timeout(ANSWER, Limited::new(answer.into_body(), MAX_ANSWER).collect()).await;
        Err(refused(status, &text.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default()))
    }

    async fn begin(&self, path: &str, seen: Option<u64>) -> Result<Response<Incoming>, AskError> {
        let stream = self.connect().await?;
        let mut request = self.request(Method::GET, path, Bytes::new()).map_err(|e| AskError::http(&e))?;
        if let Some(seen) = seen {
            request.headers_mut().insert("last-event-id", seen.into());
        }
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| AskError::http(&e))?;
        // Ends with the answer, whose reader is told.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|e| AskError::http(&e))
    }

    fn ask(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let asked = self.runtime.block_on(self.exchange(method, path, body));
        let (status, answer) = asked.map_err(|why| self.not_asked(&why))?;
        if status.is_success() { Ok(answer) } else { Err(refused(status, &answer)) }
    }

    fn not_asked(&self, error: &AskError) -> ClientError {
        let address = &self.address;
        let advice = error.advice(address, self.ca_file.as_deref());
        ClientError::NotAsked(format!("cannot ask the agent at {address}: {error}\n{advice}"))
    }

    async fn connect(&self) -> Result<Connection, AskError> {
        match &self.address {
            Address::Http(endpoint) => {
                Ok(Either::Left(within(TcpStream::connect((&*endpoint.host, endpoint.port))).await?))
            }
            Address::Https(endpoint) => {
                let authorities = self.authorities.clone().unwrap_or_else(RootCertStore::empty);
                let connector = tls::connector(authorities)?;
                let name = tls::name(&endpoint.host)?;
                let opened = async {
                    connector.connect(name, TcpStream::connect((&*endpoint.host, endpoint.port)).await?).await
                };
                Ok(Either::Right(Either::Left(within(opened).await?)))
            }
            Address::Unix(path) => Ok(Either::Right(Either::Right(within(UnixStream::connect(path)).await?))),
        }
    }

    async fn exchange(&self, method: Method, path: &str, body: Bytes) -> Result<(StatusCode, Bytes), AskError> {
        let request = self.request(method, path, body).map_err(|e| AskError::http(&e))?;
        converse(self.connect().await?, request).await
    }

    fn request(&self, method: Method, path: &str, body: Bytes) -> Result<Request<Full<Bytes>>, hyper::http::Error> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header(header::HOST, self.address.host())
            .header(header::USER_AGENT, concat!("muster/", env!("CARGO_PKG_VERSION")))
            .header(header::CONNECTION, "close");
        if let Some(token) = &self.token {
            request = request.header("X-Consul-Token", token);
        }
        request.body(Full::new(body))
    }
}

/// A connection, if it opens soon.
async fn within<S>(opened: impl Future<Output = io::Result<S>>) -> Result<S, AskError> {
    let opened = timeout(CONNECT, opened).await.map_err(|_| AskError::NoConnection(CONNECT))?;
    opened.map_err(AskError::from)
}

/// One request and its answer.
async fn converse(stream: Connection, request: Request<Full<Bytes>>) -> Result<(StatusCode, Bytes), AskError> {
    let exchanged = async {
        let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await.map_err(|e| AskError::http(&e))?;
        let answered = async move {
            let answer = sender.send_request(request).await.map_err(|e| AskError::http(&e))?;
            let status = answer.status();
            let body = Limited::new(answer.into_body(), MAX_ANSWER).collect().await;
            Ok((status, body.map_err(|error| AskError::http(error.as_ref()))?.to_bytes()))
        };
        tokio::pin!(answered, connection);
        tokio::select! {
            // What was read belongs to an answer, even if the connection has ended since.
            biased;
            answer = &mut answered => answer,
            ended = connection => match ended {
                Ok(()) => answered.await,
                Err(error) => Err(AskError::http(&error)),
            }
        }
    };
    timeout(ANSWER, exchanged).await.map_err(|_| AskError::NoAnswer(ANSWER))?
}

fn refused(status: StatusCode, answer: &[u8]) -> ClientError {
    let mut text = String::from_utf8_lossy(answer).trim().to_owned();
    if text.starts_with("Permission denied") {
        text.push_str("\n--token-file names a file with a token for this command; else MUSTER_HTTP_TOKEN holds it.");
    }
    ClientError::Refused(if text.is_empty() { format!("the agent says {status}") } else { text })
}

/// Ends when somebody ends the program.
async fn interrupted() {
    let signals = (signal(SignalKind::interrupt()), signal(SignalKind::terminate()));
    // Where they cannot be heard they end the program as they always do.
    let (Ok(mut interrupt), Ok(mut terminate)) = signals else { return pending().await };
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
}

/// Ends when what reads our output has gone.
async fn unread() {
    loop {
        sleep(LOOK).await;
        let output = io::stdout();
        let mut polled = [PollFd::new(output.as_fd(), PollFlags::empty())];
        // A pipe without a reader is an error; terminals and files never are.
        if poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            return;
        }
    }
}

/// Prints the JSON of an answer, indented; an answer without any as an empty object.
pub(super) fn print_json(client: &Client, answer: &[u8]) -> Result<(), ClientError> {
    let value: serde_json::Value = if answer.is_empty() { serde_json::json!({}) } else { client.read(answer)? };
    print(&format!("{value:#}\n"));
    Ok(())
}

/// A part of a path, whatever is in it.
pub(super) fn segment(text: &str) -> String {
    percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string()
}
