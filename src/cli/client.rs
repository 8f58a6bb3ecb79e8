//! HTTP client of the commands: one request to the agent per connection.
//!
//! Consul agents listen on the same port. A command that changes anything but keys first checks that the server is a muster agent.

use std::{
    fs::File,
    io,
    os::fd::AsFd,
    path::{Path, PathBuf},
    time::Duration,
};

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
    time::{sleep, timeout},
};
use tokio_rustls::{client::TlsStream, rustls::RootCertStore};
use tokio_util::either::Either;

use super::{
    Exit,
    address::Address,
    client_tls::{self, CaFileError},
    client_token::{Source, VARIABLE, token},
    local_agent::{self, LocalAgent},
    output::{self, print, print_error},
    request_error::RequestError,
    signals::interrupted,
    table::printable,
};
use crate::{api, printable::escaped_json};

/// Endpoint that only a muster agent has.
const STATUS: &str = "/v1/muster/status";
/// Connect timeout.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);
/// Request timeout; longer than the agent takes for any command.
pub(super) const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);
/// Longest wait of a blocking query. The agent adds up to a sixteenth.
const WAIT: Duration = Duration::from_secs(60);
/// Maximum size of a response in octets: enough for thousands of members.
const MAX_RESPONSE: usize = 64 * 1024 * 1024;
/// Interval between checks that the output still has a reader.
const OUTPUT_CHECK: Duration = Duration::from_millis(500);

/// TCP, TLS over it, or a Unix socket.
type Connection = Either<TcpStream, Either<TlsStream<TcpStream>, UnixStream>>;

/// Heading of the common options in the help.
const HEADING: &str = "Agent options";

/// Options of all commands that send requests to an agent.
#[derive(Debug, clap::Args)]
#[group(skip)]
pub(super) struct Args {
    /// Address of the agent: HOST:PORT, http://HOST:PORT, https://HOST:PORT or unix:///PATH [default: as --config says]
    #[arg(long, value_name = "ADDR", env = "MUSTER_HTTP_ADDR", global = true, help_heading = HEADING)]
    http_addr: Option<Address>,
    /// Find the agent by this configuration; without one, at /run/muster/api.sock or 127.0.0.1:8500 [default: /etc/muster/muster.yaml]
    #[arg(long, value_name = "PATH", global = true, help_heading = HEADING)]
    config: Option<PathBuf>,
    /// Read the API token from this file instead of MUSTER_HTTP_TOKEN
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    token_file: Option<PathBuf>,
    /// Trust the certificate authorities in this PEM file instead of the system's
    #[arg(long, value_name = "FILE", global = true, help_heading = HEADING)]
    ca_file: Option<PathBuf>,
    /// Print JSON
    #[arg(long, global = true, help_heading = HEADING)]
    pub(super) json: bool,
}

/// Failure of a command that sends requests to an agent.
#[derive(Debug, thiserror::Error)]
pub(super) enum ClientError {
    /// The agent refused the request; the text is its response.
    #[error("{0}")]
    Refused(String),
    /// No valid response; the text is the cause and the advice.
    #[error("{0}")]
    Failed(String),
}

impl ClientError {
    /// Returns the error with another text.
    pub(super) fn map(self, text: impl FnOnce(String) -> String) -> Self {
        match self {
            Self::Refused(former) => Self::Refused(text(former)),
            Self::Failed(former) => Self::Failed(text(former)),
        }
    }

    /// Prints the error and returns its exit code.
    pub(super) fn report(&self) -> Exit {
        // Line by line: control characters are replaced, and a response may have several lines.
        for (at, line) in self.to_string().lines().enumerate() {
            print_error!("{}{}", if at == 0 { "muster: " } else { "" }, printable(line));
        }
        match self {
            Self::Refused(_) => Exit::Refused,
            Self::Failed(_) => Exit::CouldNotRun,
        }
    }
}

/// Sends requests to one agent.
pub(super) struct Client {
    address: Address,
    token: Option<HeaderValue>,
    /// Source of the token; `None` without one.
    token_source: Option<Source>,
    ca_file: Option<PathBuf>,
    /// Trusted authorities, if requests use TLS.
    authorities: Option<RootCertStore>,
    /// Advice of the configuration by which the agent was found.
    advice: Option<String>,
    runtime: Runtime,
}

/// Runs a command with a client, and reports its error.
pub(super) fn with(args: &Args, command: impl FnOnce(&Client) -> Result<(), ClientError>) -> Exit {
    with_exit(args, |client| command(client).map(|()| Exit::Done))
}

