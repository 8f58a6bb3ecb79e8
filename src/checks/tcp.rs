//! TCP probe: passes if a connection opens, and closes it at once.

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
    async fn open_port_passes() {
        let (server, mut gone) = Server::hanging().await;
        let open = server.endpoint();
        // The server listens on the IPv4 loopback only: one address of the name is enough.
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
                gone.recv().await.unwrap(); // the probe closes the connection
            }
        }
    }
}
