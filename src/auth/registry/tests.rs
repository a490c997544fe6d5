//! Pairing, setup codes and nodes as state: every change of one device, and what must not change with it.

use super::admission::{MOST_REQUESTS_OF_ONE, REQUEST_LIFE_MS};
use super::tokens::OVERLAP_MS;
use super::*;
use crate::auth::ClientLabel;
use crate::auth::device::Proven;
use crate::auth::testing::{Folder, Held, journal};
use crate::model::{Credential, Invitation, Principal};

struct Stage {
    registry: Registry,
    clock: Arc<Held>,
    store: Arc<Store>,
    journal: Journal,
    _folder: Folder,
}

const T0: u64 = 1_000_000_000_000;

fn stage() -> Stage {
    let (journal, folder) = journal();
    let (clock, store) = (Arc::new(Held::default()), Arc::new(Store::in_memory()));
    clock.set(T0);
    let registry = open(&store, &journal, &clock);
    Stage { registry, clock, store, journal, _folder: folder }
}

fn open(store: &Arc<Store>, journal: &Journal, clock: &Arc<Held>) -> Registry {
    let parts = RegistryParts {
        store: Arc::clone(store),
        journal: journal.clone(),
        clock: clock.clone(),
        random: crate::os::host::random,
    };
    Registry::open(parts, crate::os::memory::Locked::new(Secret::new([7; 32])).unwrap()).unwrap()
}

fn scopes(list: &[Scope]) -> ScopeSet {
    list.iter().copied().collect()
}

fn proven(n: u8) -> Proven {
    Proven { id: DeviceId(format!("{n:064x}")), key: [n; 32] }
}

fn client(name: &str) -> ClientLabel {
    ClientLabel { id: "cli".into(), platform: "linux".into(), display_name: Some(name.into()), ..Default::default() }
}

fn by(list: &[Scope]) -> Principal {
    Principal {
        role: Role::Operator,
        credential: Credential::PeerUid(0),
        device: None,
        scopes: scopes(list),
        agent: None,
    }
}

const ADMIN: &[Scope] = &[Scope::Admin];

impl Stage {
    fn wish(&self, n: u8, role: Role, asked: &[Scope], name: &str, voucher: Voucher) -> Answer {
        self.try_wish(n, role, asked, name, voucher, "v4").unwrap()
    }

    fn try_wish(
        &self,
        n: u8,
        role: Role,
        asked: &[Scope],
        name: &str,
        voucher: Voucher,
        source: &str,
    ) -> Result<Answer, PairingFault> {
        let (proven, client) = (proven(n), client(name));
        let wish = Wish { proven: &proven, role, scopes: scopes(asked), client: &client, from: "192.0.2.1:5", source };
        self.registry.admit(&wish, voucher)
    }

    fn waits(&self, n: u8, asked: &[Scope], name: &str) -> Waiting {
        match self.wish(n, Role::Operator, asked, name, Voucher::Nobody) {
            Answer::Waiting(waiting) => waiting,
            Answer::Entered(_) => panic!("it was let in"),
        }
    }

    fn enters(&self, n: u8, role: Role, asked: &[Scope]) -> Entered {
        match self.wish(n, role, asked, "a", Voucher::Nobody) {
            Answer::Entered(entered) => entered,
            Answer::Waiting(waiting) => panic!("{waiting:?}"),
        }
    }

    fn approve(&self, waiting: &Waiting, by: &Principal) -> Result<Arc<DeviceRecord>, PairingFault> {
        self.registry.approve(by, &waiting.request, None, None)
    }
}

#[test]
fn a_request_is_never_merged_and_never_grows_under_its_id() {
    let stage = stage();
    let large = stage.waits(1, &[Scope::Admin], "a");
    // The same or less: the same request, as it was shown.
    assert_eq!(stage.waits(1, &[Scope::Admin], "a").request, large.request);
    let small = stage.waits(1, &[Scope::Read], "a");
    assert_eq!(small.request, large.request);
    // More, or another name: a new one, and the old one is gone.
    let renamed = stage.waits(1, &[Scope::Read], "the boss");
    assert_ne!(renamed.request, large.request);
    assert!(matches!(stage.approve(&large, &by(ADMIN)), Err(PairingFault::UnknownRequest)));
    let wider = stage.waits(1, &[Scope::Read, Scope::Write], "the boss");
    assert_ne!(wider.request, renamed.request);
    let record = stage.approve(&wider, &by(ADMIN)).unwrap();
    assert_eq!(record.tokens[0].scopes, scopes(&[Scope::Read, Scope::Write]));
    assert!(stage.registry.list().0.is_empty());
}