/// Like [`with`], for a command that succeeds with different exit codes.
pub(super) fn with_exit(args: &Args, command: impl FnOnce(&Client) -> Result<Exit, ClientError>) -> Exit {
    Client::new(args).and_then(|client| command(&client)).unwrap_or_else(|error| error.report())
}

impl Client {
    /// The client of the agent that the options or the configuration name.
    fn new(args: &Args) -> Result<Self, ClientError> {
        let agent = match &args.http_addr {
            Some(address) => LocalAgent { address: address.clone(), ca_file: None, advice: None },
            None => local_agent::find(args.config.as_deref())
                .map_err(|error| ClientError::Failed(format!("{error}\n{}", error.advice())))?,
        };
        let LocalAgent { address, ca_file, advice } = agent;
        // The agent's own certificate may be unreadable for this user: the system's authorities then decide.
        let ca_file = args.ca_file.clone().or(ca_file.filter(|path| File::open(path).is_ok()));
        Ok(Self { advice, ..Self::at(address, args.token_file.as_deref(), VARIABLE, ca_file)? })
    }

    /// A client of the server at an address. Without a file, the token is in the environment variable.
    ///
    /// # Errors
    /// The token or the authorities are unusable.
    pub(super) fn at(
        address: Address,
        token_file: Option<&Path>,
        variable: &'static str,
        ca_file: Option<PathBuf>,
    ) -> Result<Self, ClientError> {
        let runtime = Builder::new_current_thread().enable_all().build();
        let runtime = runtime.map_err(|error| ClientError::Failed(format!("cannot start the HTTP client: {error}")))?;
        let token = token(token_file, variable).map_err(|error| {
            ClientError::Failed(format!(
                "{error}\n--token-file names a file with one token; {variable} contains a token."
            ))
        })?;
        // --ca-file is read even if it is not needed, so that a wrong path is reported at once.
        let authorities = (ca_file.is_some() || matches!(address, Address::Https(_)))
            .then(|| client_tls::authorities(ca_file.as_deref()))
            .transpose()
            .map_err(|error| ClientError::Failed(format!("{error}\n{}", CaFileError::ADVICE)))?;
        if token.is_some() && address.is_cleartext() {
            print_error!("muster: warning: the token is sent unencrypted to {address}: use https://");
        }
        let source = token_file.map_or(Source::Variable(variable), |path| Source::File(path.to_owned()));
        let token_source = token.is_some().then_some(source);
        Ok(Self { address, token, token_source, ca_file, authorities, advice: None, runtime })
    }

    /// Returns the agent's description of itself; fails if the server is not a muster agent.
    pub(super) fn agent(&self) -> Result<api::AgentStatus, ClientError> {
        self.read(&self.status()?)
    }

    /// Returns the response of `GET /v1/muster/status`.
    pub(super) fn status(&self) -> Result<Bytes, ClientError> {
        self.status_in(self.query(STATUS)?)
    }

    fn status_in(&self, response: Response<Bytes>) -> Result<Bytes, ClientError> {
        match response.status() {
            StatusCode::NOT_FOUND => Err(self.not_an_agent(&format!("it has no {STATUS}"))),
            _ => self.success(response),
        }
    }

    /// Fails if the server is not a muster agent.
    fn ensure_agent(&self) -> Result<(), ClientError> {
        let response = self.query(STATUS)?;
        match response.status() {
            // The server has the endpoint. The refusal of the change itself names the scope that the change needs.
            StatusCode::FORBIDDEN => Ok(()),
            _ => self.read::<api::AgentStatus>(&self.status_in(response)?).map(drop),
        }
    }

    /// Sends a GET request and returns the body of the response.
    pub(super) fn get(&self, path: &str) -> Result<Bytes, ClientError> {
        self.send(Method::GET, path, Bytes::new())
    }

    /// Sends a GET request to a server that may be no muster agent, and returns its response with any status.
    pub(super) fn query(&self, path: &str) -> Result<Response<Bytes>, ClientError> {
        self.block_on(self.ask(Method::GET, path, Bytes::new(), REQUEST_TIMEOUT))
    }

