//! How many connections there may be: in all, from one address, by one peer, and
//! in the middle of a handshake. A peer that floods the door spends its own share.

use std::{
    collections::HashMap,
    hash::Hash,
    net::IpAddr,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use hoidla_protocol::Role;

/// The bounds, and what is used of them.
#[derive(Debug)]
pub struct Limits {
    total: usize,
    handshakes: usize,
    per_address: usize,
    per_peer: usize,
    used: Mutex<Used>,
}

#[derive(Debug, Default)]
struct Used {
    total: usize,
    handshakes: usize,
    addresses: HashMap<IpAddr, usize>,
    shaking: HashMap<IpAddr, usize>,
    peers: HashMap<Role, usize>,
}

impl Limits {
    /// At most so many connections in all, handshakes under way, connections from one address and of one peer.
    /// One address has at most an eighth of the handshakes (two, if that is more).
    pub fn new(total: usize, handshakes: usize, per_address: usize, per_peer: usize) -> Arc<Self> {
        Arc::new(Self { total, handshakes, per_address, per_peer, used: Mutex::default() })
    }

    /// A place for a new connection, whose handshake begins; none if there is no more room.
    pub fn enter(self: &Arc<Self>, address: IpAddr) -> Option<Ticket> {
        let mut used = self.lock();
        let from_address = used.addresses.get(&address).copied().unwrap_or(0);
        let shaking = used.shaking.get(&address).copied().unwrap_or(0);
        let crowded = used.total >= self.total || used.handshakes >= self.handshakes;
        if crowded || from_address >= self.per_address || shaking >= (self.handshakes / 8).max(2) {
            return None;
        }
        used.total += 1;
        used.handshakes += 1;
        used.addresses.insert(address, from_address + 1);
        used.shaking.insert(address, shaking + 1);
        Some(Ticket { limits: self.clone(), address, peer: None })
    }

    /// Connections now.
    pub fn in_use(&self) -> usize {
        self.lock().total
    }

    fn lock(&self) -> MutexGuard<'_, Used> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place; given back on drop.
#[derive(Debug)]
pub struct Ticket {
    limits: Arc<Limits>,
    address: IpAddr,
    peer: Option<Role>,
}

impl Ticket {
    /// The handshake is done; false if this peer has too many connections already.
    pub fn admitted(&mut self, peer: &Role) -> bool {
        let limits = self.limits.clone();
        let mut used = limits.lock();
        let open = used.peers.get(peer).copied().unwrap_or(0);
        if open >= limits.per_peer || self.peer.is_some() {
            return false;
        }
        used.peers.insert(peer.clone(), open + 1);
        used.handshakes -= 1;
        one_less(&mut used.shaking, &self.address);
        self.peer = Some(peer.clone());
        true
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut used = self.limits.lock();
        used.total -= 1;
        one_less(&mut used.addresses, &self.address);
        match &self.peer {
            Some(peer) => one_less(&mut used.peers, peer),
            None => {
                used.handshakes -= 1;
                one_less(&mut used.shaking, &self.address);
            }
        }
    }
}

fn one_less<K: Hash + Eq>(counts: &mut HashMap<K, usize>, key: &K) {
    if let Some(n) = counts.get_mut(key) {
        *n -= 1;
        if *n == 0 {
            counts.remove(key);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn custodian(name: &str) -> Role {
        Role::Custodian { name: name.parse().unwrap() }
    }

    #[test]
    fn every_bound_holds_and_places_come_back() {
        let (a, b, c): (IpAddr, IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into(), [10, 0, 0, 3].into());
        let limits = Limits::new(4, 2, 2, 1);
        let mut first = limits.enter(a).unwrap();
        let mut second = limits.enter(a).unwrap();
        assert!(limits.enter(b).is_none(), "two handshakes at most");
        assert!(first.admitted(&custodian("alpha")));
        assert!(limits.enter(a).is_none(), "two of one address at most");
        assert!(!second.admitted(&custodian("alpha")), "one of one peer at most");
        assert!(second.admitted(&custodian("bravo")));
        let third = limits.enter(b).unwrap();
        let fourth = limits.enter(b).unwrap();
        drop(third);
        let fifth = limits.enter(c).unwrap();
        assert!(limits.enter(c).is_none(), "four in all at most");
        drop((first, second, fourth, fifth));
        assert_eq!(limits.in_use(), 0);
        let used = limits.lock();
        assert!(used.addresses.is_empty() && used.shaking.is_empty() && used.peers.is_empty());
    }

    #[test]
    fn one_address_leaves_handshakes_to_others() {
        let (a, b): (IpAddr, IpAddr) = ([10, 0, 0, 1].into(), [10, 0, 0, 2].into());
        let limits = Limits::new(256, 64, 64, 4);
        let mut flood: Vec<Ticket> = std::iter::from_fn(|| limits.enter(a)).collect();
        assert_eq!(flood.len(), 8);
        assert!(limits.enter(b).is_some(), "another address is let in");
        assert!(flood[0].admitted(&custodian("alpha")));
        assert!(limits.enter(a).is_some(), "who is through makes room");
    }
}