#[test]
fn an_approver_grants_what_it_holds_and_less_if_it_says_so() {
    let stage = stage();
    let waiting = stage.waits(1, &[Scope::Admin], "a");
    let fault = stage.approve(&waiting, &by(&[Scope::Pairing])).unwrap_err();
    assert!(matches!(fault, PairingFault::MissingScope(Scope::Admin)), "{fault}");
    assert_eq!(fault.to_string(), "missing scope: operator.admin");
    let more = Some(scopes(&[Scope::Admin, Scope::AgentExec]));
    assert!(stage.registry.approve(&by(ADMIN), &waiting.request, more, None).is_err());
    let less = Some(scopes(&[Scope::Read]));
    let record = stage.registry.approve(&by(&[Scope::Pairing, Scope::Read]), &waiting.request, less, None).unwrap();
    assert_eq!(record.tokens[0].scopes, scopes(&[Scope::Read]));
    // A paired device that is no admin approves nobody, not even itself.
    let again = stage.waits(1, &[Scope::Write], "a");
    let own = Principal {
        credential: Credential::DeviceToken,
        device: Some(proven(1).id),
        ..by(&[Scope::Pairing, Scope::Write])
    };
    assert!(matches!(stage.approve(&again, &own), Err(PairingFault::ApprovalDenied)));
}

#[test]
fn a_node_is_an_admins_to_let_in() {
    let stage = stage();
    let Answer::Waiting(waiting) = stage.wish(1, Role::Node, &[], "n", Voucher::Nobody) else { panic!() };
    let fault = stage.approve(&waiting, &by(&[Scope::Pairing])).unwrap_err();
    assert_eq!(fault.to_string(), "device pairing approval denied");
    assert!(stage.approve(&waiting, &by(&[Scope::Pairing, Scope::Admin])).is_ok());
}

#[test]
fn of_two_approvers_one_is_told_that_there_is_no_such_request() {
    let stage = stage();
    let waiting = stage.waits(1, &[Scope::Read], "a");
    let approved = std::thread::scope(|threads| {
        let tries: Vec<_> = (0..8).map(|_| threads.spawn(|| stage.approve(&waiting, &by(ADMIN)).is_ok())).collect();
        tries.into_iter().map(|t| t.join().unwrap()).filter(|approved| *approved).count()
    });
    assert_eq!(approved, 1);
    assert_eq!(stage.registry.device(&proven(1).id).unwrap().tokens.len(), 1);
}

#[test]
fn an_agent_is_bound_to_its_name_and_gets_an_agents_scopes_whatever_it_asked() {
    let stage = stage();
    let asks = stage.waits(1, &[Scope::Admin], "a");
    let agent = AgentId::parse("builder").unwrap();
    let record = stage.registry.approve(&by(&[Scope::Write]), &asks.request, None, Some(&agent)).unwrap();
    assert_eq!(record.tokens[0].scopes, scopes(&[Scope::AgentExec, Scope::AgentFiles]));
    // It never becomes more, neither by the operator's own process nor by an approval without its name.
    let Answer::Waiting(more) = stage.wish(1, Role::Operator, &[Scope::Read], "a", Voucher::Operator) else {
        panic!("an agent was widened silently")
    };
    assert!(stage.approve(&more, &by(ADMIN)).is_err());
    let unnamed = stage.waits(2, &[Scope::AgentExec], "b");
    assert!(stage.approve(&unnamed, &by(ADMIN)).is_err());
}

#[test]
fn a_flood_fills_its_own_share_and_nobody_is_thrown_out() {
    let stage = stage();
    let shown = stage.waits(200, &[Scope::Read], "the real one");
    let full = |n: u8, source: &str| {
        matches!(
            stage.try_wish(n, Role::Operator, &[Scope::Read], "x", Voucher::Nobody, source),
            Err(PairingFault::Full)
        )
    };
    for n in 0..MOST_REQUESTS_OF_ONE as u8 {
        assert!(!full(n, "flood"));
    }
    assert!(full(100, "flood") && !full(100, "another"));
    assert!(stage.approve(&shown, &by(ADMIN)).is_ok());
}

