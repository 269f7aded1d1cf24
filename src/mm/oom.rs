//! Out of memory: whom to ask for a victim.
//!
//! The process layer knows programs and registers itself; the memory manager only asks.

use sync::Once;

/// Chooses and kills a program: implemented by the process layer.
pub trait OomKiller: Send + Sync {
    /// Memory has run out in a page fault. True when something was killed or is about to free
    /// memory, so that trying again makes sense. May sleep.
    fn out_of_memory(&self) -> bool;
}

static KILLER: Once<&'static dyn OomKiller> = Once::new();

/// Registers the process layer, once.
pub fn set_oom_killer(killer: &'static dyn OomKiller) {
    KILLER.call_once(|| killer);
}

pub(crate) fn out_of_memory() -> bool {
    KILLER.get().is_some_and(|k| k.out_of_memory())
}
