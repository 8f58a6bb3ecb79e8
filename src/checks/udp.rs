//! UDP probe: sends a datagram without content. It is critical if the host refuses it (ICMP port unreachable), and passes
//! with any answer. Many services ignore such a datagram: no answer within the timeout passes, too, as in Consul.

use std::{
    net::{Ipv4Addr, Ipv6Addr, SocketAddr},
    time::Duration,
};

use tokio::{
    net::UdpSocket,
    time::{Instant, timeout_at},
};

use super::{connect::Dialer, error::ProbeError};
use crate::model::service::Endpoint;

/// Probes for at most `patience`.
pub(super) async fn probe(endpoint: &Endpoint, dialer: &Dialer, patience: Duration) -> Result<(), ProbeError> {
    let deadline = Instant::now() + patience;
    let addresses = timeout_at(deadline, dialer.addresses(&endpoint.host, endpoint.port)).await;
    let addresses = addresses.map_err(|_| ProbeError::timed_out(patience))??;
    let address = addresses.first().ok_or_else(|| ProbeError::critical("name not found"))?;
    let any: SocketAddr = match address {
        SocketAddr::V4(_) => (Ipv4Addr::UNSPECIFIED, 0).into(),
        SocketAddr::V6(_) => (Ipv6Addr::UNSPECIFIED, 0).into(),
    };
    let socket = UdpSocket::bind(any).await?;
    socket.connect(address).await?;
    socket.send(&[]).await?;
    match timeout_at(deadline, socket.recv(&mut [0; 1])).await {
        Ok(Err(error)) => Err(error.into()),
        Ok(Ok(_)) | Err(_) => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use tokio_util::task::AbortOnDropHandle;

    use super::*;

    #[tokio::test]
    async fn only_a_refused_datagram_is_critical() {
        let answering = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let silent = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let closed = UdpSocket::bind("127.0.0.1:0").await.unwrap();
        let endpoint =
            |socket: &UdpSocket| Endpoint { host: "127.0.0.1".to_owned(), port: socket.local_addr().unwrap().port() };
        let cases = [
            (endpoint(&answering), 60_000, Ok(())),
            (endpoint(&silent), 100, Ok(())),
            (endpoint(&closed), 60_000, Err(ProbeError::critical("connection refused"))),
            (Endpoint { host: "a..invalid".to_owned(), port: 1 }, 60_000, Err(ProbeError::critical("name not found"))),
        ];
        drop(closed);
        let answer = async move {
            while let Ok((0, client)) = answering.recv_from(&mut [0; 16]).await {
                let _ = answering.send_to(b"pong", client).await;
            }
        };
        let _answering = AbortOnDropHandle::new(tokio::spawn(answer));
        for (endpoint, patience, expected) in cases {
            let got = probe(&endpoint, &Dialer::new(), Duration::from_millis(patience)).await;
            assert_eq!(got, expected, "{endpoint}");
        }
    }
}