#[test]
fn a_request_runs_out_on_either_side_of_the_clock() {
    let stage = stage();
    let waiting = stage.waits(1, &[Scope::Read], "a");
    for now in [T0 + REQUEST_LIFE_MS, T0 - REQUEST_LIFE_MS] {
        stage.clock.set(now);
        assert!(matches!(stage.approve(&waiting, &by(ADMIN)), Err(PairingFault::UnknownRequest)));
    }
    stage.clock.set(T0 + REQUEST_LIFE_MS - 1);
    assert!(stage.approve(&waiting, &by(ADMIN)).is_ok());
}

#[test]
fn a_restart_in_the_middle_of_a_pairing_loses_nothing_and_leaves_nothing_half() {
    let stage = stage();
    let waiting = stage.waits(1, &[Scope::Read], "a");
    let again = open(&stage.store, &stage.journal, &stage.clock);
    assert!(again.device(&proven(1).id).is_none());
    let record = again.approve(&by(ADMIN), &waiting.request, None, None).unwrap();
    let token = again.token(&record.id, Role::Operator, &record.tokens[0].generation);
    let once_more = open(&stage.store, &stage.journal, &stage.clock);
    assert!(once_more.is_token(&record.id, Role::Operator, token.expose()));
    assert!(once_more.list().0.is_empty());
}

#[test]
fn a_rotated_token_overlaps_until_the_new_one_is_used_and_scopes_only_shrink() {
    let stage = stage();
    stage.approve(&stage.waits(1, &[Scope::Read, Scope::Write], "a"), &by(ADMIN)).unwrap();
    let id = proven(1).id;
    let old = stage.enters(1, Role::Operator, &[Scope::Write]);
    let rotate = |by: &Principal, kept: Option<ScopeSet>| stage.registry.rotate(by, &id, Role::Operator, kept);
    // PAI-02: neither more than the token holds nor more than who asks.
    assert!(matches!(rotate(&by(ADMIN), Some(scopes(&[Scope::Admin]))), Err(PairingFault::RotationDenied)));
    assert!(matches!(rotate(&by(&[Scope::Pairing]), None), Err(PairingFault::RotationDenied)));
    let other = Principal {
        credential: Credential::DeviceToken,
        device: Some(proven(9).id),
        ..by(&[Scope::Pairing, Scope::Write])
    };
    assert!(matches!(rotate(&other, None), Err(PairingFault::NotItself)));

    let (kept, _, new) = rotate(&by(ADMIN), Some(scopes(&[Scope::Read]))).unwrap();
    assert_eq!(kept, scopes(&[Scope::Read]));
    assert!(!stage.registry.stands(&old.grant), "its open connections fall");
    let opens = |token: &Secret<String>| stage.registry.is_token(&id, Role::Operator, token.expose());
    assert!(opens(&old.token) && opens(&new));
    assert!(!stage.registry.ends_overlap(&id, Role::Operator, old.token.expose()));
    assert!(stage.registry.ends_overlap(&id, Role::Operator, new.expose()));
    stage.registry.end_overlap(&id, Role::Operator, old.token.expose()).unwrap();
    assert!(opens(&old.token), "the old one does not end itself");
    stage.registry.end_overlap(&id, Role::Operator, new.expose()).unwrap();
    assert!(!opens(&old.token) && opens(&new));
    // Without a use it ends by itself, and a clock set back does not prolong it.
    rotate(&by(ADMIN), None).unwrap();
    assert!(opens(&new));
    stage.clock.set(T0 + OVERLAP_MS);
    assert!(!opens(&new));
    stage.clock.set(T0 - 1);
    assert!(!opens(&new));
}

#[test]
fn what_was_revoked_is_not_given_back_silently() {
    let stage = stage();
    let Answer::Entered(entered) = stage.wish(1, Role::Operator, &[Scope::Read], "a", Voucher::Operator) else {
        panic!("the operator's own device was not paired")
    };
    let id = proven(1).id;
    stage.registry.revoke(&by(ADMIN), &id, Role::Operator).unwrap();
    assert!(!stage.registry.stands(&entered.grant));
    assert!(!stage.registry.is_token(&id, Role::Operator, entered.token.expose()));
    let Answer::Waiting(waiting) = stage.wish(1, Role::Operator, &[Scope::Read], "a", Voucher::Operator) else {
        panic!("a revoked device came back by itself")
    };
    stage.approve(&waiting, &by(ADMIN)).unwrap();
    assert!(!stage.registry.is_token(&id, Role::Operator, entered.token.expose()), "the old token stays dead");
    stage.registry.remove(&by(ADMIN), &id).unwrap();
    assert!(stage.registry.device(&id).is_none());
    assert!(matches!(stage.registry.remove(&by(ADMIN), &id), Err(PairingFault::UnknownDevice)));
}

