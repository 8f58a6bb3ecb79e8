//! The TCP probe: a connection that opens is a pass, and is closed again at once.

use std::time::Duration;

use super::{connect::Dialer, error::ProbeError};
use crate::model::service::Endpoint;

pub(super) async fn probe(endpoint: &Endpoint, dialer: &Dialer, patience: Duration) -> Result<(), ProbeError> {
    dialer.connect(&endpoint.host, endpoint.port, patience).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::checks::fixtures::{Server, closed_port};

    const PATIENCE: Duration = Duration::from_secs(5);

    #[tokio::test]
    async fn a_connection_that_opens_is_a_pass() {
        let (server, mut gone) = Server::hanging().await;
        let open = server.endpoint();
        // Listens on the IPv4 loopback only: one of the name's addresses is enough.
        let by_name = Endpoint { host: "LocalHost".into(), port: open.port };
        let no_name = Endpoint { host: format!("{}.invalid", "a".repeat(64)), port: 1 };
        let cases = [
            (open, Ok(())),
            (by_name, Ok(())),
            (closed_port(), Err(ProbeError::critical("connection refused"))),
            (no_name, Err(ProbeError::critical("name not found"))),
        ];
        for (endpoint, expected) in cases {
            assert_eq!(probe(&endpoint, &Dialer::new(), PATIENCE).await, expected, "{endpoint}");
            if expected.is_ok() {
                gone.recv().await.unwrap(); // and is closed again
            }
        }
    }
}
