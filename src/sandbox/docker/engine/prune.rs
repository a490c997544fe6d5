//! What of an engine's containers is to go: nobody uses it any more, or it is older than its profile wants it.

use super::super::lists::{self, Listed};
use super::super::maker::{self, MAKER};
use super::super::reach::Reached;
use super::super::{bridge, look, plan};
use super::{Engine, ONCE, remove};
use bollard::Docker;
use std::rc::Rc;
use std::time::{Duration, Instant};

impl Engine {
    /// Removes what nobody has used for as long as its profile says, what has become as old as that says, and what was for
    /// one command only; or that of this sandbox at once. Those of `in_use` stay.
    pub(crate) async fn prune(&self, at_once: Option<&str>, in_use: impl Fn(&str) -> bool) {
        // An engine that was never asked has nothing of ours that we know of.
        let Ok(Reached { api: docker, .. }) = self.connect().await else { return };
        look::sweep(&docker).await;
        let found = lists::with_label(&docker, &format!("{}={}", plan::GATEWAY, self.settings.gateway)).await;
        for listed in lists::told(found) {
            let Some(sandbox) = listed.labels.get(plan::SANDBOX) else { continue };
            let is_old = match at_once {
                Some(gone) => sandbox == gone,
                None => self.is_old(sandbox, &listed),
            };
            if is_old && !in_use(&listed.id) && self.is_ours(&docker, sandbox, &listed).await {
                let turn = Rc::clone(self.making.borrow_mut().entry(sandbox.clone()).or_default());
                let _turn = turn.lock().await;
                if in_use(&listed.id) {
                    continue;
                }
                self.forget(&listed.id);
                if remove(&docker, &listed.id).await.is_ok() {
                    self.going.borrow_mut().remove(&listed.id);
                    self.used.borrow_mut().remove(sandbox);
                }
            }
        }
        self.tidy_bridge(&docker).await;
    }

    fn is_old(&self, sandbox: &str, listed: &Listed) -> bool {
        if sandbox.starts_with(ONCE) {
            // Whoever runs a command without a gateway has containers of this kind too.
            let mark = listed.labels.get(MAKER).map(String::as_str).unwrap_or_default();
            return maker::is_left_here(mark, listed.age);
        }
        let seconds =
            |label: &str| listed.labels.get(label).and_then(|text| text.parse().ok()).map(Duration::from_secs);
        // One that was used before we were there counts from when we first saw it.
        let used = *self.used.borrow_mut().entry(sandbox.to_owned()).or_insert_with(Instant::now);
        used.elapsed() >= seconds(plan::IDLE).unwrap_or_default()
            || seconds(plan::AGE).is_some_and(|age| listed.age >= age)
    }

    /// Whether somebody has it from us. What is made of an image that was made of one of ours (`docker commit`) has our
    /// labels, and not our name.
    async fn is_ours(&self, docker: &Docker, sandbox: &str, listed: &Listed) -> bool {
        let name = format!("/{}", self.name(sandbox));
        if listed.names.is_empty() || listed.names.contains(&name) {
            return true;
        }
        let image = docker.inspect_image(listed.image.as_deref().unwrap_or_default()).await;
        let labels = image.ok().map(|image| image.config.and_then(|config| config.labels).unwrap_or_default());
        labels.is_some_and(|labels| !labels.contains_key(plan::SANDBOX))
    }

    /// Removes the bridge if nothing is on it, nor about to be.
    pub(super) async fn tidy_bridge(&self, docker: &Docker) {
        if let Ok(_alone) = self.bridge.try_write() {
            bridge::remove(docker, &self.settings.gateway).await;
        }
    }
}
