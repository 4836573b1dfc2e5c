//! The real binary with real worker processes: each condition is provoked, each outcome is read from outside.
//!
//! Tests run in parallel and share nothing: each has its own master, ports, folder and workers. Each wait is for a state,
//! with a deadline. Whenever the status is read, `accepted = delivered + refused + in flight` is asserted.

mod harness;

mod alarms;
mod balance;
mod busy_poll;
mod care;
mod circles;
mod closing;
mod command_line;
mod commands;
mod confined;
mod death;
mod docs;
mod drained;
mod environment;
mod exhaustion;
mod exits;
mod figures;
mod fuzz;
mod guardian;
mod hang;
mod health;
mod hold;
mod hostile;
mod hostile_node;
mod impls;
mod kernel;
mod kernel_hostile;
mod kernel_promises;
mod kernel_queues;
mod kernel_slots;
mod leaks;
mod library;
mod limits;
mod lingering;
mod listen_fds;
mod listening;
mod log_file;
mod manager;
mod mix;
mod orphans;
mod output;
mod pressure;
mod promises;
mod refused;
mod reload;
mod reread;
mod rights;
mod scale;
mod signals;
mod starving;
mod stickiness;
mod stopping;
mod terminal;
mod tidy;
mod trace;
mod user;
