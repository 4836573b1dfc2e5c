//! Node programs as workers: the wire of Node's cluster, the cluster primary over it, the link to one worker, and the
//! preload that runs inside unmodified programs.

pub(crate) mod link;
pub(crate) mod named;
pub mod paths;
pub mod preload;
pub(crate) mod primary;
pub(crate) mod refused;
pub mod wire;
