//! Authentication: a token of muster is the password of any user.

use tonic::{Request, Response, Status, async_trait};

use super::{
    backend::Backend,
    proto::etcdserverpb::{
        AuthStatusRequest, AuthStatusResponse, AuthenticateRequest, AuthenticateResponse, auth_server::Auth,
    },
};

#[async_trait]
impl Auth for Backend {
    async fn auth_status(&self, _: Request<AuthStatusRequest>) -> Result<Response<AuthStatusResponse>, Status> {
        let enabled = self.tokens().is_some();
        Ok(Response::new(AuthStatusResponse { header: self.header_now(), enabled, auth_revision: 1 }))
    }

    async fn authenticate(
        &self,
        request: Request<AuthenticateRequest>,
    ) -> Result<Response<AuthenticateResponse>, Status> {
        let Some(tokens) = self.tokens() else {
            return Err(Status::failed_precondition("etcdserver: authentication is not enabled"));
        };
        let password = request.into_inner().password;
        if tokens.borrow().find(password.as_bytes()).is_none() {
            let text = "etcdserver: authentication failed, invalid user ID or password";
            return Err(Status::invalid_argument(text));
        }
        Ok(Response::new(AuthenticateResponse { header: self.header_now(), token: password }))
    }
}
