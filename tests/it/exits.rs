//! Why workers ended: logged, counted by reason, and shown with the time.

use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::json;

use crate::harness::{Setup, end_worker};

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
