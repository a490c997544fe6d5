//! The way out of a container, shared by the commands that run in it at a time.
//!
//! All of them are in one network namespace, so a connection cannot be told to be one command's; it is recorded with the
//! one that began last. The doors stay open for as long as the line into the container; what carries connections is
//! there only while a command is.

use super::way_out::{Helpers, Said, WayOut};
use crate::egress;
use crate::model::{Domain, LaunchFault, RunFault};
use crate::sandbox::Lent;
use std::cell::RefCell;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use tokio::sync::{Mutex, Notify, mpsc};
use tokio::task::JoinHandle;

/// Those of one container.
#[derive(Default)]
pub(super) struct Ways {
    /// Name server and listeners in the order of the ports, once they are open.
    doors: Mutex<Option<Vec<OwnedFd>>>,
    shared: Rc<Shared>,
}

#[derive(Default)]
struct Shared {
    /// Who hears of connections, in the order they began.
    listeners: RefCell<Vec<(u64, mpsc::UnboundedSender<egress::Report>)>>,
    carrier: RefCell<Option<Carrier>>,
    next: RefCell<u64>,
}

/// What carries connections, and how it is told to end.
struct Carrier {
    stop: Rc<Notify>,
    task: JoinHandle<()>,
}

/// One run's share. Dropping the last one ends what carries connections.
pub(super) struct Way {
    shared: Rc<Shared>,
    number: u64,
    reports: mpsc::UnboundedReceiver<egress::Report>,
}

impl Ways {
    /// A share for one more run; the first opens the doors and starts what carries connections.
    pub(super) async fn take(
        &self,
        helpers: &Helpers,
        domains: &[Domain],
        doors: impl Future<Output = Result<Vec<OwnedFd>, RunFault>>,
    ) -> Result<Way, RunFault> {
        let mut open = self.doors.lock().await;
        if open.is_none() {
            *open = Some(doors.await?);
        }
        let is_carried = self.shared.carrier.borrow().as_ref().is_some_and(|carrier| !carrier.task.is_finished());
        if !is_carried {
            let doors = open.as_deref().unwrap_or_default();
            let carrier = Carrier::start(helpers, domains, doors, Rc::clone(&self.shared)).map_err(|e| {
                RunFault::WallMissing(LaunchFault {
                    step: "open the way out for allowed connections".into(),
                    cause: e.to_string(),
                })
            })?;
            *self.shared.carrier.borrow_mut() = Some(carrier);
        }
        let (sender, reports) = mpsc::unbounded_channel();
        let number = self.shared.next.replace_with(|number| *number + 1);
        self.shared.listeners.borrow_mut().push((number, sender));
        Ok(Way { shared: Rc::clone(&self.shared), number, reports })
    }
}

impl Carrier {
    fn start(helpers: &Helpers, domains: &[Domain], doors: &[OwnedFd], shared: Rc<Shared>) -> io::Result<Self> {
        let out = WayOut::open(helpers, domains, doors, Lent::apart())?;
        let mut said = Said::by(&out)?;
        let stop = Rc::new(Notify::new());
        let told = Rc::clone(&stop);
        let task = tokio::task::spawn_local(async move {
            loop {
                tokio::select! {
                    reports = said.next() => match reports {
                        Some(reports) => shared.tell(reports),
                        // Without it nothing is carried out any more, which is the safe side.
                        None => return,
                    },
                    () = told.notified() => break,
                }
            }
            shared.tell(said.rest(&out).await);
        });
        Ok(Carrier { stop, task })
    }
}

impl Shared {
    fn tell(&self, reports: Vec<egress::Report>) {
        let listeners = self.listeners.borrow();
        let Some((_, newest)) = listeners.last() else { return };
        for report in reports {
            let _ = newest.send(report);
        }
    }

    /// Takes a listener away; the carrier, where it was the last one.
    fn leave(&self, number: u64) -> Option<Carrier> {
        self.listeners.borrow_mut().retain(|(known, _)| *known != number);
        if self.listeners.borrow().is_empty() { self.carrier.borrow_mut().take() } else { None }
    }
}

impl Way {
    /// The next report for this run.
    pub(super) async fn next(&mut self) -> egress::Report {
        match self.reports.recv().await {
            Some(report) => report,
            None => std::future::pending().await,
        }
    }

    /// Says that the run has ended and gives what is still reported: all of it, where no other run is left.
    pub(super) async fn end(&mut self) -> Vec<egress::Report> {
        let is_last = self.shared.listeners.borrow().len() == 1;
        let carrier = if is_last { self.shared.carrier.borrow_mut().take() } else { None };
        if let Some(Carrier { stop, task }) = carrier {
            stop.notify_one();
            let _ = task.await;
        }
        self.shared.leave(self.number);
        std::iter::from_fn(|| self.reports.try_recv().ok()).collect()
    }
}

impl Drop for Way {
    fn drop(&mut self) {
        if let Some(carrier) = self.shared.leave(self.number) {
            carrier.task.abort();
        }
    }
}
