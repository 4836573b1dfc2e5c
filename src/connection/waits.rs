//! How many connections of each client wait.

use std::cell::RefCell;
use std::collections::HashMap;
use std::rc::Rc;

use crate::route::Source;

/// How many connections of each source are counted now. It is as large as there are sources that wait.
#[derive(Debug, Clone, Default)]
pub struct SourceCounts(Rc<RefCell<HashMap<Source, usize>>>);

impl SourceCounts {
    /// How many of this source.
    pub fn of(&self, source: Source) -> usize {
        self.0.borrow().get(&source).copied().unwrap_or(0)
    }
}

/// Counts a connection as one that waits, as long as this lives.
#[derive(Debug)]
pub struct Waits {
    counts: SourceCounts,
    source: Source,
}

impl Waits {
    /// One more of this source.
    pub fn new(counts: &SourceCounts, source: Source) -> Self {
        *counts.0.borrow_mut().entry(source).or_default() += 1;
        Self { counts: counts.clone(), source }
    }

    /// How many of its source are counted, it among them.
    pub fn all(&self) -> usize {
        self.counts.of(self.source)
    }
}

impl Drop for Waits {
    fn drop(&mut self) {
        let mut counts = self.counts.0.borrow_mut();
        match counts.get_mut(&self.source) {
            Some(count) if *count > 1 => *count -= 1,
            _ => drop(counts.remove(&self.source)),
        }
    }
}
