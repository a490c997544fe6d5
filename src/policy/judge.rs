//! The verdict on an action that may be asked for: permit or deny, always with the rule that says so.

use super::scope::Scoped;
use crate::model::{Action, AgentId, Backend, ExecRequest, Grants, ProfileName, SandboxProfile, SandboxScope};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// The operator's decisions, composed from the configuration.
#[derive(Debug, Clone)]
pub(crate) struct Policy {
    /// The walls of an agent without its own.
    pub(crate) defaults: SandboxProfile,
    /// The walls of each configured agent, complete.
    pub(crate) agents: BTreeMap<AgentId, SandboxProfile>,
    /// Where agents without a workspace of their own get one.
    pub(crate) workspaces: PathBuf,
    /// Where sandboxes keep what outlives a command.
    pub(crate) sandboxes: PathBuf,
    /// Named walls a request may choose instead.
    pub(crate) profiles: BTreeMap<ProfileName, SandboxProfile>,
    /// Which of them an agent may choose itself.
    pub(crate) agent_profiles: BTreeMap<AgentId, Vec<ProfileName>>,
    /// Says why a request may not set an environment variable of this name.
    pub(crate) refused_env: fn(&str, &[String]) -> Option<&'static str>,
    /// Says why an environment variable of this name may not be set by anybody: what a secret's variable is held against,
    /// because its grant is the operator's word already.
    pub(crate) dangerous_env: fn(&str) -> Option<&'static str>,
}

impl Policy {
    /// Whether a command could be run by this backend.
    pub(crate) fn uses(&self, backend: Backend) -> bool {
        let mut all = [&self.defaults].into_iter().chain(self.agents.values()).chain(self.profiles.values());
        all.any(|profile| profile.backend == backend)
    }
}

/// A decision with its reason.
#[derive(Debug)]
pub(crate) enum Verdict {
    Permit(Permit),
    Deny(Denial),
}

/// Permission for one act, once. Minted here alone, consumed by the act.
#[derive(Debug)]
#[must_use = "a permit is consumed by the act it permits"]
pub(crate) struct Permit {
    act: Permitted,
    rule: String,
}

/// What is permitted, in full.
#[derive(Debug)]
pub(crate) enum Permitted {
    /// A command, with the walls it is to run in.
    Run { request: Box<ExecRequest>, profile: Box<SandboxProfile> },
    /// Anything else, as asked.
    Plain(Action),
}

impl Permit {
    /// The rule that permits.
    pub(crate) fn rule(&self) -> &str {
        &self.rule
    }

    /// What is permitted, to be done; the permit is gone with it.
    pub(crate) fn spend(self) -> Permitted {
        self.act
    }
}

/// A refusal: the rule that denies, what it says, and what to do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Denial {
    pub(crate) rule: String,
    pub(crate) reason: String,
    pub(crate) hint: String,
    /// The request as it was, for the record.
    pub(crate) request: Option<Box<ExecRequest>>,
}

/// Whether commands may run at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lockdown {
    Off,
    On,
}

/// Judges an action, with the grants of secrets and the lockdown as they are at this moment.
pub(crate) fn judge(policy: &Policy, grants: &Grants, lockdown: Lockdown, scoped: Scoped) -> Verdict {
    let Action::ExecRun(request) = scoped.action() else {
        let rule = format!("scope.{}", scoped.action().method());
        return Verdict::Permit(Permit { act: Permitted::Plain(scoped.into_action()), rule });
    };
    let judged = not_locked(lockdown).and_then(|()| walls(policy, request, scoped.is_agents_own()));
    match judged.and_then(|walls| secrets(policy, grants, request).map(|()| walls)) {
        Ok((profile, rule)) => {
            let Action::ExecRun(request) = scoped.into_action() else { unreachable!("matched above") };
            Verdict::Permit(Permit { act: Permitted::Run { request, profile: Box::new(profile) }, rule })
        }
        Err(denial) => Verdict::Deny(Denial { request: Some(request.clone()), ..denial }),
    }
}

