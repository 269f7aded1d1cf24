//! RangeMap against a model, with failing allocations, and under readers.

use super::*;
use proptest::prelude::*;
use std::collections::BTreeMap;
use std::vec::Vec;
use sync::rcu;

static CLASS: LockClass = LockClass::new("test_rangemap", 1510);

fn arc(n: u32) -> KArc<u32> {
    KArc::try_new(n).unwrap()
}

type Model = BTreeMap<u64, (u64, u32)>;

fn overlap(m: &Model, s: u64, e: u64) -> bool {
    s >= e || m.iter().any(|(a, (b, _))| *a < e && s < *b)
}

fn containing(m: &Model, addr: u64) -> Option<(u64, u64, u32)> {
    m.range(..=addr).next_back().filter(|(_, (e, _))| addr < *e).map(|(s, (e, v))| (*s, *e, *v))
}

fn check(t: &RangeMap<u32>, m: &Model, probe: u64) {
    let g = rcu::read_lock();
    assert!(t.iter(&g).map(|(s, e, v)| (s, (e, **v))).eq(m.iter().map(|(s, r)| (*s, *r))));
    assert_eq!(t.len(), m.len());
    assert_eq!(t.lookup_range(&g, probe).map(|(s, e, v)| (s, e, **v)), containing(m, probe));
    let from: Vec<_> = m.iter().filter(|(_, (e, _))| *e > probe).map(|(s, _)| *s).collect();
    assert!(t.iter_from(&g, probe).map(|r| r.0).eq(from));
    let before = m.iter().filter(|(_, (e, _))| *e <= probe).next_back().map(|(s, _)| *s);
    assert_eq!(t.prev(&g, probe).map(|r| r.0), before);
}

fn check_gaps(t: &RangeMap<u32>, m: &Model, len: u64, low: u64, high: u64) {
    let g = rcu::read_lock();
    let fits = |a: &u64| a + len <= high && !overlap(m, *a, a + len);
    assert_eq!(t.find_gap(&g, len, low, high), (low..high).find(fits));
    assert_eq!(t.find_gap_down(&g, len, low, high), (low..high).rev().find(fits));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]
    #[test]
    fn agrees_with_a_model(ops in prop::collection::vec((0u8..8, 0u64..600, 1u64..6), 0..400), gap in (1u64..20, 0u64..300, 300u64..600)) {
        let t = RangeMap::new(&CLASS);
        let mut m = Model::new();
        for (n, (op, a, l)) in ops.into_iter().enumerate() {
            let n = n as u32;
            match op {
                0..=4 => {
                    let ok = !overlap(&m, a, a + l);
                    prop_assert_eq!(t.insert(a, a + l, arc(n)).is_ok(), ok);
                    if ok { m.insert(a, (a + l, n)); }
                }
                5 => {
                    let want = containing(&m, a);
                    prop_assert_eq!(t.remove(a).unwrap().map(|v| *v), want.map(|w| w.2));
                    if let Some((s, _, _)) = want { m.remove(&s); }
                }
                6 => {
                    let want = containing(&m, a);
                    let mut e = t.edit();
                    let done = e.resize(a, a, a + l).unwrap();
                    e.commit();
                    let mut rest = m.clone();
                    let ok = want.is_some_and(|(s, _, _)| { rest.remove(&s); !overlap(&rest, a, a + l) });
                    prop_assert_eq!(done, ok);
                    if let Some((_, _, v)) = want.filter(|_| ok) { rest.insert(a, (a + l, v)); m = rest; }
                }
                _ => {
                    // An edit of several steps, dropped every second time.
                    let mut e = t.edit();
                    let mut copy = m.clone();
                    for k in 0..l {
                        let at = (a + 7 * k) % 600;
                        if let Some((s, _, v)) = containing(&copy, at) {
                            if k % 2 == 0 {
                                let (gs, _, gv) = e.remove(at).unwrap().unwrap();
                                prop_assert_eq!((gs, *gv), (s, v));
                                copy.remove(&s);
                            } else {
                                prop_assert_eq!(*e.replace(at, arc(n + 1000)).ok().unwrap(), v);
                                copy.get_mut(&s).unwrap().1 = n + 1000;
                            }
                        } else {
                            prop_assert!(e.insert(at, at + 1, arc(n)).is_ok());
                            copy.insert(at, (at + 1, n));
                        }
                    }
                    if n % 2 == 0 { e.commit(); m = copy; }
                }
            }
            check(&t, &m, a);
        }
        check_gaps(&t, &m, gap.0, gap.1, gap.2);
    }
}

#[test]
fn counts_return_to_one_when_the_map_is_gone() {
    let values: Vec<_> = (0..200).map(arc).collect();
    let t = RangeMap::new(&CLASS);
    for (i, v) in values.iter().enumerate() {
        let s = (i as u64 * 37 % 200) * 10;
        t.insert(s, s + 10, v.clone()).ok().unwrap();
    }
    for s in (0..2000).step_by(30) {
        t.remove(s).unwrap().unwrap();
    }
    {
        let mut dropped = t.edit();
        dropped.insert(0, 5, values[0].clone()).ok().unwrap();
        for s in (10..300).step_by(10) {
            let _ = dropped.remove(s);
        }
    }
    drop(t);
    rcu::barrier();
    for v in &values {
        assert_eq!(KArc::strong_count(v), 1);
    }
}

#[test]
fn an_insertion_that_finds_no_memory_changes_nothing() {
    let t = RangeMap::new(&CLASS);
    let mut m = Model::new();
    for i in 0..300u64 {
        for n in 1.. {
            let v = arc(i as u32);
            kalloc::fail_nth(n);
            let r = t.insert(i * 10, i * 10 + 5, v);
            if kalloc::disarm() {
                r.ok().unwrap();
                m.insert(i * 10, (i * 10 + 5, i as u32));
                break;
            }
            assert!(matches!(r, Err(RangeError::NoMemory(_))));
            assert_eq!(t.len(), m.len());
        }
    }
    check(&t, &m, 1501);
}

#[test]
fn readers_see_each_edit_as_a_whole() {
    use std::sync::atomic::{AtomicBool, Ordering};
    // Each edit moves all ranges by one step: a reader that sees two positions at once has seen
    // half of an edit.
    let t = RangeMap::new(&CLASS);
    for i in 0..40u64 {
        t.insert(i * 100, i * 100 + 10, arc(0)).ok().unwrap();
    }
    let stop = AtomicBool::new(false);
    arch::sim::run_on_cpus(3, |cpu| {
        if cpu.0 == 0 {
            for step in 1..200u64 {
                let mut e = t.edit();
                for i in 0..40 {
                    let old = i * 100 + (step - 1) % 50;
                    e.remove(old).unwrap().unwrap();
                    let new = i * 100 + step % 50;
                    e.insert(new, new + 10, arc(step as u32)).ok().unwrap();
                }
                e.commit();
                rcu::quiescent(cpu);
                rcu::run_callbacks(cpu);
            }
            stop.store(true, Ordering::Release);
        } else {
            while !stop.load(Ordering::Acquire) {
                let g = rcu::read_lock();
                let mut seen = t.iter(&g).map(|(s, e, v)| (s % 100, e - s, **v));
                let first = seen.next().unwrap();
                assert!(seen.all(|x| x == first));
                assert_eq!(t.iter(&g).count(), 40);
                drop(g);
                rcu::quiescent(cpu);
            }
        }
    });
}
