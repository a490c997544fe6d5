//! One build of an image by the engine. Knows nothing of what is in it; a build that fails leaves nothing.

use super::answers::{fault, plain};
use super::reach::short;
use crate::crypto;
use crate::model::RunFault;
use crate::os;
use bollard::Docker;
use bollard::query_parameters::{BuildImageOptionsBuilder, PruneImagesOptionsBuilder};
use futures_util::{Stream, StreamExt};
use hyper::body::Bytes;
use std::collections::HashMap;
use std::io;

/// The label of one build, on everything that it makes.
const BUILD: &str = "io.vambrace.build";

/// A build, by what tells its images from all others.
pub(super) struct Build(String);

impl Build {
    pub(super) fn new() -> Self {
        Build(crypto::hex(&os::host::random::<8>()))
    }

    /// The line of its recipe that marks everything that follows: engines keep what they made before they failed.
    pub(super) fn line(&self) -> String {
        format!("LABEL {BUILD}={}\n", self.0)
    }

    /// Makes an image of this name of an archive with a Dockerfile, without network.
    ///
    /// # Errors
    /// Where the engine is not there or refuses; `image` is what the person is told could not be made.
    pub(super) async fn run(
        self,
        docker: &Docker,
        name: &str,
        image: &str,
        archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
    ) -> Result<(), RunFault> {
        let done = carry_out(docker, name, image, archive).await;
        if done.is_err() {
            self.clear(docker).await;
        }
        done
    }

    async fn clear(&self, docker: &Docker) {
        let filters =
            HashMap::from([("dangling", vec!["true".to_owned()]), ("label", vec![format!("{BUILD}={}", self.0)])]);
        let options = PruneImagesOptionsBuilder::new().filters(&filters).build();
        if let Err(error) = docker.prune_images(Some(options)).await {
            tracing::warn!(error = short(&error), "what a failed build has left is not removed");
        }
    }
}

async fn carry_out(
    docker: &Docker,
    name: &str,
    image: &str,
    archive: impl Stream<Item = io::Result<Bytes>> + Send + 'static,
) -> Result<(), RunFault> {
    let options =
        BuildImageOptionsBuilder::new().t(name).dockerfile("Dockerfile").rm(true).forcerm(true).networkmode("none");
    let mut said = Box::pin(docker.build_image(options.build(), None, Some(bollard::body_try_stream(archive))));
    while let Some(info) = said.next().await {
        let info = info.map_err(|e| fault(&format!("build {image}"), &e))?;
        if let Some(error) = info.error_detail.and_then(|detail| detail.message) {
            return Err(RunFault::Engine {
                what: format!("the engine could not build {image}: {}", plain(&error)),
                hint: "is its disk full? its own log tells more".into(),
            });
        }
    }
    Ok(())
}
