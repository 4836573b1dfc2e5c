//! Why workers ended: told in the log, counted by reason, and shown with the time.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use serde_json::json;

use crate::harness::{Client, Setup, addresses_of, end_worker, signal};

fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("a time after 1970").as_secs()
}

#[test]
fn codes_and_signals_are_told_apart_counted_and_shown_with_the_time_of_the_last() {
    let start = now();
    let mut haft = Setup::new(&["-w", "2"]).mode("fated").start_all();
    for (deaths, (how, reason)) in (1..).zip([
        ("/exit/7", "exit code 7"),
        ("/signal/SIGUSR1", "signal SIGUSR1"),
        ("/exit/7", "exit code 7"),
        ("/exit/0", "exit code 0"),
        ("/signal/SIGKILL", "signal SIGKILL"),
    ]) {
        let before = now();
        end_worker(&mut haft, how, deaths);
        let log = haft.log().lines_with(&format!("worker died: {reason}; replacing it"), 1);
        assert!(log[0].contains("slot=0"), "{log:?}");
        let last = &haft.status().0["slots"][0]["last_exit"];
        assert_eq!(last["description"], reason);
        assert!((before..=now()).contains(&last["unix_time"].as_u64().expect("a time")), "{last} since {start}");
    }
    let status = haft.status();
    let counted = json!({"exit code 7": 2, "signal SIGUSR1": 1, "exit code 0": 1, "signal SIGKILL": 1});
    assert_eq!(status.0["slots"][0]["deaths_by_reason"], counted);
    assert_eq!(
        (&status.0["slots"][1]["deaths_by_reason"], &status.0["slots"][1]["last_exit"]),
        (&json!({}), &json!(null))
    );
    let (_, metrics) = haft.page("/metrics").expect("metrics");
    for line in [
        "haft_worker_exits_total{slot=\"0\",reason=\"exit code 7\"} 2",
        "haft_worker_exits_total{slot=\"0\",reason=\"signal SIGUSR1\"} 1",
        "haft_workers_respawned_total{slot=\"0\"} 5",
    ] {
        assert!(metrics.contains(line), "{line}: {metrics}");
    }
    haft.stop();
}

/// A control group for memory below the one that this test is in; gone when this is dropped.
struct MemoryGroup(PathBuf);

impl MemoryGroup {
    /// With this limit, in bytes. An error says why there can be none.
    fn new(limit: u64) -> Result<Self, String> {
        let groups = fs::read_to_string("/proc/self/cgroup").map_err(|error| error.to_string())?;
        let path = |controller: &str| {
            let fields = groups.lines().map(|line| line.splitn(3, ':').collect::<Vec<_>>());
            fields
                .filter(|fields| fields[1].split(',').any(|it| it == controller))
                .map(|fields| fields[2].to_owned())
                .next()
        };
        let name = format!("haft-test-{}", std::process::id());
        let (folder, file) = match (path("memory"), path("")) {
            (Some(group), _) => (format!("/sys/fs/cgroup/memory{group}/{name}"), "memory.limit_in_bytes"),
            // In version 2 a group with processes cannot have others with limits: it goes beside it.
            (None, Some(group)) => (format!("/sys/fs/cgroup{group}/../{name}"), "memory.max"),
            (None, None) => return Err("there are no control groups for memory".to_owned()),
        };
        let failed = |what: &Path, error: std::io::Error| format!("{}: {error}", what.display());
        let folder = PathBuf::from(folder);
        fs::create_dir(&folder).map_err(|error| failed(&folder, error))?;
        let group = Self(folder);
        let file = group.0.join(file);
        fs::write(&file, limit.to_string()).map_err(|error| failed(&file, error))?;
        // Where there is swap, a group would go there first; where there is none, there may be no such file.
        fs::write(group.0.join("memory.swap.max"), "0").ok();
        fs::write(group.0.join("memory.swappiness"), "0").ok();
        Ok(group)
    }

    fn processes(&self) -> PathBuf {
        self.0.join("cgroup.procs")
    }
}

impl Drop for MemoryGroup {
    fn drop(&mut self) {
        // A process that has just ended is counted for a moment more. This may run in a failing test: no panic here.
        let deadline = Instant::now() + Duration::from_secs(5);
        while fs::remove_dir(&self.0).is_err() && Instant::now() < deadline {
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_worker_that_the_kernel_kills_for_want_of_memory_is_told_from_one_that_somebody_else_killed() {
    let group = match MemoryGroup::new(160 << 20) {
        Ok(group) => group,
        Err(why) => return eprintln!("skipped: no control group can be made here: {why}"),
    };
    let join = format!("echo $$ > '{}'", group.processes().display());
    let mut haft = Setup::new(&["-w", "2", "--hold-timeout", "1h"]).mode("fated").after(&join).start_all();
    let mut other = Client::asking(&haft, addresses_of(1, 2).next().expect("an address"));
    let before = other.receive().expect("an answer").pid;

    end_worker(&mut haft, "/grow", 1);
    haft.log().line_with("worker died: signal SIGKILL (out of memory); replacing it");
    signal(haft.worker(0), Signal::SIGKILL);
    let status = haft.wait("replaced", |status| status.all_ready() && status.of_slot(0, "respawned") == 2);
    let counted = json!({"signal SIGKILL (out of memory)": 1, "signal SIGKILL": 1});
    assert_eq!(status.0["slots"][0]["deaths_by_reason"], counted);
    assert_eq!(status.0["slots"][0]["last_exit"]["description"], "signal SIGKILL");
    assert_eq!(other.ask("/").expect("the others live").pid, before);
    haft.stop();
    let folder = group.0.clone();
    drop(group);
    assert!(!folder.exists(), "the group is left");
}
