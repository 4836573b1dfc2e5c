//! When the first ping comes, and from when its answer is waited for.

use super::*;

/// The first ping is far away, and a client that is pinged has next to no time to answer.
fn patient() -> Settings {
    Settings {
        ping_interval: Duration::from_secs(3600),
        ping_timeout: Duration::from_millis(300),
        ..Settings::default()
    }
}

/// Longer than the patience of [`patient`].
async fn later() {
    tokio::time::sleep(Duration::from_millis(600)).await;
}

#[tokio::test]
async fn a_polling_session_that_says_nothing_before_the_first_ping_lives() {
    let server = serve(patient()).await;
    let mut wire = Wire::open(server.addr).await;
    let sid = open(&mut wire).await;
    later().await;
    assert_eq!(post(server.addr, &sid, "40").await.text(), "ok");
    let joined = wire.get(&format!("{POLLING}&sid={sid}")).await;
    let packets: Vec<_> = joined.text().split('\x1e').map(|packet| &packet[..2]).collect();
    assert_eq!(packets, ["40", "42"], "no ping among what was waiting");
    later().await;
    echoes(&server, &mut wire, &sid, 1).await;
}

#[tokio::test]
async fn requests_behind_the_handshake_find_the_session_begun() {
    let server = serve(patient()).await;
    for _ in 0..20 {
        let mut wire = Wire::open(server.addr).await;
        let sid = open(&mut wire).await;
        assert_eq!(post(server.addr, &sid, "40").await.text(), "ok");
        let first = wire.get(&format!("{POLLING}&sid={sid}")).await;
        assert!(first.text().starts_with("40{"), "{}", first.text());
        assert!(!first.text().split('\x1e').any(|packet| packet == "2"), "{}", first.text());
    }
}

#[tokio::test]
async fn a_websocket_that_says_nothing_before_the_first_ping_lives() {
    let server = serve(patient()).await;
    let mut quiet = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    let mut hasty = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    // Its answer is ahead of the first ping.
    hasty.say("40").await;
    later().await;
    quiet.say("40").await;
    for mut ws in [quiet, hasty] {
        for start in ["0{", "40{", "42["] {
            let (_, text) = ws.receive().await;
            assert!(text.starts_with(start), "{text}");
        }
        ws.say("421[\"echo\",1]").await;
        assert_eq!(ws.receive().await.1, "431[1]");
    }
}

#[tokio::test]
async fn an_upgraded_session_is_pinged_after_the_interval_too() {
    let settings = Settings { ping_interval: Duration::from_millis(300), ..Settings::default() };
    let server = serve(settings).await;
    let mut wire = Wire::open(server.addr).await;
    let sid = open(&mut wire).await;
    let mut ws = Wire::websocket(server.addr, &format!("&sid={sid}")).await.expect("a WebSocket");
    ws.say("2probe").await;
    assert_eq!(ws.receive().await.1, "3probe");
    ws.say("5").await;
    for _ in 0..3 {
        assert_eq!(ws.receive().await.1, "2");
        ws.say("3").await;
    }
}

#[tokio::test]
async fn the_answer_is_waited_for_from_the_ping_on() {
    let settings = Settings {
        ping_interval: Duration::from_millis(600),
        ping_timeout: Duration::from_millis(500),
        ..Settings::default()
    };
    let start = tokio::time::Instant::now();
    let server = serve(settings).await;
    let ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    ws.closed().await;
    assert!(start.elapsed() >= Duration::from_millis(1100));
}
