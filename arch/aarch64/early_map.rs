//! The first translation tables, built with the MMU off.
//!
//! This runs at the image's physical address before relocation: it uses nothing but its arguments,
//! byte and word accesses that are aligned, and no statics. Everything that it writes is dropped
//! from the caches by `head.S` afterwards.
//!
//! Pages of the table pool (`.boot` of linker.ld):
//!
//! | page | use |
//! | --- | --- |
//! | 0 | kernel root (level 0) |
//! | 1 | the user root that maps nothing |
//! | 2 to 5 | identity map of the one page that switches the MMU on: levels 0 to 3 |
//! | 6, 7 | image: levels 1 and 2 |
//! | 8, 9, 10 | fixmap: levels 1 to 3; page 10 maps single pages |
//! | 11 | fixmap: level 3 of the device tree's 2 MiB |
//! | 12 to 22 | image: level 3, 2 MiB each |

use crate::layout::{FIXMAP_BASE, IMAGE_BASE, IMAGE_RANDOM_SPAN};
use crate::mmu::pte;
use core::ptr::{read_volatile, write_volatile};

pub(crate) const POOL_KERNEL_ROOT: u64 = 0;
pub(crate) const POOL_EMPTY_ROOT: u64 = 1;
pub(crate) const POOL_FIXMAP_PAGES: u64 = 10;
pub(crate) const POOL_IMAGE_PAGES: u64 = 12;
pub(crate) const POOL_PAGES: u64 = 23;

/// Where the device tree is mapped until the linear map has it.
pub(crate) const FIXMAP_DTB: u64 = FIXMAP_BASE + BLOCK;
/// Largest device tree: what one level 3 table maps, whatever the tree's offset in its page.
pub(crate) const MAX_DTB: u64 = BLOCK - PAGE;

const PAGE: u64 = 4096;
const BLOCK: u64 = 2 << 20;
const FDT_MAGIC: u32 = 0xd00d_feed;

/// Offsets from the image's base (`image_layout` in head.S).
#[repr(C)]
pub(crate) struct ImageLayout {
    size: u64,
    idmap: u64,
    rodata: u64,
    data: u64,
    guard: u64,
    tables: u64,
}

struct Pool(u64);

impl Pool {
    fn page(&self, n: u64) -> u64 {
        self.0 + n * PAGE
    }

    /// Writes an entry of a table in the pool.
    fn set(&self, page: u64, index: u64, value: u64) {
        // SAFETY: `page` is below POOL_PAGES and the index below 512: a word of the pool, which is
        // memory of the image that nobody else uses yet.
        unsafe { write_volatile((self.page(page) + (index & 511) * 8) as *mut u64, value) };
    }

    fn link(&self, page: u64, index: u64, next: u64) {
        self.set(page, index, self.page(next) | pte::VALID | pte::TABLE);
    }
}

const fn index(va: u64, level: u32) -> u64 {
    va >> (39 - 9 * level) & 511
}

/// Fills the pool and returns the random offset of the image.
///
/// # Safety
/// The MMU is off; `layout` is `image_layout`; the image lies at `base` with its table pool cleared;
/// `dtb` is what the boot loader passed in x0.
#[unsafe(no_mangle)]
unsafe extern "C" fn linnet_early_map(layout: *const ImageLayout, base: u64, dtb: u64) -> u64 {
    // SAFETY: the contract.
    let layout = unsafe { &*layout };
    let pool = Pool(base + layout.tables);

    let tree = Tree::at(dtb);
    let span = IMAGE_RANDOM_SPAN - (POOL_PAGES - POOL_IMAGE_PAGES) * BLOCK;
    let slots = span / BLOCK;
    let offset = match &tree {
        // The high half of the product of a 32-bit number and the range: no division.
        Some(tree) => (((tree.random_offset_seed() & 0xffff_ffff) * slots) >> 32) * BLOCK,
        None => 0,
    };

    // Identity map: one page, executable, not writable.
    let page = base + layout.idmap;
    pool.link(2, index(page, 0), 3);
    pool.link(3, index(page, 1), 4);
    pool.link(4, index(page, 2), 5);
    pool.set(5, index(page, 3), page | pte::KERNEL_RX);

    // The image, page by page; text with contiguous entries where both addresses allow it.
    let va = IMAGE_BASE + offset;
    pool.link(POOL_KERNEL_ROOT, index(va, 0), 6);
    pool.link(6, index(va, 1), 7);
    let mut at = 0;
    while at < layout.size {
        if at & (BLOCK - 1) == 0 {
            pool.link(7, index(va + at, 2), POOL_IMAGE_PAGES + at / BLOCK);
        }
        let attributes = if at < layout.rodata {
            if base & 0xffff == 0 { pte::KERNEL_RX | pte::CONT } else { pte::KERNEL_RX }
        } else {
            // Constants become read-only after relocation (mmu::seal_constants).
            pte::KERNEL_RW
        };
        if at != layout.guard {
            pool.set(POOL_IMAGE_PAGES + at / BLOCK, index(va + at, 3), (base + at) | attributes);
        }
        at += PAGE;
    }

    // The fixmap: its tables, and the device tree in it, to read.
    pool.link(POOL_KERNEL_ROOT, index(FIXMAP_BASE, 0), 8);
    pool.link(8, index(FIXMAP_BASE, 1), 9);
    pool.link(9, index(FIXMAP_BASE, 2), POOL_FIXMAP_PAGES);
    pool.link(9, index(FIXMAP_DTB, 2), 11);
    if let Some(tree) = &tree {
        let first = dtb & !(PAGE - 1);
        let mut n = 0;
        while first + n * PAGE < dtb + tree.size {
            pool.set(11, n, (first + n * PAGE) | pte::KERNEL_RO);
            n += 1;
        }
    }
    let _ = layout.data;
    offset
}

