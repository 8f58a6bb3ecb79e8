//! Starts the task that sends dnstap messages to a collector.

use super::{Context, VERSION};
use crate::dns::{
    collector::{self, Tap},
    tap::protobuf::Sender,
};

/// Returns the tap of the servers and the resolver; `None` if the configuration has no collector. Its task ends with theirs, after
/// it has sent their last messages.
pub(super) fn start(context: &mut Context<'_>) -> Option<Tap> {
    let dnstap = context.config.dns.dnstap.clone()?;
    let settings = collector::Settings {
        socket: dnstap.socket,
        selection: dnstap.messages,
        sender: Sender {
            identity: context.config.node.to_string().into(),
            version: format!("muster {VERSION}").into(),
        },
        metrics: context.metrics.dnstap.clone(),
    };
    let (tap, sending) = collector::start(settings, context.shutdown.clone());
    context.tasks.spawn("dnstap sender", sending);
    Some(tap)
}
