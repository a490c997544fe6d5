//! Wrong guesses, counted: for each client over every kind of credential and every door, and at the password from
//! everywhere together.
//!
//! A guess is charged before it is looked at and given back when it was right, so that guesses made side
//! by side cannot share one place. Memory is bounded; a client that is locked is never forgotten to make
//! room (attack classes NET-04, NET-06, PAI-11).

use crate::model::DeviceId;
use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Who guesses, in the one spelling that counts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(crate) enum Client {
    /// A process of this host, by the kernel's word: one user cannot lock out another.
    Uid(u32),
    V4(Ipv4Addr),
    /// The /64 that one customer gets.
    V6([u8; 8]),
    /// A paired device that has just proved its key: its neighbours behind one address cannot lock it out.
    Device(DeviceId),
}

impl Client {
    /// The client at an address: IPv4 in IPv6 clothes is IPv4, of IPv6 the first 64 bits count.
    pub(crate) fn at(address: IpAddr) -> Self {
        match address.to_canonical() {
            IpAddr::V4(v4) if v4.is_loopback() => Client::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V4(v4) => Client::V4(v4),
            IpAddr::V6(v6) if v6 == Ipv6Addr::LOCALHOST => Client::V4(Ipv4Addr::LOCALHOST),
            IpAddr::V6(v6) => Client::V6(v6.octets()[..8].try_into().unwrap_or_default()),
        }
    }
}

/// What is guessed at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Guessed {
    /// The password, which a person chose: it has a budget of its own besides every client's.
    Password,
    /// A token or a setup code: 256 random bits need none, and a lock on them would be anybody's to pull.
    Random,
}

/// Bounds, from protocol section 3.3.
const CLIENT: Budget = Budget { guesses: 10, window_ms: 60_000, lock_ms: 300_000 };

/// For one secret, from everywhere together: far above what people mistype, far below what guessing needs.
const SECRET: Budget = Budget { guesses: 200, window_ms: 600_000, lock_ms: 300_000 };

/// Clients remembered; beyond them newcomers share one budget.
const MOST_CLIENTS: usize = 10_000;

struct Budget {
    guesses: u32,
    window_ms: u64,
    lock_ms: u64,
}

#[derive(Debug, Default)]
struct Account {
    since: u64,
    guesses: u32,
    locked_until: u64,
}

impl Account {
    /// Takes one guess.
    ///
    /// # Errors
    /// Milliseconds until there is one again.
    fn charge(&mut self, budget: &Budget, now: u64) -> Result<(), u64> {
        if now < self.locked_until {
            return Err(self.locked_until - now);
        }
        if now.saturating_sub(self.since) >= budget.window_ms {
            *self = Account { since: now, guesses: 0, locked_until: 0 };
        }
        if self.guesses >= budget.guesses {
            *self = Account { since: now, guesses: 0, locked_until: now + budget.lock_ms };
            return Err(budget.lock_ms);
        }
        self.guesses += 1;
        Ok(())
    }

    fn give_back(&mut self) {
        self.guesses = self.guesses.saturating_sub(1);
    }

    fn is_locked(&self, now: u64) -> bool {
        now < self.locked_until
    }
}

/// The accounts of everybody. Times are the clock's ticks, which nobody can set back.
#[derive(Default)]
pub(crate) struct Throttle(Mutex<Accounts>);

#[derive(Default)]
struct Accounts {
    clients: HashMap<Client, Account>,
    newcomers: Account,
    secrets: HashMap<Guessed, Account>,
}

impl Throttle {
    /// Charges a guess of this client at this secret. Operators' own processes are not held back by what others
    /// guessed at the secret.
    ///
    /// # Errors
    /// Milliseconds until it may guess again.
    pub(crate) fn charge(&self, client: &Client, guessed: Guessed, is_operator: bool, now: u64) -> Result<(), u64> {
        let mut accounts = self.accounts();
        accounts.client(client, now).charge(&CLIENT, now)?;
        if is_operator || guessed == Guessed::Random {
            return Ok(());
        }
        let charged = accounts.secrets.entry(guessed).or_default().charge(&SECRET, now);
        if charged.is_err() {
            accounts.client(client, now).give_back();
        }
        charged
    }

