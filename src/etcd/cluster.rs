//! Members of the cluster: the voters of the store.

use tonic::{Request, Response, Status, async_trait};

use super::{
    backend::Backend,
    proto::etcdserverpb::{Member, MemberListRequest, MemberListResponse, cluster_server::Cluster},
};

#[async_trait]
impl Cluster for Backend {
    async fn member_list(&self, _: Request<MemberListRequest>) -> Result<Response<MemberListResponse>, Status> {
        let urls = self.client_urls();
        let members = self.status().members.into_iter().map(|member| Member {
            id: member.id,
            client_ur_ls: urls.get(&member.node).cloned().unwrap_or_default(),
            name: member.node,
            // Voters reach each other over the transport of gossip, which has no URL.
            peer_ur_ls: vec![],
            is_learner: !member.is_voter,
        });
        Ok(Response::new(MemberListResponse { header: self.header_now(), members: members.collect() }))
    }
}
