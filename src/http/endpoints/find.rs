//! Endpoints of routes and paths.

use std::time::Duration;

use super::{
    super::{MAX_BODY_LEN, REQUEST_TIMEOUT, endpoint::Endpoint},
    ENDPOINTS,
};
use crate::model::token::{Requirement, Scope::Read};

/// Returns the permission that the endpoint of a route requires; `None`: no token is needed.
pub(in crate::http) fn required(method: &str, route: &str) -> Option<Requirement> {
    // Without a token, an unknown path looks the same as a known one.
    find(method, route).map_or(Read.into(), |endpoint| endpoint.required)
}

/// Returns the largest request body of the endpoint of a route, in octets.
pub(in crate::http) fn max_body(method: &str, route: &str) -> usize {
    find(method, route).map_or(MAX_BODY_LEN, |endpoint| endpoint.max_body)
}

/// Returns the time limit of the endpoint of a route, if it is a mutation.
pub(in crate::http) fn time_limit(method: &str, route: &str) -> Duration {
    find(method, route).map_or(REQUEST_TIMEOUT, |endpoint| endpoint.time_limit)
}

fn find(method: &str, route: &str) -> Option<&'static Endpoint> {
    ENDPOINTS.iter().find(|endpoint| endpoint.route_path == route && endpoint.takes(method))
}

/// Returns the path of a route, as a metric label; `none` for a route outside of this table.
pub(in crate::http) fn pattern(route: &str) -> &'static str {
    ENDPOINTS.iter().find(|endpoint| endpoint.route_path == route).map_or("none", |endpoint| endpoint.path)
}

/// Returns each path with its methods, separated by `, `, in the table's order.
pub(in crate::http) fn paths() -> Vec<(&'static str, String)> {
    let mut paths: Vec<(&str, String)> = Vec::new();
    for endpoint in ENDPOINTS.iter() {
        match paths.last_mut().filter(|(path, _)| *path == endpoint.path) {
            Some((_, methods)) => methods.extend([", ", endpoint.method]),
            None => paths.push((endpoint.path, endpoint.method.to_owned())),
        }
    }
    paths
}

/// Returns the methods of the endpoint that a path matches.
pub(in crate::http) fn methods_of(path: &str) -> Option<String> {
    let fitting = ENDPOINTS.iter().filter(|endpoint| endpoint.matches(path));
    // As in the router, literal text takes precedence over a parameter.
    let matched = fitting.max_by_key(|endpoint| endpoint.literal_len())?.path;
    paths().into_iter().find(|(path, _)| *path == matched).map(|(_, methods)| methods)
}
