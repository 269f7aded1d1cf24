//! Which sockets in flight nothing outside leads to.
//!
//! A node is a socket whose file only messages hold; an edge leads from a socket to each file in
//! flight in its queue. What the nodes' own queues hold among themselves does not count; a node
//! that something else holds lives, and so does all that it leads to. The rest is garbage. Every
//! node's edges are walked at most twice, and nothing recurses.

use abi::Result;
use kalloc::KVec;

/// A socket whose file only messages hold.
pub(super) struct Node {
    /// Messages outside of the nodes' queues that hold it.
    held: usize,
    lives: bool,
}

impl Node {
    /// A node that `messages` hold.
    pub(super) fn new(messages: usize) -> Self {
        Self { held: messages, lives: false }
    }
    /// Whether something outside leads to it.
    pub(super) fn lives(&self) -> bool {
        self.lives
    }
}

/// Finds out which nodes live. `edges(i, visit)` visits where the edges of node i lead; it may find
/// others at a later call. ENOMEM.
pub(super) fn mark(nodes: &mut [Node], edges: impl Fn(usize, &mut dyn FnMut(usize))) -> Result {
    let mut order: KVec<usize> = KVec::try_with_capacity(nodes.len())?;
    for i in 0..nodes.len() {
        edges(i, &mut |j| {
            if let Some(node) = nodes.get_mut(j) {
                node.held = node.held.saturating_sub(1);
            }
        });
    }
    for (i, node) in nodes.iter_mut().enumerate().filter(|(_, node)| node.held > 0) {
        node.lives = true;
        let _ = order.push_within_capacity(i);
    }
    while let Some(i) = order.pop() {
        edges(i, &mut |j| {
            if let Some(node) = nodes.get_mut(j).filter(|node| !node.lives) {
                node.lives = true;
                // Each comes here once.
                let _ = order.push_within_capacity(j);
            }
        });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::cell::Cell;

    /// Who lives among nodes with so many messages each and these edges; the edges are walked at
    /// most twice.
    fn alive(messages: &[usize], edges: &[(usize, usize)]) -> Vec<usize> {
        let mut nodes: Vec<Node> = messages.iter().map(|&m| Node::new(m)).collect();
        let walked = Cell::new(0);
        mark(&mut nodes, |i, visit| {
            for &(_, to) in edges.iter().filter(|e| e.0 == i) {
                walked.set(walked.get() + 1);
                visit(to);
            }
        })
        .unwrap();
        assert!(walked.get() <= 2 * edges.len());
        (0..nodes.len()).filter(|&i| nodes[i].lives()).collect()
    }

    #[test]
    fn a_chain_lives_by_its_first() {
        // The first is held by the queue of a socket in use.
        assert_eq!(alive(&[1, 1, 1], &[(0, 1), (1, 2)]), [0, 1, 2]);
        assert_eq!(alive(&[1, 1, 1], &[(2, 1), (1, 0)]), [0, 1, 2]);
    }

    #[test]
    fn a_cycle_is_garbage() {
        assert_eq!(alive(&[1], &[(0, 0)]), []);
        assert_eq!(alive(&[1, 1, 1], &[(0, 1), (1, 2), (2, 0)]), []);
        // Also twice in one queue, and what hangs on it.
        assert_eq!(alive(&[1, 2, 1], &[(0, 1), (0, 1), (1, 0), (1, 2)]), []);
    }

    #[test]
    fn a_cycle_reached_from_outside_lives() {
        assert_eq!(alive(&[2, 1], &[(0, 1), (1, 0)]), [0, 1]);
        // By way of a chain, beside a cycle that is garbage.
        assert_eq!(alive(&[1, 2, 1, 1, 1], &[(0, 1), (1, 2), (2, 1), (3, 4), (4, 3)]), [0, 1, 2]);
        // A cycle that leads into a living one is garbage itself.
        assert_eq!(alive(&[1, 1, 3, 1], &[(0, 1), (1, 0), (1, 2), (2, 3), (3, 2)]), [2, 3]);
    }

    #[test]
    fn edges_that_come_later_do_no_harm() {
        // More edges than messages were counted, and to where no node is.
        assert_eq!(alive(&[1, 1], &[(0, 1), (0, 1), (0, 7)]), [0, 1]);
    }

    #[test]
    fn a_long_row_takes_linear_work() {
        let steps = Cell::new(0usize);
        let n = 20_000;
        for cyclic in [false, true] {
            let mut nodes: Vec<Node> = (0..n).map(|_| Node::new(1)).collect();
            mark(&mut nodes, |i, visit| {
                steps.set(steps.get() + 1);
                if cyclic || i + 1 < n {
                    visit((i + 1) % n);
                }
            })
            .unwrap();
            assert_eq!(nodes.iter().filter(|node| node.lives()).count(), if cyclic { 0 } else { n });
        }
        assert_eq!(steps.get(), 3 * n);
    }
}
