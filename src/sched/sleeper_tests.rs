//! Tests of `sleeper.rs`; apart from it because the model checker compiles that file for itself
//! (sched-switch's tests/model.rs).

use crate::sleeper::*;
use kalloc::KBox;

fn asleep(kind: u32) -> SleepState<u64> {
    let s = SleepState::new();
    s.begin(kind);
    assert_eq!(s.commit(), Some(kind));
    assert!(s.settle(KBox::try_new(1).unwrap()).is_none());
    s
}

#[test]
fn a_wake_up_before_the_commit_keeps_the_thread_awake() {
    let s = SleepState::<u64>::new();
    s.begin(INTERRUPTIBLE);
    assert!(matches!(s.wake(SLEEPING), Woken::Done));
    assert_eq!(s.commit(), None);
    assert!(matches!(s.wake(SLEEPING), Woken::No));
}

#[test]
fn a_wake_up_during_the_switch_gives_the_entity_back_to_the_switching_cpu() {
    let s = SleepState::new();
    s.begin(UNINTERRUPTIBLE);
    assert!(s.commit().is_some());
    assert!(matches!(s.wake(SLEEPING), Woken::Done));
    assert_eq!(s.settle(KBox::try_new(5u64).unwrap()).as_deref(), Some(&5));
    assert_eq!(s.get(), RUNNING);
}

#[test]
fn a_wake_up_after_the_switch_has_the_entity() {
    assert!(matches!(asleep(INTERRUPTIBLE).wake(SLEEPING), Woken::Enqueue(_)));
}

#[test]
fn only_the_wanted_kinds_wake() {
    let s = asleep(UNINTERRUPTIBLE);
    assert!(matches!(s.wake(INTERRUPTIBLE | KILLABLE), Woken::No));
    assert!(matches!(asleep(KILLABLE).wake(KILLABLE), Woken::Enqueue(_)));
    assert!(matches!(asleep(STOPPED).wake(SLEEPING), Woken::No));
}
