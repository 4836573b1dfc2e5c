//! The numbers by which everything else is called.

/// A worker's number, which no other worker of this master has or had. Counted from 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct WorkerId(pub u64);
