//! Lists of containers, in pages: an answer has an end, and a gateway may have more containers than fit in one.

use super::answers::{fault, is_id};
use crate::model::RunFault;
use bollard::Docker;
use bollard::models::ContainerSummaryStateEnum;
use bollard::query_parameters::ListContainersOptionsBuilder;
use std::collections::HashMap;
use std::time::{Duration, SystemTime};

/// Containers on one page, of which each takes a few KiB at the most.
const PAGE: i32 = 100;

/// Pages of one list; who has more is told of the rest when these are gone.
const MOST_PAGES: usize = 100;

/// A container on a list.
pub(super) struct Listed {
    pub(super) id: String,
    pub(super) labels: HashMap<String, String>,
    /// With a slash before each.
    pub(super) names: Vec<String>,
    /// The id of what it was made of.
    pub(super) image: Option<String>,
    pub(super) age: Duration,
    /// Whether it was never started.
    pub(super) is_new: bool,
}

/// Those with a label, running or not: `name` or `name=value`.
///
/// # Errors
/// Where the engine does not say.
pub(super) async fn with_label(docker: &Docker, label: &str) -> Result<Vec<Listed>, RunFault> {
    let mut all: Vec<Listed> = Vec::new();
    for _ in 0..MOST_PAGES {
        let mut filters = HashMap::from([("label", vec![label.to_owned()])]);
        if let Some(last) = all.last() {
            filters.insert("before", vec![last.id.clone()]);
        }
        let options = ListContainersOptionsBuilder::new().all(true).limit(PAGE).filters(&filters).build();
        let page = docker.list_containers(Some(options)).await.map_err(|e| fault("list its containers", &e))?;
        let (length, before) = (page.len(), all.len());
        for container in page {
            let Some(id) = container.id.filter(|id| is_id(id)) else { continue };
            let made = Duration::from_secs(u64::try_from(container.created.unwrap_or(0)).unwrap_or(0));
            let age = (SystemTime::UNIX_EPOCH + made).elapsed().unwrap_or_default();
            let is_new = container.state == Some(ContainerSummaryStateEnum::CREATED);
            let (labels, names) = (container.labels.unwrap_or_default(), container.names.unwrap_or_default());
            all.push(Listed { id, labels, names, image: container.image_id, age, is_new });
        }
        if length < PAGE as usize || all.len() == before {
            break;
        }
    }
    Ok(all)
}

/// What was listed. That nothing was is for the log: whatever is left is looked for again.
pub(super) fn told(listed: Result<Vec<Listed>, RunFault>) -> Vec<Listed> {
    listed.unwrap_or_else(|fault| {
        tracing::warn!(error = %fault, "containers that nobody uses are not looked for");
        Vec::new()
    })
}
