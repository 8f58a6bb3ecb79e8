//! Raft's messages between members, carried by [`Peers`].

use bytes::Bytes;
use openraft::{
    Raft, RaftNetwork, RaftNetworkFactory,
    error::{InstallSnapshotError, NetworkError, RPCError, RaftError, RemoteError, Unreachable},
    network::RPCOption,
    raft::{
        AppendEntriesRequest, AppendEntriesResponse, InstallSnapshotRequest, InstallSnapshotResponse, VoteRequest,
        VoteResponse,
    },
};
use serde::{Deserialize, Serialize, de::DeserializeOwned};

use super::{
    Member, MemberId, Types,
    contacts::{Contacts, LeaderContact},
};
use crate::store::{message::PeerRequest, peers::Peers};

/// A message of a leader or a candidate.
#[derive(Serialize, Deserialize)]
enum Call {
    Append(AppendEntriesRequest<Types>),
    Vote(VoteRequest<MemberId>),
    Snapshot(InstallSnapshotRequest<Types>),
}

type Reply<T, E = openraft::error::Infallible> = Result<T, RaftError<MemberId, E>>;
type CallError<E = openraft::error::Infallible> = RPCError<MemberId, Member, RaftError<MemberId, E>>;

/// Creates the connections of a member to others.
#[derive(Clone)]
pub(super) struct Network {
    pub(super) peers: Peers,
    pub(super) contacts: Contacts,
}

/// The connection to one member.
pub(super) struct Connection {
    peers: Peers,
    contacts: Contacts,
    to: MemberId,
    node: String,
}

impl RaftNetworkFactory<Types> for Network {
    type Network = Connection;

    async fn new_client(&mut self, to: MemberId, member: &Member) -> Connection {
        Connection { peers: self.peers.clone(), contacts: self.contacts.clone(), to, node: member.node.clone() }
    }
}

impl Connection {
    async fn call<T: DeserializeOwned, E>(&self, call: &Call, option: &RPCOption) -> Result<T, CallError<E>>
    where
        E: std::error::Error + DeserializeOwned,
    {
        let octets = postcard::to_stdvec(call).map_err(|error| RPCError::Network(NetworkError::new(&error)))?;
        self.contacts.sent(self.to);
        let request = PeerRequest::Raft { to: self.to, octets: octets.into() };
        let reply = self.peers.call(&self.node, request.encode(), option.hard_ttl()).await;
        let reply = reply.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        // Another member answers at this name, or another version.
        let reply: Result<Reply<T, E>, _> = postcard::from_bytes(&reply);
        let reply = reply.map_err(|error| RPCError::Unreachable(Unreachable::new(&error)))?;
        self.contacts.replied(self.to);
        reply.map_err(|error| RPCError::RemoteError(RemoteError::new(self.to, error)))
    }
}

impl RaftNetwork<Types> for Connection {
    async fn append_entries(
        &mut self,
        request: AppendEntriesRequest<Types>,
        option: RPCOption,
    ) -> Result<AppendEntriesResponse<MemberId>, CallError> {
        self.call(&Call::Append(request), &option).await
    }

    async fn install_snapshot(
        &mut self,
        request: InstallSnapshotRequest<Types>,
        option: RPCOption,
    ) -> Result<InstallSnapshotResponse<MemberId>, CallError<InstallSnapshotError>> {
        self.call(&Call::Snapshot(request), &option).await
    }

    async fn vote(
        &mut self,
        request: VoteRequest<MemberId>,
        option: RPCOption,
    ) -> Result<VoteResponse<MemberId>, CallError> {
        self.call(&Call::Vote(request), &option).await
    }
}

/// Passes a message of another member to Raft. Returns the reply; `None` if the message cannot be read.
pub(super) async fn answer(raft: &Raft<Types>, leader: &LeaderContact, octets: &[u8]) -> Option<Bytes> {
    let reply = match postcard::from_bytes(octets).ok()? {
        Call::Append(request) => {
            let reply = raft.append_entries(request).await;
            if !matches!(reply, Err(_) | Ok(AppendEntriesResponse::HigherVote(_))) {
                leader.heard();
            }
            postcard::to_stdvec(&reply)
        }
        Call::Vote(request) => postcard::to_stdvec(&raft.vote(request).await),
        Call::Snapshot(request) => postcard::to_stdvec(&raft.install_snapshot(request).await),
    };
    reply.ok().map(Bytes::from)
}