#[test]
fn another_machine_with_the_same_key_must_ask() {
    let stage = stage();
    stage.approve(&stage.waits(1, &[Scope::Read], "a"), &by(ADMIN)).unwrap();
    let (proven, client) = (proven(1), ClientLabel { platform: "win32".into(), ..client("a") });
    let wish = Wish {
        proven: &proven,
        role: Role::Operator,
        scopes: scopes(&[Scope::Read]),
        client: &client,
        from: "x",
        source: "x",
    };
    assert!(stage.registry.enter(&wish).is_none());
    let Ok(Answer::Waiting(waiting)) = stage.registry.admit(&wish, Voucher::Nobody) else { panic!() };
    assert_eq!(waiting.reason, "metadata-upgrade");
    // What was granted to the other machine does not come along.
    let before = stage.registry.device(&proven.id).unwrap().tokens[0].clone();
    stage.approve(&stage.waits(1, &[Scope::Read, Scope::Write], "a"), &by(ADMIN)).unwrap();
    let Ok(Answer::Waiting(waiting)) = stage.registry.admit(&wish, Voucher::Nobody) else { panic!() };
    let moved = stage.approve(&waiting, &by(&[Scope::Pairing, Scope::Read])).unwrap();
    assert_eq!(moved.tokens[0].scopes, scopes(&[Scope::Read]));
    assert_ne!(moved.tokens[0].generation, before.generation);
}

fn invitation(agent: Option<&str>) -> Invitation {
    let agent = agent.map(|a| AgentId::parse(a).unwrap());
    let granted = if agent.is_some() { scopes(&[Scope::AgentExec]) } else { scopes(&[Scope::Read]) };
    Invitation { url: None, role: Role::Operator, scopes: granted, agent }
}

impl Stage {
    fn redeem(&self, n: u8, code: &str) -> Option<Entered> {
        let (proven, client) = (proven(n), client("a"));
        let wish = Wish {
            proven: &proven,
            role: Role::Operator,
            scopes: scopes(ADMIN),
            client: &client,
            from: "x",
            source: "x",
        };
        match self.registry.redeem(&wish, code).unwrap() {
            Some(Answer::Entered(entered)) => Some(entered),
            _ => None,
        }
    }
}

#[test]
fn a_setup_code_pairs_one_device_once_for_what_it_grants() {
    let stage = stage();
    assert!(stage.registry.invite(&by(&[Scope::Pairing]), &invitation(None)).is_err());
    let code = stage.registry.invite(&by(ADMIN), &invitation(Some("builder"))).unwrap();
    let entered = stage.redeem(1, code.token.expose()).unwrap();
    assert_eq!((entered.scopes, entered.agent.as_deref()), (scopes(&[Scope::AgentExec]), Some("builder")));
    assert!(stage.redeem(1, code.token.expose()).is_none());
    assert!(stage.redeem(2, code.token.expose()).is_none());
    assert_eq!(stage.registry.invite_status(&code.id).unwrap().used_by, Some(proven(1).id));
    // An agent does not become an operator by a code for one.
    let second = stage.registry.invite(&by(ADMIN), &invitation(None)).unwrap();
    assert!(stage.redeem(1, second.token.expose()).is_none());
    assert!(stage.redeem(3, second.token.expose()).is_some());
}

