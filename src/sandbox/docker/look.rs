//! Containers that are made to look into an image and never started.
//!
//! Whoever makes one removes it, also when interrupted. One whose maker was killed bears his mark: the next who looks into
//! an image removes it, and so does every runner that speaks to this engine.

use super::answers::fault;
use super::lists::{self, Listed, told};
use super::maker::{self, MAKER};
use super::plan;
use crate::model::RunFault;
use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{CreateContainerOptions, RemoveContainerOptionsBuilder};
use std::collections::HashMap;

/// Makes one, and removes those that were left.
///
/// # Errors
/// Where the engine is not there, or has no such image.
pub(super) async fn into(docker: &Docker, image: &str) -> Result<String, RunFault> {
    sweep(docker).await;
    let body = ContainerCreateBody {
        image: Some(image.to_owned()),
        // It never runs; an image need not have a command of its own.
        entrypoint: Some(vec!["/nothing".into()]),
        labels: Some(HashMap::from([(MAKER.to_owned(), maker::mark())])),
        host_config: Some(HostConfig { network_mode: Some("none".into()), ..Default::default() }),
        ..Default::default()
    };
    let made = docker.create_container(None::<CreateContainerOptions>, body).await;
    Ok(made.map_err(|e| fault("look into the image", &e))?.id)
}

/// Removes one.
///
/// # Errors
/// Where the engine does not.
pub(super) async fn done(docker: &Docker, id: &str) -> Result<(), RunFault> {
    let options = RemoveContainerOptionsBuilder::new().force(true).v(true).build();
    docker.remove_container(id, Some(options)).await.map_err(|e| fault("remove a container", &e))
}

/// Removes those whose makers are gone.
pub(super) async fn sweep(docker: &Docker) {
    let listed = lists::with_label(docker, MAKER).await;
    for Listed { id, labels, age, is_new, .. } in told(listed) {
        // A container has the labels of its image too, which anybody may have made: one of a sandbox, or one that somebody
        // uses, is none of ours.
        let (Some(mark), None, true) = (labels.get(MAKER), labels.get(plan::SANDBOX), is_new) else { continue };
        if maker::is_left(mark, age) && done(docker, &id).await.is_ok() {
            tracing::info!(container = id, "a container that was made to look into an image was left, and is removed");
        }
    }
}