    /// Sends a request and returns the response with any status. Callable only within [`block_on`](Self::block_on) and
    /// [`run`](Self::run).
    pub(super) async fn ask(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Response<Bytes>, ClientError> {
        self.exchange(method, path, body, limit).await.map_err(|error| self.failed(&error))
    }

    /// Sends a blocking query, which waits for a change after an index if one is given. Returns the index of the response, if it
    /// has one, and the response with any status.
    pub(super) async fn wait(
        &self,
        path: &str,
        index: Option<u64>,
    ) -> Result<(Option<u64>, Response<Bytes>), ClientError> {
        let separator = if path.contains('?') { '&' } else { '?' };
        let wait = index.map_or_else(String::new, |index| format!("{separator}index={index}&wait={}s", WAIT.as_secs()));
        let limit = if index.is_some() { WAIT + WAIT / 16 + REQUEST_TIMEOUT } else { REQUEST_TIMEOUT };
        let response = self.ask(Method::GET, &format!("{path}{wait}"), Bytes::new(), limit).await?;
        let index = response.headers().get("x-consul-index").and_then(|index| index.to_str().ok()?.parse().ok());
        Ok((index, response))
    }

    /// Runs a future to its end. A signal ends the program, unless the future handles it.
    pub(super) fn block_on<T>(&self, future: impl Future<Output = T>) -> T {
        self.runtime.block_on(future)
    }

    /// The address of the server.
    pub(super) fn address(&self) -> &Address {
        &self.address
    }

    /// Sends a request that changes state, after checking that the server is a muster agent.
    pub(super) fn change(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        self.change_within(method, path, body, REQUEST_TIMEOUT)
    }

    /// Like [`change`](Self::change), with another time limit.
    pub(super) fn change_within(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Bytes, ClientError> {
        self.ensure_agent()?;
        let response = self.block_on(self.ask(method, path, body, limit))?;
        self.success(response)
    }

    /// Parses the JSON of a response.
    pub(super) fn read<T: DeserializeOwned>(&self, response: &[u8]) -> Result<T, ClientError> {
        serde_json::from_slice(response).map_err(|error| self.not_an_agent(&error.to_string()))
    }

    fn not_an_agent(&self, reason: &str) -> ClientError {
        let address = &self.address;
        ClientError::Failed(format!(
            "the server at {address} is not a muster agent: {reason}\nSet the address of the agent with --http-addr or \
             MUSTER_HTTP_ADDR."
        ))
    }

    /// Runs a future until it ends, a signal (SIGINT, SIGTERM) arrives, or the output has no reader any more or fails.
    pub(super) fn run(&self, endless: impl Future<Output = Result<(), ClientError>>) -> Result<(), ClientError> {
        self.runtime.block_on(async {
            tokio::select! {
                ended = endless => ended,
                () = interrupted() => Ok(()),
                () = output_closed() => Ok(()),
            }
        })
    }

    /// Opens an event stream, which continues after the event with the id `last_seen`. Callable only within
    /// [`run`](Self::run).
    pub(super) async fn open_stream(
        &self,
        path: &str,
        last_seen: Option<u64>,
    ) -> Result<Response<Incoming>, ClientError> {
        let response = timeout(REQUEST_TIMEOUT, self.start_stream(path, last_seen)).await;
        let response = response.unwrap_or(Err(RequestError::NoAnswer(REQUEST_TIMEOUT)));
        let response = response.map_err(|error| self.failed(&error))?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let text = timeout(REQUEST_TIMEOUT, Limited::new(response.into_body(), MAX_RESPONSE).collect()).await;
        Err(self.refused(status, &text.ok().and_then(Result::ok).map(Collected::to_bytes).unwrap_or_default()))
    }

    async fn start_stream(&self, path: &str, last_seen: Option<u64>) -> Result<Response<Incoming>, RequestError> {
        let stream = self.connect().await?;
        let mut request = self.request(Method::GET, path, Bytes::new()).map_err(|e| RequestError::http(&e))?;
        if let Some(id) = last_seen {
            request.headers_mut().insert("last-event-id", id.into());
        }
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| RequestError::http(&e))?;
        // Ends with the response body, whose reader gets the error.
        tokio::spawn(connection);
        sender.send_request(request).await.map_err(|e| RequestError::http(&e))
    }

    /// Sends a request without asking which server it is, and returns the body of the response. Changes of keys are sent so: the
    /// server may be an agent of Consul, and a token for keys alone may not ask.
    pub(super) fn send(&self, method: Method, path: &str, body: Bytes) -> Result<Bytes, ClientError> {
        let response = self.block_on(self.ask(method, path, body, REQUEST_TIMEOUT))?;
        self.success(response)
    }

    /// Returns the body of a successful response.
    pub(super) fn success(&self, response: Response<Bytes>) -> Result<Bytes, ClientError> {
        let status = response.status();
        if status.is_success() { Ok(response.into_body()) } else { Err(self.refused(status, response.body())) }
    }

    fn failed(&self, error: &RequestError) -> ClientError {
        let address = &self.address;
        let mut advice = error.advice(address, self.ca_file.as_deref());
        if let Some(more) = &self.advice {
            advice = format!("{advice}\n{more}");
        }
        ClientError::Failed(format!("cannot query the agent at {address}: {error}\n{advice}"))
    }

    fn refused(&self, status: StatusCode, body: &[u8]) -> ClientError {
        let mut text = String::from_utf8_lossy(body).trim().to_owned();
        if let (true, Some(source)) = (text.starts_with("Permission denied"), &self.token_source) {
            text.push_str(&format!("\nThe command sent the token of {source}."));
        } else if text.starts_with("Permission denied") {
            text.push_str("\nSet a token for this command with --token-file or MUSTER_HTTP_TOKEN.");
            if let Some(more) = &self.advice {
                text.push('\n');
                text.push_str(more);
            }
        }
        ClientError::Refused(if text.is_empty() { format!("the agent answered {status}") } else { text })
    }

    async fn connect(&self) -> Result<Connection, RequestError> {
        match &self.address {
            Address::Http(endpoint) => {
                Ok(Either::Left(within(TcpStream::connect((&*endpoint.host, endpoint.port))).await?))
            }
            Address::Https(endpoint) => {
                let authorities = self.authorities.clone().unwrap_or_else(RootCertStore::empty);
                let connector = client_tls::connector(authorities)?;
                let name = client_tls::name(&endpoint.host)?;
                let opened = async {
                    connector.connect(name, TcpStream::connect((&*endpoint.host, endpoint.port)).await?).await
                };
                Ok(Either::Right(Either::Left(within(opened).await?)))
            }
            Address::Unix(path) => Ok(Either::Right(Either::Right(within(UnixStream::connect(path)).await?))),
        }
    }

    async fn exchange(
        &self,
        method: Method,
        path: &str,
        body: Bytes,
        limit: Duration,
    ) -> Result<Response<Bytes>, RequestError> {
        let request = self.request(method, path, body).map_err(|e| RequestError::http(&e))?;
        round_trip(self.connect().await?, request, limit).await
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

/// Limits opening a connection to the connect timeout.
async fn within<S>(opened: impl Future<Output = io::Result<S>>) -> Result<S, RequestError> {
    let opened = timeout(CONNECT_TIMEOUT, opened).await;
    opened.map_err(|_| RequestError::NoConnection(CONNECT_TIMEOUT))?.map_err(RequestError::from)
}

/// Sends a request on a connection and reads the response.
async fn round_trip(
    stream: Connection,
    request: Request<Full<Bytes>>,
    limit: Duration,
) -> Result<Response<Bytes>, RequestError> {
    let exchanged = async {
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(stream)).await.map_err(|e| RequestError::http(&e))?;
        let answered = async move {
            let response = sender.send_request(request).await.map_err(|e| RequestError::http(&e))?;
            let (head, body) = response.into_parts();
            let body = Limited::new(body, MAX_RESPONSE).collect().await;
            let body = body.map_err(|error| RequestError::http(error.as_ref()))?.to_bytes();
            Ok(Response::from_parts(head, body))
        };
        tokio::pin!(answered, connection);
        tokio::select! {
            // A complete response counts even if the connection has ended since.
            biased;
            response = &mut answered => response,
            ended = connection => match ended {
                Ok(()) => answered.await,
                Err(error) => Err(RequestError::http(&error)),
            }
        }
    };
    timeout(limit, exchanged).await.map_err(|_| RequestError::NoAnswer(limit))?
}

/// Waits until the reader of the output has closed it, or a write has failed.
async fn output_closed() {
    loop {
        sleep(OUTPUT_CHECK).await;
        if output::is_lost() {
            return;
        }
        let stdout = io::stdout();
        let mut polled = [PollFd::new(stdout.as_fd(), PollFlags::empty())];
        // poll reports an error for a pipe without a reader, and never for terminals and files.
        if poll(&mut polled, PollTimeout::ZERO).is_ok_and(|ready| ready > 0) {
            return;
        }
    }
}

/// Prints the JSON of a response, indented; an empty response as an empty object.
pub(super) fn print_json(client: &Client, response: &[u8]) -> Result<(), ClientError> {
    let value: serde_json::Value = if response.is_empty() { serde_json::json!({}) } else { client.read(response)? };
    print(&escaped_json(&format!("{value:#}\n")));
    Ok(())
}

/// Percent-encodes a text as one segment of a path.
pub(super) fn segment(text: &str) -> String {
    percent_encode(text.as_bytes(), NON_ALPHANUMERIC).to_string()
}