    /// The guess was right: it does not count.
    pub(crate) fn give_back(&self, client: &Client, guessed: Guessed, is_operator: bool, now: u64) {
        let mut accounts = self.accounts();
        accounts.client(client, now).give_back();
        if !is_operator && let Some(account) = accounts.secrets.get_mut(&guessed) {
            account.give_back();
        }
    }

    /// Charges a wrong proof that is no guess at a shared secret: a device's own token, a signed request.
    ///
    /// # Errors
    /// Milliseconds until it may try again.
    pub(crate) fn charge_client(&self, client: &Client, now: u64) -> Result<(), u64> {
        self.accounts().client(client, now).charge(&CLIENT, now)
    }

    /// That proof was right after all.
    pub(crate) fn give_back_client(&self, client: &Client, now: u64) {
        self.accounts().client(client, now).give_back();
    }

    fn accounts(&self) -> MutexGuard<'_, Accounts> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Accounts {
    fn client(&mut self, client: &Client, now: u64) -> &mut Account {
        let known = |client: &Client| matches!(client, Client::Uid(_) | Client::Device(_));
        if !known(client) && !self.clients.contains_key(client) && self.clients.len() >= MOST_CLIENTS {
            // Who has so many addresses meets the secret's own budget; who is locked stays so.
            self.clients.retain(|client, account| known(client) || account.is_locked(now));
            if self.clients.len() >= MOST_CLIENTS {
                return &mut self.newcomers;
            }
        }
        self.clients.entry(client.clone()).or_default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn v4(n: u32) -> Client {
        Client::V4(Ipv4Addr::from(n))
    }

    #[test]
    fn one_client_has_one_spelling() {
        let at = |text: &str| Client::at(text.parse().unwrap());
        assert_eq!(at("192.0.2.9"), at("::ffff:192.0.2.9"));
        assert_eq!(at("2001:db8:1:2::1"), at("2001:db8:1:2:ffff::9"));
        assert_ne!(at("2001:db8:1:2::1"), at("2001:db8:1:3::1"));
        assert_eq!(at("127.0.0.1"), at("127.5.5.5"));
        assert_eq!(at("::1"), at("127.0.0.1"));
    }

    #[test]
    fn ten_wrong_guesses_lock_a_client_and_a_right_one_costs_nothing() {
        let throttle = Throttle::default();
        for _ in 0..100 {
            throttle.charge(&v4(1), Guessed::Password, false, 0).unwrap();
            throttle.give_back(&v4(1), Guessed::Password, false, 0);
        }
        for _ in 0..10 {
            throttle.charge(&v4(1), Guessed::Password, false, 0).unwrap();
        }
        assert_eq!(throttle.charge(&v4(1), Guessed::Password, false, 5), Err(300_000));
        assert_eq!(throttle.charge(&v4(1), Guessed::Random, false, 10), Err(299_995));
        assert!(throttle.charge(&v4(2), Guessed::Password, false, 10).is_ok());
        assert!(throttle.charge(&v4(1), Guessed::Password, false, 300_005).is_ok());
    }

    #[test]
    fn many_clients_together_exhaust_the_password_but_not_an_operators_own_process() {
        let throttle = Throttle::default();
        for n in 0..200 {
            throttle.charge(&v4(n), Guessed::Password, false, 0).unwrap();
        }
        assert_eq!(throttle.charge(&v4(999), Guessed::Password, false, 1), Err(300_000));
        assert!(throttle.charge(&Client::Uid(0), Guessed::Password, true, 1).is_ok());
        assert!(throttle.charge(&v4(999), Guessed::Random, false, 1).is_ok());
    }

    #[test]
    fn a_full_table_forgets_nobody_who_is_locked() {
        let throttle = Throttle::default();
        for n in 0..MOST_CLIENTS as u32 {
            for _ in 0..11 {
                let _ = throttle.charge_client(&v4(n), 0);
            }
        }
        assert!(throttle.charge_client(&v4(1_000_000), 1).is_ok());
        assert!(throttle.charge_client(&v4(7), 1).is_err());
        assert_eq!(throttle.accounts().clients.len(), MOST_CLIENTS);
        for _ in 0..10 {
            let _ = throttle.charge_client(&v4(2_000_000), 1);
        }
        assert!(throttle.charge_client(&v4(3_000_000), 1).is_err(), "newcomers share one budget");
    }
}
