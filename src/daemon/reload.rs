//! SIGHUP, or an operator's word: the configuration is read again, all of it is looked at, and then what can change while we run is changed.
//! A file that is wrong anywhere changes nothing. Connections stay, but for those that the new rules do not let in.

use super::{notify, tls};
use crate::auth::{Mode, Rules};
use crate::config::{self, ConfigFault, Flags, Places, Settings};
use crate::gateway::Gateway;
use crate::model::ConnId;
use crate::server::{ServedNames, Tls};
use crate::store::Store;
use std::mem::discriminant;
use std::sync::Arc;

/// What a reload needs to know and to change.
pub(super) struct Reloader<'a> {
    pub(super) places: &'a Places,
    pub(super) flags: &'a Flags,
    /// The settings in force.
    pub(super) settings: Settings,
    pub(super) tls: Option<Tls>,
    pub(super) store: Arc<Store>,
    pub(super) gateway: Arc<Gateway>,
    pub(super) names: Arc<ServedNames>,
    pub(super) has_docker_runner: bool,
    /// Whether the settings in force stood in a file.
    pub(super) had_file: bool,
    /// Whether the unix socket and its folder are ours.
    pub(super) has_own_socket: bool,
    /// What the service manager shows of us otherwise.
    pub(super) status: String,
}

impl Reloader<'_> {
    /// Does it, and tells the log, the journal and the service manager what came of it; names what needs a restart.
    ///
    /// # Errors
    /// Why what was in force stays, as one line.
    pub(super) fn reload(&mut self, asker: Option<ConnId>) -> Result<Vec<&'static str>, String> {
        notify::reloading();
        let done = self.try_reload(asker);
        let status = match &done {
            Ok(waiting) if waiting.is_empty() => {
                let fingerprint = self.tls.as_ref().map(Tls::fingerprint);
                tracing::info!(fingerprint, "the configuration was read again");
                self.status.clone()
            }
            Ok(waiting) => {
                let waiting = waiting.join(", ");
                tracing::warn!(waiting, "the configuration was read again; some of it needs a restart");
                format!("{}; needs a restart: {waiting}", self.status)
            }
            Err(why) => {
                tracing::error!(error = %why, "the configuration was not taken; what was in force stays");
                let why = notify::first_line(why);
                self.gateway.record_refused_configuration(why);
                format!("{}; the new configuration was not taken: {why}", self.status)
            }
        };
        notify::ready(&status);
        done.map_err(|why| notify::first_line(&why).to_owned())
    }

    /// What of the new settings needs a restart.
    fn try_reload(&mut self, asker: Option<ConnId>) -> Result<Vec<&'static str>, String> {
        let new = self.read().map_err(|fault| fault.to_string())?;
        if discriminant(&new.doors.mode) != discriminant(&self.settings.doors.mode) {
            // Half of it would be another configuration than the one that was looked at.
            return Err("gateway.auth.mode needs a restart; nothing was changed".into());
        }
        let waiting = self.waiting(&new);
        self.had_file |= self.places.config.exists();
        if self.has_own_socket {
            super::make_runtime_folder(&new, self.places)
                .map_err(|error| format!("the folder for sockets cannot be opened to operators: {error}"))?;
        }
        if let (Some(tls), Some(_)) = (&self.tls, &new.doors.tls) {
            tls::reload(&new, self.places, tls, &self.store)
                .map_err(|error| format!("the certificate was not replaced: {error}"))?;
        }
        let doors = &new.doors;
        let rules =
            Rules { mode: doors.mode.clone(), local_trust: doors.local_trust, operators: doors.operators.clone() };
        self.gateway.replace_rules(new.profiles.policy(), rules, asker).map_err(|error| error.to_string())?;
        self.names.replace(super::hosts(&new), doors.origins.clone());
        // What waits is compared with what is in force, not with what was asked for last.
        self.settings.profiles = new.profiles;
        self.settings.doors.local_trust = new.doors.local_trust;
        self.settings.doors.mode = new.doors.mode;
        self.settings.doors.operators = new.doors.operators;
        Ok(waiting)
    }

    fn read(&self) -> Result<Settings, ConfigFault> {
        let file = match config::read(&self.places.config)? {
            Some(file) => file,
            // One that was there and is gone is no wish for defaults everywhere.
            None if self.places.config_is_named || self.had_file => {
                return Err(ConfigFault::missing(&self.places.config));
            }
            None => config::File::default(),
        };
        config::compose(&file, self.places, self.flags)
    }

    fn waiting(&self, new: &Settings) -> Vec<&'static str> {
        let (old, has_docker) = (&self.settings, self.has_docker_runner);
        let proxies = |mode: &Mode| matches!(mode, Mode::TrustedProxy(rules) if !rules.networks.is_empty());
        let rows = [
            ("gateway.bind", old.doors.address.ip() != new.doors.address.ip()),
            ("gateway.port", old.doors.address.port() != new.doors.address.port()),
            ("gateway.public_url", old.doors.public_url != new.doors.public_url),
            ("gateway.tls.enabled", old.doors.tls.is_some() != new.doors.tls.is_some()),
            (
                "gateway.auth.trusted_proxy",
                old.doors.client_ca != new.doors.client_ca || proxies(&old.doors.mode) != proxies(&new.doors.mode),
            ),
            ("runner.socket", old.runner_socket != new.runner_socket),
            ("runner.docker_socket", old.docker_runner_socket != new.docker_runner_socket),
            ("docker.host", old.docker.host != new.docker.host),
            ("engines that profiles name", old.docker.others != new.docker.others),
            ("the first profile with backend = \"docker\"", new.docker.is_used && !has_docker),
            ("journal.journald", old.journald != new.journald),
            ("store", old.keys != new.keys),
        ];
        rows.into_iter().filter_map(|(key, waits)| waits.then_some(key)).collect()
    }
}
