//! Mutated trees through the validator and everything that reads a tree.
//!
//! `LINNET_DTBS` (paths, separated by colons) adds real boards' trees, `LINNET_FUZZ` sets the
//! number of mutations: `LINNET_FUZZ=100000 LINNET_DTBS=a.dtb:b.dtb cargo test -p device fuzz`.

use super::build::{board, virt};
use super::{Tree, validate};
use core::fmt::Write;

struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        // xorshift64*
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d)
    }
    fn below(&mut self, n: usize) -> usize {
        (self.next() >> 16) as usize % n.max(1)
    }
}

fn mutate(tree: &mut Vec<u8>, rng: &mut Rng) {
    for _ in 0..1 + rng.below(8) {
        let len = tree.len();
        if len < 44 {
            return;
        }
        // Half of the changes go to the header and the first nodes, where the most depends on them.
        let span = if rng.below(4) == 0 { 40 } else if rng.below(2) == 0 { len.min(4096) } else { len };
        let at = rng.below(span - 4);
        let word = at & !3;
        match rng.below(8) {
            0 => tree[at] ^= 1 << rng.below(8),
            1 => tree[at] = rng.next() as u8,
            2 => tree[word..word + 4].copy_from_slice(&(rng.below(10) as u32).to_be_bytes()),
            3 => tree[word..word + 4].copy_from_slice(&(rng.next() as u32).to_be_bytes()),
            4 => tree[word..word + 4].copy_from_slice(&(rng.below(len * 2) as u32).to_be_bytes()),
            5 => {
                let from = rng.below(len - 4) & !3;
                let copy: [u8; 4] = tree[from..from + 4].try_into().unwrap();
                tree[word..word + 4].copy_from_slice(&copy);
            }
            6 => tree[word..word + 4].copy_from_slice(&u32::MAX.to_be_bytes()),
            _ if rng.below(16) == 0 => tree.truncate(at),
            _ => tree[at] = 0,
        }
    }
}

/// Asks a tree everything that the kernel asks.
fn read_everything(tree: Tree<'_>) {
    let mut sink = String::new();
    let mut words = 0usize;
    for node in tree.nodes() {
        sink.clear();
        write!(sink, "{node}").unwrap();
        words += node.props().map(|p| p.value.len() + p.name.len()).sum::<usize>();
        for i in 0..4 {
            words += node.reg(i).is_some() as usize + node.interrupts(i).is_some() as usize;
        }
        words += node.strings("compatible").count() + node.children().count();
        let _ = (node.is_enabled(), node.phandle(), node.interrupt_parent(), node.raw_reg(usize::MAX));
        let _ = tree.alias_id("serial", &node);
    }
    let chosen = tree.chosen();
    let _ = (chosen.bootargs(), chosen.initrd(), chosen.kaslr_seed(), chosen.rng_seed(), chosen.stdout());
    words += tree.memory().count() + tree.reserved_memory().count() + tree.memory_reservations().count();
    words += tree.cpus().count();
    let _ = (tree.psci(), tree.model(), tree.find("/soc/serial"), tree.find_or_alias("serial0"), tree.size());
    core::hint::black_box(words);
}

#[test]
fn mutated_trees_neither_panic_nor_read_out_of_bounds() {
    let mut seeds = vec![virt(), board()];
    for path in std::env::var("LINNET_DTBS").unwrap_or_default().split(':').filter(|p| !p.is_empty()) {
        let mut tree = std::fs::read(path).unwrap();
        let size = u32::from_be_bytes(tree[4..8].try_into().unwrap()) as usize;
        tree.truncate(size);
        let valid = validate(&tree).unwrap_or_else(|e| panic!("{path}: {e}"));
        read_everything(Tree::new(valid));
        // The blocks behind which QEMU leaves a megabyte of padding.
        let used = [2, 3].map(|i| {
            let word = |i: usize| u32::from_be_bytes(tree[i * 4..i * 4 + 4].try_into().unwrap()) as usize;
            word(i) + word(if i == 2 { 9 } else { 8 })
        });
        let used = used[0].max(used[1]);
        tree.truncate(used);
        tree[4..8].copy_from_slice(&(used as u32).to_be_bytes());
        seeds.push(tree);
    }
    let rounds = std::env::var("LINNET_FUZZ").ok().and_then(|v| v.parse().ok()).unwrap_or(3000);
    let (mut accepted, mut rng) = (0, Rng(0x9e37_79b9_7f4a_7c15));
    for round in 0..rounds {
        let mut tree = seeds[round % seeds.len()].clone();
        mutate(&mut tree, &mut rng);
        if let Ok(valid) = validate(&tree) {
            accepted += 1;
            read_everything(Tree::new(valid));
        }
    }
    // Both outcomes must occur, else the mutations test nothing.
    assert!(accepted > rounds / 20 && accepted < rounds, "{accepted} of {rounds} accepted");
}