fn not_locked(lockdown: Lockdown) -> Result<(), Denial> {
    match lockdown {
        Lockdown::Off => Ok(()),
        Lockdown::On => Err(deny(
            "lockdown",
            "everything is locked down: no command runs".into(),
            "an operator ends it with `vambrace lockdown off`",
        )),
    }
}

/// The walls for a request, and the rule that gives them.
fn walls(policy: &Policy, request: &ExecRequest, by_agent: bool) -> Result<(SandboxProfile, String), Denial> {
    let (mut profile, rule) = choose(policy, request, by_agent)?;
    for name in request.env.keys() {
        if let Some(why) = (policy.refused_env)(name, &profile.env_allow) {
            return Err(deny(
                "sandbox.env",
                format!("the environment variable {name:?} {why}"),
                "leave it out; a name that is merely not listed can be added to `env` of the sandbox settings",
            ));
        }
    }
    profile.workspace.get_or_insert_with(|| policy.workspaces.join(&*request.agent));
    profile.kept = kept(profile.scope, request).map(|name| policy.sandboxes.join(name));
    // A request may shorten its time, never lengthen it.
    profile.limits.timeout = request.timeout.unwrap_or(Duration::MAX).min(profile.limits.timeout);
    Ok((profile, rule))
}

/// The profile of a sandbox that keeps something, by its agent and name, as a command without a profile of its own would
/// have it now.
pub(crate) fn profile_of_kept(policy: &Policy, agent: Option<&AgentId>, name: &str) -> SandboxProfile {
    let own = agent.and_then(|agent| policy.agents.get(agent));
    let mut profile = own.unwrap_or(&policy.defaults).clone();
    if let Some(agent) = agent {
        profile.workspace.get_or_insert_with(|| policy.workspaces.join(&**agent));
    }
    profile.kept = Some(policy.sandboxes.join(name));
    profile
}

/// The name of the folder in which this sandbox keeps its tree; `None` for one that ends with its command. No name of an
/// agent or a session holds a dot.
fn kept(scope: SandboxScope, request: &ExecRequest) -> Option<String> {
    match scope {
        SandboxScope::Session => request.session.as_ref().map(|session| format!("session.{}.{session}", request.agent)),
        SandboxScope::Agent => Some(format!("agent.{}", request.agent)),
        SandboxScope::Shared => Some("shared".to_owned()),
    }
}

/// Whether the agent may use what it names, whoever asks: a grant belongs to the agent for whom the command runs.
fn secrets(policy: &Policy, grants: &Grants, request: &ExecRequest) -> Result<(), Denial> {
    for wanted in &request.secrets {
        // The same words for a secret that is not there: who may not use it does not learn of it.
        if !grants.has(&request.agent, &wanted.name) {
            return Err(deny(
                &format!("secrets.{}", wanted.name),
                format!("the secret {} is not granted to the agent {:?}", wanted.name, &*request.agent),
                &format!("`vambrace secrets set {} --agent {}` grants it", wanted.name, request.agent),
            ));
        }
        let Some(variable) = wanted.variable() else { continue };
        if let Some(why) = (policy.dangerous_env)(variable) {
            return Err(deny(
                "sandbox.env",
                format!("the environment variable {variable:?} {why}"),
                "choose another variable for the secret, or its file",
            ));
        }
    }
    Ok(())
}

