//! Starting haft, speaking to it as its clients do, and watching it as its operator does.

mod client;
mod load;
mod log;
mod proc;
mod process;
mod stalled;
mod status;

pub use client::{Answer, Client, addresses_of, order_of, slot_of};
pub use load::Load;
pub use log::Log;
pub use proc::{children, cpu_time, descriptors, is_running, is_sleeping, is_stopped, signal};
pub use process::{Haft, Setup, own_address};
pub use stalled::full_pipe;
pub use status::Status;

use std::sync::Mutex;
use std::time::{Duration, Instant};

/// Held by a test that takes files from all processes without CAP_SYS_ADMIN, and by those that run such processes.
pub static NEEDS_FILES: Mutex<()> = Mutex::new(());

/// How long a state is waited for. Far more than it ever takes: it bounds a failure, not a success.
pub const DEADLINE: Duration = Duration::from_secs(60);
/// How often a state that cannot announce itself is looked at.
const LOOK_AGAIN: Duration = Duration::from_millis(5);

/// A user that nothing else runs as, not even another run of the tests.
pub fn user_of_this_run() -> u32 {
    100_000 + std::process::id()
}

/// Waits until `look` yields something; panics at the deadline, naming `what`.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let deadline = Instant::now() + DEADLINE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < deadline, "waited in vain: {what}");
        std::thread::sleep(LOOK_AGAIN);
    }
}

/// Asks the `fated` worker of slot 0, of two, to end, and waits until it is replaced.
pub fn end_worker(haft: &mut Haft, how: &str, deaths: u64) {
    let from = addresses_of(0, 2).next().expect("an address");
    let mut client = Client::connect_from(from, haft.address()).expect("connect");
    client.send(how).expect("send");
    client.wait_for_end().ok();
    haft.wait("replaced", |status| status.all_ready() && status.of_slot(0, "respawned") == deaths);
}
