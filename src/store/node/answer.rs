//! Requests that this node's member carries out, with the reply as it is sent.

use bytes::Bytes;

use super::{local::Local, membership::change, status::status};
use crate::store::{
    message::{
        MembershipReply, PeerRefusal, PeerRequest, RemovedReply, RenewReply, StatusReply, TakeOverReply, WriteReply,
        encode,
    },
    peers::Peers,
};

/// Carries out a request on this node's member. Returns the reply; `None` if there is none.
pub(super) async fn answer(local: &Local, peers: &Peers, own: &str, request: PeerRequest) -> Option<Bytes> {
    match request {
        PeerRequest::Raft { to, octets } => {
            if to == local.voter.id() {
                local.voter.answer(&octets).await
            } else {
                None
            }
        }
        PeerRequest::Write(command) => Some(encode::<WriteReply>(&local.write(command).await)),
        PeerRequest::Renew(id) => Some(encode::<RenewReply>(&local.renew(id).await)),
        PeerRequest::Status => Some(encode::<StatusReply>(&if local.is_leader() {
            Ok(status(local, own))
        } else {
            Err(local.other_leader())
        })),
        PeerRequest::Membership(wanted) => Some(encode::<MembershipReply>(&if local.is_leader() {
            change(local, peers, &wanted).await.map_err(PeerRefusal::Failed)
        } else {
            Err(local.other_leader())
        })),
        PeerRequest::TakeOver { term } => Some(encode::<TakeOverReply>(&local.take_over(term).await)),
        PeerRequest::IsRemoved { cluster, id } => Some(encode::<RemovedReply>(&local.has_removed(cluster, id).await)),
        PeerRequest::View => Some(encode::<StatusReply>(&if local.holds_store() {
            Ok(status(local, own))
        } else {
            Err(local.other_leader())
        })),
        PeerRequest::Describe | PeerRequest::Prepare | PeerRequest::Read { .. } | PeerRequest::Watch(_) => None,
    }
}
