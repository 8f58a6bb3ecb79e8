//! Lists of Consul's service mesh. muster has no mesh: no instance accepts mesh connections, and no gateway exists. The lists are
//! empty, as they are in a Consul cluster without a mesh, so that programs that read them go on.

use axum::{
    extract::{Path, State},
    http::Uri,
    response::Response,
};
use serde::{Serialize, de::DeserializeOwned};

use crate::http::{
    Api,
    blocking::Topic,
    blocking_response::show,
    query::{Query, service_name},
    response::ApiError,
};

/// Lists what belongs to the mesh of a service or a gateway: an empty list. It blocks as the instances of the service do.
pub(crate) async fn nothing<T: DeserializeOwned + Serialize>(
    State(api): State<Api>,
    uri: Uri,
    Path(name): Path<String>,
    query: Query,
) -> Result<Response, ApiError> {
    show(&api, &uri, &query, Topic::Service(service_name(&name)?), |_| Ok(Vec::<T>::new())).await
}
