//! The network of containers that may reach everything: a bridge of this gateway's own, on which no container reaches
//! another.

use super::answers::{fault, missing};
use super::plan::GATEWAY;
use super::reach::Kind;
use crate::model::RunFault;
use bollard::Docker;
use bollard::models::{NetworkCreateRequest, NetworkInspect};
use bollard::query_parameters::InspectNetworkOptions;
use std::collections::HashMap;

/// Whether containers on a bridge reach each other; enforced by the engine's packet filter.
const BETWEEN_CONTAINERS: &str = "com.docker.network.bridge.enable_icc";

/// The name of a gateway's bridge.
pub(super) fn name(gateway: &str) -> String {
    format!("vambrace-{gateway:.8}")
}

/// Finds it, or makes it.
///
/// # Errors
/// Where something else has its name, or the engine cannot make one.
pub(super) async fn prepare(docker: &Docker, kind: Kind, gateway: &str) -> Result<(), RunFault> {
    if kind == Kind::Podman {
        return Err(RunFault::Refused {
            what: "Podman's bridges do not keep containers apart, so network = \"host\" is not given by it".into(),
            hint: "use network = \"allowlist\" or \"none\", or Docker".into(),
        });
    }
    let name = name(gateway);
    match docker.inspect_network(&name, None::<InspectNetworkOptions>).await {
        Ok(live) if is_ours(&live, gateway) => return Ok(()),
        Ok(_) => {
            return Err(RunFault::Engine {
                what: format!("a network that is not of this gateway has the name {name}"),
                hint: format!("look at it with `docker network inspect {name}`; it is never used, nor removed by us"),
            });
        }
        Err(error) if missing(&error) => {}
        Err(error) => return Err(fault("look for the network", &error)),
    }
    let request = NetworkCreateRequest {
        name: name.clone(),
        driver: Some("bridge".into()),
        internal: Some(false),
        attachable: Some(false),
        options: Some(HashMap::from([(BETWEEN_CONTAINERS.to_owned(), "false".to_owned())])),
        labels: Some(HashMap::from([(GATEWAY.to_owned(), gateway.to_owned())])),
        ..Default::default()
    };
    docker.create_network(request).await.map_err(|e| fault("make a network", &e))?;
    // What it does not know, an engine leaves out and makes a network all the same.
    let live = docker.inspect_network(&name, None::<InspectNetworkOptions>).await;
    if live.map_err(|e| fault("look at the network", &e)).is_ok_and(|live| is_ours(&live, gateway)) {
        return Ok(());
    }
    let _ = docker.remove_network(&name).await;
    Err(RunFault::Engine {
        what: "the engine made another network than it was asked for".into(),
        hint: "an engine that does not keep containers of one bridge apart? use network = \"allowlist\" or \"none\""
            .into(),
    })
}

/// Removes it; where a container is on it, the engine refuses.
pub(super) async fn remove(docker: &Docker, gateway: &str) {
    let name = name(gateway);
    let live = docker.inspect_network(&name, None::<InspectNetworkOptions>).await;
    if live.is_ok_and(|live| is_ours(&live, gateway)) {
        let _ = docker.remove_network(&name).await;
    }
}

fn is_ours(live: &NetworkInspect, gateway: &str) -> bool {
    let holds = |map: &Option<HashMap<String, String>>, key: &str, value: &str| {
        map.as_ref().and_then(|map| map.get(key)).is_some_and(|live| live == value)
    };
    live.driver.as_deref() == Some("bridge")
        && live.attachable != Some(true)
        && live.ingress != Some(true)
        && holds(&live.options, BETWEEN_CONTAINERS, "false")
        && holds(&live.labels, GATEWAY, gateway)
}