fn choose(policy: &Policy, request: &ExecRequest, by_agent: bool) -> Result<(SandboxProfile, String), Denial> {
    let own = policy.agents.get(&request.agent);
    let Some(name) = &request.profile else {
        let rule = if own.is_some() { format!("agents.{}.sandbox", request.agent) } else { "defaults.sandbox".into() };
        return Ok((own.unwrap_or(&policy.defaults).clone(), rule));
    };
    let Some(named) = policy.profiles.get(name) else {
        return Err(deny(
            "profiles",
            format!("there is no profile {:?}", &**name),
            "`vambrace config show` lists the profiles there are",
        ));
    };
    // Other walls are the operator's to choose; an agent chooses among those it was given.
    let given = policy.agent_profiles.get(&request.agent).is_some_and(|given| given.contains(name));
    if by_agent && !given {
        return Err(deny(
            &format!("agents.{}.profiles", request.agent),
            format!("the agent may not choose the profile {:?}", &**name),
            "an operator may list it in `profiles` of the agent",
        ));
    }
    // A profile says how the walls stand; the workspace stays the agent's, and so does what it may execute.
    let SandboxProfile { workspace, exec_mode, exec_allow, .. } = own.unwrap_or(&policy.defaults).clone();
    let workspace = named.workspace.clone().or(workspace);
    let profile = SandboxProfile { workspace, exec_mode, exec_allow, ..named.clone() };
    Ok((profile, format!("profiles.{name}")))
}