/// A look at the device tree, for two properties of /chosen. Every read is checked against the size
/// that the header states; single bytes, because the MMU is off and the rest unaligned.
struct Tree {
    addr: u64,
    size: u64,
}

impl Tree {
    fn at(addr: u64) -> Option<Self> {
        if addr == 0 || addr & 7 != 0 {
            return None;
        }
        let tree = Self { addr, size: 40 };
        if tree.word(0)? != FDT_MAGIC {
            return None;
        }
        let size = u64::from(tree.word(4)?);
        (40..=MAX_DTB).contains(&size).then_some(Self { addr, size })
    }

    fn byte(&self, at: u64) -> Option<u8> {
        if at >= self.size {
            return None;
        }
        // SAFETY: inside the tree that the boot loader promised, by the size in its header.
        Some(unsafe { read_volatile((self.addr + at) as *const u8) })
    }

    fn word(&self, at: u64) -> Option<u32> {
        let b = |i| self.byte(at.checked_add(i)?).map(u32::from);
        Some(b(0)? << 24 | b(1)? << 16 | b(2)? << 8 | b(3)?)
    }

    /// Whether the bytes at `at` are the string and its NUL.
    fn is(&self, at: u64, text: &[u8]) -> bool {
        let mut i = 0;
        while i < text.len() {
            // SAFETY: below the length. Byte by byte: no library routine runs before the MMU does.
            let want = unsafe { read_volatile(text.as_ptr().add(i)) };
            if self.byte(at + i as u64) != Some(want) {
                return false;
            }
            i += 1;
        }
        self.byte(at + i as u64) == Some(0)
    }

    fn has_word(&self, at: u64, len: u64, word: &[u8]) -> bool {
        let mut start = at;
        let mut i = at;
        while i < at + len {
            let Some(c) = self.byte(i) else {
                return false;
            };
            if c == b' ' || c == 0 {
                if i - start == word.len() as u64 {
                    let mut n = 0;
                    while n < word.len() {
                        // SAFETY: below the length.
                        let want = unsafe { read_volatile(word.as_ptr().add(n)) };
                        if self.byte(start + n as u64) != Some(want) {
                            break;
                        }
                        n += 1;
                    }
                    if n == word.len() {
                        return true;
                    }
                }
                start = i + 1;
            }
            i += 1;
        }
        false
    }

    /// /chosen/kaslr-seed, or 0 when there is none or the command line says `nokaslr`.
    fn random_offset_seed(&self) -> u64 {
        self.scan().unwrap_or(0)
    }

    fn scan(&self) -> Option<u64> {
        let (mut at, strings) = (u64::from(self.word(8)?), u64::from(self.word(12)?));
        let (mut depth, mut chosen) = (0u32, false);
        let mut seed = 0;
        loop {
            let token = self.word(at)?;
            at += 4;
            match token {
                1 => {
                    depth = depth.checked_add(1)?;
                    if depth == 2 {
                        chosen = self.is(at, b"chosen");
                    }
                    while self.byte(at)? != 0 {
                        at += 1;
                    }
                    at = (at + 4) & !3;
                }
                2 => depth = depth.checked_sub(1)?,
                3 => {
                    let (len, name) = (u64::from(self.word(at)?), u64::from(self.word(at + 4)?));
                    at += 8;
                    if chosen && depth == 2 {
                        if len == 8 && self.is(strings + name, b"kaslr-seed") {
                            seed = u64::from(self.word(at)?) << 32 | u64::from(self.word(at + 4)?);
                        }
                        if self.is(strings + name, b"bootargs") && self.has_word(at, len, b"nokaslr") {
                            return Some(0);
                        }
                    }
                    at = (at + len + 3) & !3;
                }
                4 => {}
                _ => return Some(seed),
            }
        }
    }
}

