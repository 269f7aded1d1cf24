//! Device nodes that drivers announce; devtmpfs shows them.

use crate::class;
use abi::{DevNum, Result};
use kalloc::{KArc, KBytes, KVec, TryClone};
use sync::SpinLock;

/// A node in /dev.
pub struct DevNode {
    /// Name, perhaps with directories ("input/event0").
    pub name: KBytes,
    /// Permission bits.
    pub mode: u32,
    /// Its device.
    pub dev: DevNum,
    /// A block device.
    pub is_block: bool,
}

impl TryClone for DevNode {
    fn try_clone(&self) -> core::result::Result<Self, kalloc::AllocError> {
        Ok(Self { name: self.name.try_clone()?, mode: self.mode, dev: self.dev, is_block: self.is_block })
    }
}

/// Who shows the nodes.
pub trait NodeSink: Send + Sync {
    /// A device came. May sleep.
    fn added(&self, node: &DevNode) -> Result;
    /// A device went.
    fn removed(&self, name: &[u8]);
}

struct State {
    nodes: KVec<DevNode>,
    sink: Option<KArc<dyn NodeSink>>,
}

static STATE: SpinLock<State> = SpinLock::new(State { nodes: KVec::new(), sink: None }, &class::REGISTRY);

/// Announces a device: a node `name` appears in /dev, now or when devtmpfs starts.
pub fn add(name: &[u8], mode: u32, dev: DevNum, is_block: bool) -> Result {
    let node = DevNode { name: KBytes::try_from_slice(name)?, mode, dev, is_block };
    let copy = node.try_clone()?;
    let sink = {
        let mut s = STATE.lock();
        s.nodes.try_push(copy)?;
        s.sink.clone()
    };
    match sink {
        Some(s) => s.added(&node),
        None => Ok(()),
    }
}

/// Takes a node away.
pub fn remove(name: &[u8]) {
    let sink = {
        let mut s = STATE.lock();
        s.nodes.retain(|n| n.name.as_slice() != name);
        s.sink.clone()
    };
    if let Some(s) = sink {
        s.removed(name);
    }
}

/// Sets who shows the nodes; it is told of all there are.
pub fn set_sink(sink: KArc<dyn NodeSink>) -> Result {
    STATE.lock().sink = Some(sink.clone());
    let mut i = 0;
    loop {
        let node = match STATE.lock().nodes.get(i) {
            Some(n) => n.try_clone()?,
            None => return Ok(()),
        };
        sink.added(&node)?;
        i += 1;
    }
}
