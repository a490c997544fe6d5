//! vambrace(7): the security model, and the tables of the program that carry it out.

use super::Page;
use crate::journal;
use crate::sandbox;

pub(super) fn page() -> String {
    let mut page = Page::new("vambrace", "7", "the security model of Vambrace");
    page.section("DESCRIPTION");
    page.text(
        "Vambrace is a gateway through which AI agents run commands on a host. An agent asks; the gateway knows who asks, \
         decides, has the command run inside walls, and leaves evidence. What cannot be recorded is not done, and a wall \
         that cannot be built means that nothing runs.",
    );
    trust(&mut page);
    doors(&mut page);
    walls(&mut page);
    evidence(&mut page);
    page.section("SEE ALSO");
    page.text("vambrace(1), vambrace.toml(5), vambrace-sandbox-probe(1), vambrace-doctor(1), journalctl(1)");
    page.finish()
}

fn trust(page: &mut Page) {
    page.section("WHO IS TRUSTED");
    page.text(
        "The kernel and root with everything. The operator with the configuration. The gateway's user with the token, the \
         sealed state, the journal and the orders to runners. A runner with the walls, and the truth of what it reports of \
         them. Where there are containers, their engine as root is: whoever speaks to its socket is root on its host, so \
         the docker runner alone does.",
    );
    page.text(
        "Not trusted are the command, what it prints, how it ends and what it leaves behind; what a client says of itself; \
         every header of HTTP.",
    );
    page.section("PROCESSES");
    page.item("gateway", "Faces clients, holds secrets and policy, and starts nothing but its own runner.");
    page.item("runner", "Builds walls, holds no secret, has no door to the network. One for each backend.");
    page.item("egress", "The way out of one sandbox, where its profile names domains.");
}

fn doors(page: &mut Page) {
    page.section("WHO GETS IN");
    page.item(
        "The unix socket",
        "Knows its peer by the kernel's word (SO_PEERCRED) and admits root, the gateway's user and the operators of the \
         configuration.",
    );
    page.item(
        "The TCP port",
        "Is on loopback unless the configuration says otherwise, and beyond it takes authentication and TLS or a trusted \
         proxy. The token alone opens nothing but `health` to a process that is not an operator's.",
    );
    page.item(
        "A device",
        "Has a pair of keys, signs a fresh challenge at each connection, and holds the scopes that an operator gave it, \
         until they are taken back. A device that is bound to an agent runs commands for that agent and sees nothing else.",
    );
}

fn walls(page: &mut Page) {
    page.section("THE WALLS");
    page.text(
        "A command has mount, pid, network, ipc, uts and cgroup namespaces of its own, as root also a uid of its own, else \
         a user namespace. It sees a read-only system, its workspace, empty scratch folders without executables, and \
         nothing of any home, of `/var`, `/run` or `/sys`. It has no capability and can get none. Landlock holds once more \
         what the mounts hold. System calls are a list. Time, output, memory, processes, CPU and disk are bounded. Its \
         environment is made from nothing.",
    );
    page.text(
        "Before each command forbidden acts are tried inside the finished walls, and the kernel is asked what it holds; one \
         surprise, and the command does not run. `vambrace sandbox probe` shows them all. What was enforced is in the \
         result and in the record of each run.",
    );
    if let Some((allowed, refused)) = sandbox::allowed_system_calls() {
        page.subsection("System calls");
        page.text(&format!("{allowed} are allowed, every other is refused. Refused on purpose are:"));
        for why in refused {
            page.0.control("IP", ["\\(bu", "2"]);
            page.0.text(super::inlines(why));
        }
    }
    page.subsection("What they do not stop");
    page.text(
        "What a profile allows: a workspace that may be written to, a network that may be reached, a secret that was \
         granted. A hole in the kernel. Side channels between processes of one machine.",
    );
}

fn evidence(page: &mut Page) {
    page.section("EVIDENCE");
    page.text(
        "Every event is a record of a chain of hashes in the state folder; `vambrace journal verify` walks it. Where journald \
         runs, each record goes there as well, with the fields VAMBRACE_EVENT, VAMBRACE_AGENT, VAMBRACE_COMMAND, \
         VAMBRACE_VERDICT, VAMBRACE_RULE, VAMBRACE_EXIT and their like:",
    );
    page.example(
        "journalctl SYSLOG_IDENTIFIER=vambrace -f\njournalctl VAMBRACE_EVENT=exec.denied -x\njournalctl \
         VAMBRACE_AGENT=builder -o json",
    );
    page.subsection("Events");
    for (event, what) in journal::events() {
        page.item(event, &format!("{what}."));
    }
}
