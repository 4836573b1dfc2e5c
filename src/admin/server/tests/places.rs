//! Clients that would hold the pages.

use super::*;

/// As many as a large host may have, and no time limit helps.
async fn crowd(sent: &str, limits: AdminLimits, snapshot: Snapshot, closes_half: bool) {
    let server = Server::start(
        AdminLimits { head_time: NEVER, connection_time: NEVER, linger_time: NEVER, ..limits },
        master(snapshot),
    );
    let mut held = Vec::new();
    for _ in 0..120 {
        let mut stream = server.connect().await;
        stream.write_all(sent.as_bytes()).await.ok();
        if closes_half {
            stream.shutdown().await.ok();
        }
        held.push(stream);
    }
    let_others_run().await;
    for _ in 0..3 {
        assert_eq!(server.ask(&get("/healthz")).await.status, 200, "{sent}");
    }
    let metrics = server.ask(&get("/metrics")).await.body;
    // One that has closed its half is through when it is answered.
    assert!(
        closes_half || !metrics.contains("haft_admin_connections_closed_total{reason=\"pushed_out\"} 0"),
        "{sent}: {metrics}"
    );
}

#[tokio::test]
async fn clients_that_do_nothing_hold_no_page() {
    for sent in
        ["", "GET /healthz HTTP/1.1\r\nHo", &get("/healthz"), "POST /reload HTTP/1.1\r\nContent-Length: 9\r\n\r\n"]
    {
        crowd(sent, AdminLimits::DEFAULT, example::snapshot(), false).await;
    }
    crowd(&get("/healthz"), AdminLimits::DEFAULT, example::snapshot(), true).await;
    let mut huge = example::snapshot();
    huge.listen = vec!["x".repeat(1 << 20)];
    crowd(&get("/status"), AdminLimits::DEFAULT, huge, false).await;
}