#[test]
fn a_setup_code_dies_of_wrong_guesses_of_time_and_of_a_clock_set_back() {
    let stage = stage();
    let invite = || stage.registry.invite(&by(ADMIN), &invitation(None)).unwrap();
    let guessed = invite();
    for _ in 0..5 {
        assert!(stage.redeem(1, &format!("{}.wrong", guessed.id.as_str())).is_none());
    }
    assert!(stage.redeem(1, guessed.token.expose()).is_none(), "burnt");
    let old = invite();
    stage.clock.set(T0 - 1);
    assert!(stage.redeem(1, old.token.expose()).is_none(), "made in the future");
    stage.clock.set(T0);
    stage.clock.advance(599_999);
    stage.clock.set(T0 + 5);
    assert!(stage.redeem(1, old.token.expose()).is_some(), "ten minutes are not over");
    let late = invite();
    stage.clock.advance(600_000);
    stage.clock.set(T0 + 10);
    assert!(stage.redeem(2, late.token.expose()).is_none(), "the clock was set back, the ticks were not");
    let restarted = open(&stage.store, &stage.journal, &stage.clock);
    stage.clock.set(T0 + 2_000_000);
    let (proven, client) = (proven(4), client("a"));
    let wish =
        Wish { proven: &proven, role: Role::Operator, scopes: scopes(&[]), client: &client, from: "x", source: "x" };
    assert!(restarted.redeem(&wish, late.token.expose()).unwrap().is_none());
}

#[test]
fn a_nodes_surface_is_enabled_as_it_was_shown_and_replaced_when_it_grows() {
    use crate::auth::Surface;
    let stage = stage();
    let Answer::Waiting(waiting) = stage.wish(1, Role::Node, &[], "n", Voucher::Nobody) else { panic!() };
    stage.approve(&waiting, &by(ADMIN)).unwrap();
    let id = proven(1).id;
    let declare = |commands: &[&str]| {
        let commands: Vec<String> = commands.iter().map(|c| (*c).to_owned()).collect();
        stage.registry.declare(&id, &client("n"), &Surface::of(&[], &commands)).unwrap();
        stage.registry.surface(&id).1
    };
    let first = declare(&["dir.list"]).unwrap();
    assert_eq!(declare(&["dir.list"]).unwrap().id, first.id, "the same is the same");
    let grown = declare(&["dir.list", "system.run"]).unwrap();
    assert_ne!(grown.id, first.id);
    assert!(matches!(stage.registry.approve_node(&by(ADMIN), &first.id), Err(PairingFault::UnknownRequest)));
    let fault = stage.registry.approve_node(&by(&[Scope::Pairing, Scope::Write]), &grown.id).unwrap_err();
    assert!(matches!(fault, PairingFault::MissingScope(Scope::Admin)));
    stage.registry.approve_node(&by(ADMIN), &grown.id).unwrap();
    assert!(declare(&["system.run"]).is_none(), "less needs no new word");
    assert!(declare(&["system.run", "browser.proxy"]).is_some());
    stage.registry.revoke(&by(ADMIN), &id, Role::Node).unwrap();
    assert_eq!(stage.registry.surface(&id), (None, None), "a revoked node is asked about anew");
    assert!(stage.registry.remove_node(&by(ADMIN), &id).is_err());
    let Answer::Waiting(waiting) = stage.wish(1, Role::Node, &[], "n", Voucher::Nobody) else { panic!() };
    stage.approve(&waiting, &by(ADMIN)).unwrap();
    declare(&["system.run"]).unwrap();
    stage.registry.remove_node(&by(ADMIN), &id).unwrap();
    assert!(live_token(&stage.registry.device(&id).unwrap(), Role::Node).is_none());
    assert_eq!(stage.registry.surface(&id), (None, None));
}

#[test]
fn on_another_machine_nothing_that_was_enabled_stays_so() {
    use crate::auth::Surface;
    let stage = stage();
    let Answer::Waiting(waiting) = stage.wish(1, Role::Node, &[], "n", Voucher::Nobody) else { panic!() };
    stage.approve(&waiting, &by(ADMIN)).unwrap();
    let id = proven(1).id;
    stage.registry.declare(&id, &client("n"), &Surface::of(&[], &["system.run".into()])).unwrap();
    let asked = stage.registry.surface(&id).1.unwrap();
    stage.registry.approve_node(&by(ADMIN), &asked.id).unwrap();

    let (proven, moved) = (proven(1), ClientLabel { platform: "win32".into(), ..client("n") });
    let wish =
        Wish { proven: &proven, role: Role::Node, scopes: ScopeSet::EMPTY, client: &moved, from: "x", source: "x" };
    let Ok(Answer::Entered(_)) = stage.registry.admit(&wish, Voucher::Operator) else { panic!() };

    assert_eq!(stage.registry.surface(&id), (None, None));
    let restarted = open(&stage.store, &stage.journal, &stage.clock);
    assert_eq!(restarted.surface(&id), (None, None));
}
