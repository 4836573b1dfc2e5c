//! What a worker needs: the library for Rust programs, and the built-in Socket.IO worker.
pub mod builtin;
