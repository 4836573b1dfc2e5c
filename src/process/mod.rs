//! Processes: what to run for a worker, starting it, its output, and the guardian that ends the workers of a master that
//! has died.

pub mod crew;
pub mod env_file;
pub mod guardian;
pub mod lines;
pub mod output;
pub mod program;
pub mod remains;