fn deny(rule: &str, reason: String, hint: &str) -> Denial {
    Denial { rule: rule.into(), reason, hint: hint.into(), request: None }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::{Credential, Delivery, Network, Principal, Role, ScopeSet, SecretName, SecretUse, Stdin};
    use crate::policy::scope;

    fn policy() -> Policy {
        let builder = SandboxProfile { workspace: Some("/srv/builder".into()), ..Default::default() };
        let open = SandboxProfile { network: Network::Host, ..Default::default() };
        Policy {
            defaults: SandboxProfile::default(),
            sandboxes: "/sb".into(),
            workspaces: "/srv/all".into(),
            agents: [(AgentId::parse("builder").unwrap(), builder)].into(),
            profiles: [(ProfileName::parse("open").unwrap(), open)].into(),
            agent_profiles: [(AgentId::parse("given").unwrap(), vec![ProfileName::parse("open").unwrap()])].into(),
            refused_env: |name, allow| (!allow.iter().any(|a| a == name)).then_some("is bad"),
            dangerous_env: |name| (name == "LD_PRELOAD").then_some("is dangerous"),
        }
    }

    fn request(agent: &str) -> ExecRequest {
        ExecRequest {
            agent: AgentId::parse(agent).unwrap(),
            session: None,
            profile: None,
            argv: vec!["true".into()],
            cwd: None,
            env: BTreeMap::new(),
            secrets: Vec::new(),
            stdin: Stdin::Closed,
            terminal: None,
            file: None,
            timeout: None,
        }
    }

    fn grants() -> Grants {
        let name = SecretName::parse("API_KEY").unwrap();
        [(name, [AgentId::parse("builder").unwrap()].into())].into_iter().collect()
    }

    fn verdict(request: ExecRequest) -> Verdict {
        let operator = Principal {
            role: Role::Operator,
            credential: Credential::PeerUid(0),
            device: None,
            scopes: ScopeSet::operator(),
            agent: None,
        };
        judge(&policy(), &grants(), Lockdown::Off, scope(&operator, Action::ExecRun(Box::new(request))).unwrap())
    }

    fn permitted(request: ExecRequest) -> (SandboxProfile, String) {
        match verdict(request) {
            Verdict::Permit(permit) => {
                let rule = permit.rule().to_owned();
                let Permitted::Run { profile, .. } = permit.spend() else { panic!("not a run") };
                (*profile, rule)
            }
            Verdict::Deny(denial) => panic!("{denial:?}"),
        }
    }

    #[test]
    fn the_rule_says_where_the_walls_come_from() {
        let (profile, rule) = permitted(request("main"));
        assert_eq!((profile.workspace, rule.as_str()), (Some("/srv/all/main".into()), "defaults.sandbox"));
        let (profile, rule) = permitted(request("builder"));
        assert_eq!((profile.workspace, rule.as_str()), (Some("/srv/builder".into()), "agents.builder.sandbox"));
    }

    #[test]
    fn a_named_profile_changes_the_walls_but_not_whose_workspace_it_is() {
        let named = ExecRequest { profile: Some(ProfileName::parse("open").unwrap()), ..request("builder") };
        let (profile, rule) = permitted(named);
        assert_eq!((profile.network, profile.workspace), (Network::Host, Some("/srv/builder".into())));
        assert_eq!(rule, "profiles.open");
        let unknown = ExecRequest { profile: Some(ProfileName::parse("none").unwrap()), ..request("builder") };
        assert!(matches!(verdict(unknown), Verdict::Deny(d) if d.rule == "profiles"));
    }

    #[test]
    fn an_agent_chooses_among_the_profiles_it_was_given() {
        let by_itself = |agent: &str| {
            let own = AgentId::parse(agent).unwrap();
            let principal = Principal {
                role: Role::Operator,
                credential: Credential::DeviceToken,
                device: None,
                scopes: [crate::model::Scope::AgentExec].into_iter().collect(),
                agent: Some(own),
            };
            let named = ExecRequest { profile: Some(ProfileName::parse("open").unwrap()), ..request(agent) };
            judge(&policy(), &grants(), Lockdown::Off, scope(&principal, Action::ExecRun(Box::new(named))).unwrap())
        };
        assert!(matches!(by_itself("given"), Verdict::Permit(_)));
        assert!(matches!(by_itself("builder"), Verdict::Deny(d) if d.rule == "agents.builder.profiles"));
    }

    #[test]
    fn a_request_shortens_its_time_and_never_lengthens_it() {
        let asks = |seconds| ExecRequest { timeout: Some(Duration::from_secs(seconds)), ..request("main") };
        assert_eq!(permitted(asks(5)).0.limits.timeout, Duration::from_secs(5));
        assert_eq!(permitted(asks(5000)).0.limits.timeout, Duration::from_secs(60));
    }

    #[test]
    fn a_refused_variable_denies_the_run_by_name() {
        let bad = ExecRequest { env: [("BAD".to_owned(), "1".to_owned())].into(), ..request("main") };
        assert!(matches!(verdict(bad), Verdict::Deny(d) if d.reason.contains("\"BAD\"") && d.rule == "sandbox.env"));
    }

    fn wants(agent: &str, name: &str, delivery: Delivery) -> ExecRequest {
        let wanted = SecretUse { name: SecretName::parse(name).unwrap(), delivery };
        ExecRequest { secrets: vec![wanted], ..request(agent) }
    }

    #[test]
    fn a_secret_is_for_the_agents_it_is_granted_to_whoever_asks_and_tells_others_nothing() {
        permitted(wants("builder", "API_KEY", Delivery::File));
        let denied = |agent, name| match verdict(wants(agent, name, Delivery::File)) {
            Verdict::Deny(denial) => {
                (denial.rule, denial.reason.replace(name, "NAME"), denial.hint.replace(name, "NAME"))
            }
            Verdict::Permit(_) => panic!("{name} was permitted to {agent}"),
        };
        let (foreign, missing) = (denied("main", "API_KEY"), denied("main", "NONE_SUCH"));
        assert_eq!((foreign.0.as_str(), missing.0.as_str()), ("secrets.API_KEY", "secrets.NONE_SUCH"));
        assert_eq!((&foreign.1, &foreign.2), (&missing.1, &missing.2));
        assert_eq!(foreign.2, "`vambrace secrets set NAME --agent main` grants it");
    }

    #[test]
    fn a_secrets_variable_needs_no_listing_and_is_never_one_that_changes_which_code_runs() {
        permitted(wants("builder", "API_KEY", Delivery::Variable("UNLISTED".into())));
        let loader = wants("builder", "API_KEY", Delivery::Variable("LD_PRELOAD".into()));
        assert!(
            matches!(verdict(loader), Verdict::Deny(d) if d.rule == "sandbox.env" && d.reason.contains("LD_PRELOAD"))
        );
    }
}
