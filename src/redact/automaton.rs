//! An Aho–Corasick automaton: after each byte, the longest beginning of any secret that ends here.
//!
//! Our own, because a library's copy of the secrets could not be zeroed, and because secrets branch rarely:
//! nearly every state has one successor, which is the next in memory, so that a state takes 12 bytes and only the
//! few others need an edge. What is allocated is allocated once, so that growing leaves no copies behind.

use crate::model::{LONGEST_SECRET, SHORTEST_SECRET, Secret};
use zeroize::{DefaultIsZeroes, Zeroize};

/// A beginning of a secret, by its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct State(u32);

/// The empty beginning.
pub(super) const ROOT: State = State(0);

/// In `Node::found`: there are successors besides the next node.
const FORKS: u32 = 1 << 31;

#[derive(Clone, Copy, Default)]
struct Node {
    /// The longest proper end of this state that is a state too.
    fail: u32,
    /// The longest secret that ends here, counted from 1; 0 where none does.
    found: u32,
    /// The depth, and in the low eight bits the byte that leads here.
    place: u32,
}

impl DefaultIsZeroes for Node {}

impl Node {
    fn depth(self) -> u32 {
        self.place >> 8
    }
}

/// What `place` is one below a node, by this byte.
fn below(node: Node, byte: u8) -> u32 {
    (node.depth() + 1) << 8 | u32::from(byte)
}

/// A successor that is not the next node.
#[derive(Clone, Copy, Default)]
struct Edge {
    from: u32,
    byte: u8,
    to: u32,
}

impl DefaultIsZeroes for Edge {}

/// Nodes that follow each other, each the parent of the next; between two chains stands a node of depth 0.
struct Chain {
    parent: u32,
    first: u32,
    depths: std::ops::Range<u32>,
}

/// A secret as far as it may be shown.
struct Known {
    marker: String,
    length: usize,
}

pub(super) struct Automaton {
    nodes: Vec<Node>,
    /// In order of state and byte.
    edges: Vec<Edge>,
    /// The states of depth 1, by their byte; 0 where there is none.
    first: Vec<u32>,
    /// A bit for each two bytes that a secret begins with.
    openings: Box<[u64; 1024]>,
    /// A bit for each byte that stands in a secret.
    alphabet: [u64; 4],
    secrets: Vec<Known>,
}

impl Automaton {
    /// The automaton of these secrets, or `None` where there are none.
    pub(super) fn new(secrets: impl IntoIterator<Item = (String, Secret<Vec<u8>>)>) -> Option<Self> {
        let secrets: Vec<_> = secrets.into_iter().filter(|(_, s)| s.expose().len() >= SHORTEST_SECRET).collect();
        if secrets.is_empty() {
            return None;
        }
        let bytes: usize = secrets.iter().map(|(_, secret)| sought(secret).len()).sum();
        let mut nodes = Vec::with_capacity(bytes + secrets.len() + 2);
        nodes.resize(2, Node::default());
        let mut automaton = Automaton {
            nodes,
            edges: Vec::with_capacity(secrets.len()),
            first: vec![0; 256],
            openings: Box::new([0; 1024]),
            alphabet: [0; 4],
            secrets: Vec::with_capacity(secrets.len()),
        };
        let mut chains = Vec::with_capacity(secrets.len());
        for (name, secret) in secrets {
            automaton.insert(sought(&secret), &mut chains);
            automaton.secrets.push(Known { marker: format!("[secret {name}]"), length: sought(&secret).len() });
            let end = automaton.walk(sought(&secret)).1;
            let known = automaton.secrets.len() as u32;
            let found = &mut automaton.nodes[end as usize].found;
            // Of two secrets with the same value the first has it.
            *found |= if *found & !FORKS == 0 { known } else { 0 };
        }
        automaton.link(chains);
        Some(automaton)
    }

    /// Follows the bytes as far as there are states: how many there were, and the last of them.
    fn walk(&self, bytes: &[u8]) -> (usize, u32) {
        let mut node = ROOT.0;
        for (at, byte) in bytes.iter().enumerate() {
            match self.child(node, *byte) {
                Some(child) => node = child,
                None => return (at, node),
            }
        }
        (bytes.len(), node)
    }

    fn insert(&mut self, bytes: &[u8], chains: &mut Vec<Chain>) {
        for byte in bytes {
            self.alphabet[usize::from(byte >> 6)] |= 1 << (byte & 63);
        }
        let pair = u16::from_be_bytes([bytes[0], bytes[1]]);
        self.openings[usize::from(pair >> 6)] |= 1 << (pair & 63);
        let (known, parent) = self.walk(bytes);
        let Some(byte) = bytes.get(known) else { return };
        let first = self.nodes.len() as u32;
        if parent == ROOT.0 {
            self.first[usize::from(*byte)] = first;
        } else {
            let at = self.edges.partition_point(|edge| (edge.from, edge.byte) < (parent, *byte));
            self.edges.insert(at, Edge { from: parent, byte: *byte, to: first });
            self.nodes[parent as usize].found |= FORKS;
        }
        for (depth, byte) in bytes.iter().enumerate().skip(known) {
            self.nodes.push(Node { place: (depth as u32 + 1) << 8 | u32::from(*byte), ..Node::default() });
        }
        self.nodes.push(Node::default());
        chains.push(Chain { parent, first, depths: known as u32 + 1..bytes.len() as u32 + 1 });
    }

