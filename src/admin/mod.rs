//! What people and machines may see of a running master: metrics, status, health.