/// Compiled for the developer's machine only: there the "physical" addresses are its own.
#[cfg(test)]
mod tests {
    use super::*;
    use crate::early_dt::builder::{Builder, strings};

    fn tree(bootargs: &str) -> Vec<u64> {
        let mut b = Builder::default();
        b.begin("");
        b.begin("memory@0");
        b.cells("kaslr-seed", &[9, 9]); // in the wrong place
        b.end();
        b.begin("chosen");
        b.property("bootargs", &strings(&[bootargs]));
        b.cells("kaslr-seed", &[0x1234_5678, 0x8000_0000]);
        b.end();
        b.end();
        let bytes = b.finish();
        bytes.chunks(8).map(|c| u64::from_le_bytes(std::array::from_fn(|i| *c.get(i).unwrap_or(&0)))).collect()
    }

    fn seed(tree: &[u64]) -> Option<u64> {
        Tree::at(tree.as_ptr() as u64).map(|t| t.random_offset_seed())
    }

    #[test]
    fn the_seed_is_chosens_and_nokaslr_refuses_it() {
        assert_eq!(seed(&tree("quiet")), Some(0x1234_5678_8000_0000));
        assert_eq!(seed(&tree("quiet nokaslr")), Some(0));
        assert_eq!(seed(&tree("xnokaslr nokaslrx")), Some(0x1234_5678_8000_0000));
        assert_eq!(seed(&[0; 8]), None);
    }

    #[test]
    fn a_tree_with_any_byte_changed_ends_the_scan() {
        let good = tree("quiet");
        let size = good.len() * 8;
        for at in (0..size).filter(|at| !(4..8).contains(at)) {
            // Not the size: reads beyond the tree are kept out by it.
            for value in [0, 1, 3, 0x7f, 0xff] {
                let mut bad = good.clone();
                bad[at / 8] = bad[at / 8] & !(0xff << (at % 8 * 8)) | value << (at % 8 * 8);
                let _ = seed(&bad);
            }
        }
    }

    #[repr(C, align(4096))]
    struct Page([u64; 512]);

    /// What a table walk finds for `va`.
    fn walk(root: u64, va: u64) -> Option<u64> {
        let mut table = root;
        for level in 0..4 {
            // SAFETY: tables that `linnet_early_map` just wrote, in memory of this test.
            let entry = unsafe { *((table + index(va, level) * 8) as *const u64) };
            if entry & pte::VALID == 0 {
                return None;
            }
            if level == 3 {
                return Some(entry);
            }
            table = entry & pte::ADDR_MASK;
        }
        None
    }

    #[test]
    fn image_pages_have_the_permissions_of_their_part_and_the_guard_has_none() {
        const P: u64 = 4096;
        let layout = ImageLayout {
            size: 0x50_0000,
            idmap: P,
            rodata: 0x10_0000,
            data: 0x20_0000,
            guard: 0x4f_0000,
            tables: 0x30_0000,
        };
        let mut memory: Vec<Page> = (0..0x500).map(|_| Page([0; 512])).collect();
        let base = memory.as_mut_ptr() as u64;
        let dtb = tree("quiet");
        // SAFETY: the memory is as large as the layout says, and its table pool is zero.
        let offset = unsafe { linnet_early_map(&layout, base, dtb.as_ptr() as u64) };
        assert!(offset < IMAGE_RANDOM_SPAN && offset % BLOCK == 0 && offset != 0);
        let root = base + layout.tables;
        let at = |o: u64| walk(root, IMAGE_BASE + offset + o);
        for o in (0..layout.size).step_by(4096) {
            if o == layout.guard {
                assert_eq!(at(o), None);
                continue;
            }
            let entry = at(o).expect("mapped");
            assert_eq!(entry & pte::ADDR_MASK, base + o);
            let executable = entry & pte::PXN == 0;
            assert_eq!(executable, o < layout.rodata);
            assert!(!executable || entry & pte::AP_RO != 0, "writable and executable");
        }
        assert_eq!(at(layout.size), None);
        let id = walk(root + 2 * P, base + layout.idmap).expect("identity page");
        assert_eq!(id, (base + layout.idmap) | pte::KERNEL_RX);
        assert_eq!(walk(root + 2 * P, base + layout.idmap + P), None);
        let mapped = walk(root, FIXMAP_DTB).expect("device tree");
        assert_eq!(mapped & pte::ADDR_MASK, dtb.as_ptr() as u64 & !(P - 1));
        assert!(mapped & pte::AP_RO != 0);
    }
}
