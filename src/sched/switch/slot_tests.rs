//! Tests of `slot.rs`; apart from it because the model checker compiles that file for itself.

use crate::BoxSlot;
use kalloc::KBox;

#[test]
fn a_value_that_was_put_is_taken_once() {
    let slot = BoxSlot::new();
    assert!(slot.put(KBox::try_new(7u64).unwrap()).is_ok());
    assert_eq!(*slot.take_or_mark().unwrap(), 7);
    assert!(slot.take().is_none());
}

#[test]
fn a_mark_sends_the_next_value_back_to_its_owner() {
    let slot = BoxSlot::new();
    assert!(slot.take_or_mark().is_none());
    assert_eq!(*slot.put(KBox::try_new(8u64).unwrap()).unwrap_err(), 8);
    assert!(slot.put(KBox::try_new(9u64).unwrap()).is_ok(), "the mark is used up");
}

#[test]
fn a_full_slot_refuses() {
    let slot = BoxSlot::new();
    assert!(slot.put(KBox::try_new(1u64).unwrap()).is_ok());
    assert_eq!(*slot.put(KBox::try_new(2u64).unwrap()).unwrap_err(), 2);
}