    /// Says of each state where it fails to, the shallow ones first: the deeper ones' answer rests on theirs.
    fn link(&mut self, mut chains: Vec<Chain>) {
        let mut depth = 1;
        while !chains.is_empty() {
            for chain in chains.iter().filter(|chain| chain.depths.contains(&depth)) {
                let node = chain.first + (depth - chain.depths.start);
                let parent = if node == chain.first { chain.parent } else { node - 1 };
                let byte = self.nodes[node as usize].place as u8;
                let fail = if depth == 1 { ROOT } else { self.next(State(self.nodes[parent as usize].fail), byte) };
                let inherited = self.nodes[fail.0 as usize].found & !FORKS;
                let linked = &mut self.nodes[node as usize];
                linked.fail = fail.0;
                linked.found |= if linked.found & !FORKS == 0 { inherited } else { 0 };
            }
            depth += 1;
            chains.retain(|chain| depth < chain.depths.end);
        }
    }

    #[inline]
    fn child(&self, node: u32, byte: u8) -> Option<u32> {
        if node == ROOT.0 {
            return Some(self.first[usize::from(byte)]).filter(|first| *first != 0);
        }
        let this = self.nodes[node as usize];
        if self.nodes[node as usize + 1].place == below(this, byte) {
            return Some(node + 1);
        }
        if this.found & FORKS == 0 {
            return None;
        }
        let at = self.edges.binary_search_by_key(&(node, byte), |edge| (edge.from, edge.byte));
        at.ok().map(|at| self.edges[at].to)
    }

    /// The state after one more byte.
    pub(super) fn next(&self, state: State, byte: u8) -> State {
        let mut node = state.0;
        loop {
            match self.child(node, byte) {
                Some(child) => return State(child),
                None if node == ROOT.0 => return ROOT,
                None => node = self.nodes[node as usize].fail,
            }
        }
    }

    /// The longest end of this state that can still become a secret: the state itself, unless nothing follows it.
    pub(super) fn hopeful(&self, state: State) -> State {
        let mut node = state.0;
        while node != ROOT.0
            && self.nodes[node as usize + 1].depth() == 0
            && self.nodes[node as usize].found & FORKS == 0
        {
            node = self.nodes[node as usize].fail;
        }
        State(node)
    }

    /// The longest proper end of this state.
    pub(super) fn shorter(&self, state: State) -> State {
        State(self.nodes[state.0 as usize].fail)
    }

    /// How many bytes this state is the beginning of.
    #[inline]
    pub(super) fn depth(&self, state: State) -> usize {
        self.nodes[state.0 as usize].depth() as usize
    }

    /// The longest secret that ends here: its number, for `marker`, and its length.
    #[inline]
    pub(super) fn found(&self, state: State) -> Option<(u32, usize)> {
        let secret = (self.nodes[state.0 as usize].found & !FORKS).checked_sub(1)?;
        Some((secret, self.secrets[secret as usize].length))
    }

    /// Whether a secret begins with this byte.
    pub(super) fn begins(&self, byte: u8) -> bool {
        self.first[usize::from(byte)] != 0
    }

    /// Whether a secret begins with these two bytes.
    #[inline]
    pub(super) fn opens(&self, first: u8, second: u8) -> bool {
        let pair = u16::from_be_bytes([first, second]);
        self.openings[usize::from(pair >> 6)] >> (pair & 63) & 1 == 1
    }

    /// Whether this byte stands in a secret.
    pub(super) fn has(&self, byte: u8) -> bool {
        self.alphabet[usize::from(byte >> 6)] >> (byte & 63) & 1 == 1
    }

    /// What stands in a secret's place.
    pub(super) fn marker(&self, secret: u32) -> &str {
        &self.secrets[secret as usize].marker
    }

    pub(super) fn count(&self) -> usize {
        self.secrets.len()
    }
}

impl Drop for Automaton {
    fn drop(&mut self) {
        self.nodes.zeroize();
        self.edges.zeroize();
        self.first.zeroize();
        self.openings.zeroize();
        self.alphabet.zeroize();
    }
}

/// What is looked for: the secret without line ends behind it, which `$(cat …)` takes away, and no more of it than
/// a secret may have.
fn sought(secret: &Secret<Vec<u8>>) -> &[u8] {
    let whole = secret.expose();
    let ends = whole.iter().rev().take_while(|byte| matches!(byte, b'\n' | b'\r')).count();
    let length = (whole.len() - ends).clamp(SHORTEST_SECRET, LONGEST_SECRET);
    &whole[..length]
}
