//! Load that ends with the test that makes it, however that test ends.

use std::sync::atomic::{AtomicBool, Ordering};

/// Says when loops in other threads are to end: at [`Until::over`], or when this is dropped, as by a failed assertion.
///
/// `thread::scope` joins its threads while it unwinds. A flag that is set only at the end of the scope is then never
/// set, and the test hangs instead of failing. So the one that is dropped must be owned by the scope's own closure.
#[derive(Debug, Default)]
pub struct Load(AtomicBool);

/// Ends the loops of its [`Load`] when it is dropped.
#[derive(Debug)]
pub struct Until<'a>(&'a Load);

impl Load {
    /// Whether the loops are to go on.
    pub fn goes_on(&self) -> bool {
        !self.0.load(Ordering::Relaxed)
    }

    /// What ends the loops. To be made first in the scope's closure.
    pub fn until(&self) -> Until<'_> {
        Until(self)
    }
}

impl Until<'_> {
    /// Ends the loops now.
    pub fn over(self) {}
}

impl Drop for Until<'_> {
    fn drop(&mut self) {
        self.0.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn a_failed_assertion_ends_the_load() {
    let load = Load::default();
    let failed = std::panic::catch_unwind(|| {
        std::thread::scope(|scope| {
            let _until = load.until();
            scope.spawn(|| {
                while load.goes_on() {
                    std::thread::yield_now()
                }
            });
            std::panic::resume_unwind(Box::new("an assertion"));
        });
    });
    assert!(failed.is_err());
}
