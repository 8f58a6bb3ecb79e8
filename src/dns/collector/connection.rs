//! Connection to a collector: the handshake of Frame Streams, data frames, and the end of the stream.

use std::{io, path::Path, time::Duration};

use thiserror::Error;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        UnixStream,
        unix::{OwnedReadHalf, OwnedWriteHalf},
    },
    time::timeout,
};

use crate::dns::tap::{
    frame_streams::{Control, ControlType, FrameError, MAX_CONTROL},
    protobuf::CONTENT_TYPE,
};

/// Time limit of the handshake.
const HANDSHAKE: Duration = Duration::from_secs(5);

/// Reason why there is no connection.
#[derive(Debug, Error)]
pub(super) enum ConnectionError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("no response to the handshake within {HANDSHAKE:?}")]
    Timeout,
    #[error("not a collector of Frame Streams: {0}")]
    Frame(#[from] FrameError),
    #[error("a control frame {0:?} instead of Accept")]
    Unexpected(ControlType),
    #[error("the collector does not accept `protobuf:dnstap.Dnstap`: set its content type")]
    ContentType,
    #[error(
        "the collector has closed the connection in the handshake: check its content type, `protobuf:dnstap.Dnstap`"
    )]
    Refused,
    #[error("the collector has closed the connection")]
    Closed,
}

impl ConnectionError {
    /// Returns the reason for an end of the handshake. A collector that closes the connection may do so before or after it has read.
    fn in_handshake(self) -> Self {
        match self {
            Self::Closed => Self::Refused,
            Self::Io(error) if matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe) => {
                Self::Refused
            }
            other => other,
        }
    }
}

/// A stream of data frames.
pub(super) struct Connection {
    reader: OwnedReadHalf,
    writer: OwnedWriteHalf,
    /// Octets of an incomplete control frame.
    input: Vec<u8>,
}

impl Connection {
    /// Connects to a socket and starts a stream.
    pub(super) async fn open(socket: &Path) -> Result<Self, ConnectionError> {
        let (reader, writer) = UnixStream::connect(socket).await?.into_split();
        let mut connection = Self { reader, writer, input: Vec::new() };
        let done = timeout(HANDSHAKE, connection.handshake()).await.map_err(|_| ConnectionError::Timeout)?;
        done.map_err(ConnectionError::in_handshake)?;
        Ok(connection)
    }

    async fn handshake(&mut self) -> Result<(), ConnectionError> {
        self.write(&Control::of(ControlType::Ready, CONTENT_TYPE).encode()).await?;
        let accept = self.control().await?;
        if accept.control_type != ControlType::Accept {
            return Err(ConnectionError::Unexpected(accept.control_type));
        }
        if !accept.permits(CONTENT_TYPE) {
            return Err(ConnectionError::ContentType);
        }
        Ok(self.write(&Control::of(ControlType::Start, CONTENT_TYPE).encode()).await?)
    }

    /// Receives a control frame.
    async fn control(&mut self) -> Result<Control, ConnectionError> {
        loop {
            if let Some((control, len)) = Control::parse(&self.input)? {
                self.input.drain(..len);
                return Ok(control);
            }
            // The parser refuses longer frames, so that the input is bounded.
            let mut octets = [0; MAX_CONTROL];
            match self.reader.read(&mut octets).await? {
                0 => return Err(ConnectionError::Closed),
                len => self.input.extend_from_slice(&octets[..len]),
            }
        }
    }

    /// Sends octets.
    pub(super) async fn write(&mut self, octets: &[u8]) -> io::Result<()> {
        self.writer.write_all(octets).await
    }

    /// Waits until the collector ends the stream. A collector sends nothing else after the handshake.
    pub(super) async fn ended(&mut self) -> ConnectionError {
        match self.control().await {
            Ok(Control { control_type: ControlType::Finish, .. }) => ConnectionError::Closed,
            Ok(control) => ConnectionError::Unexpected(control.control_type),
            Err(error) => error,
        }
    }

    /// Ends the stream: the collector confirms that it has all frames.
    pub(super) async fn finish(&mut self) -> io::Result<()> {
        self.write(&Control::bare(ControlType::Stop).encode()).await?;
        self.ended().await;
        Ok(())
    }
}
