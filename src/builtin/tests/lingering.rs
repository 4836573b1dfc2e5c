//! Sessions with tags, and a worker whose place another has taken.

use haft_worker::Incoming;
use haft_worker::protocol::MasterEnd;

use super::*;
use crate::route::{Slot, Tag, TagKey, Tagger};

const OWN: Tag = Tag { slot: Slot(3), generation: 2 };
const OTHER: Tag = Tag { slot: Slot(1), generation: 2 };

fn tagger() -> Tagger {
    Tagger::new(&TagKey::of_text("a key for tests"))
}

/// Tags of a worker without a master.
fn tags() -> Tags {
    let (_master, channel) = MasterEnd::pair().expect("a channel");
    let mut incoming = Incoming::over(channel).expect("a worker").tagging(tagger(), OWN);
    incoming.tags().expect("tags")
}

async fn tagging() -> Server {
    serve_tagging(Settings::default(), Some(tags())).await
}

#[tokio::test]
async fn a_tagged_session_works_over_polling_and_as_a_websocket() {
    let server = tagging().await;
    let (mut wire, sid) = connected(&server).await;
    let (base, tag) = tagger().read(sid.as_bytes()).expect("a tag");
    assert_eq!((base.len(), tag), (16, OWN));
    echoes(&server, &mut wire, &sid, 1).await;
    let query = format!("&sid={sid}");
    let mut ws = Wire::websocket(server.addr, &query).await.expect("a WebSocket");
    ws.say("2probe").await;
    assert_eq!(ws.receive().await.1, "3probe");
    ws.say("5").await;
    ws.say("422[\"echo\",2]").await;
    assert_eq!(ws.receive_until("432").await, "432[2]");
    let again = wire.get(&format!("{POLLING}&sid={sid}")).await;
    assert_eq!(again.text(), r#"{"code":3,"message":"Bad request"}"#, "known, and moved");
}

#[tokio::test]
async fn without_tags_an_id_is_the_engine_s_own() {
    let server = serve(Settings::default()).await;
    assert_eq!(open(&mut Wire::open(server.addr).await).await.len(), 16);
}

#[tokio::test]
async fn another_worker_s_session_is_unknown_and_its_connection_is_closed() {
    let server = tagging().await;
    let sid = tagger().append("AAAAAAAAAAAAAAAA", OTHER);
    for method in ["GET", "POST"] {
        let mut wire = Wire::open(server.addr).await;
        wire.ask(&format!("{method} {POLLING}&sid={sid}"), &[], "").await;
        let refused = wire.reply().await;
        assert_eq!((refused.status, refused.text()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
        assert_eq!(refused.header("connection"), Some("close"));
        assert!(wire.closed().await.is_empty());
    }
    assert_eq!(Wire::websocket(server.addr, &format!("&sid={sid}")).await.err().expect("refused").status, 400);
    let ended = tagger().append("AAAAAAAAAAAAAAAA", OWN);
    let refused = Wire::open(server.addr).await.get(&format!("{POLLING}&sid={ended}")).await;
    assert_eq!((refused.text(), refused.header("connection")), (r#"{"code":1,"message":"Session ID unknown"}"#, None));
}

#[tokio::test]
async fn sessions_go_on_until_the_last_has_ended_and_none_begins_on_a_kept_connection() {
    let server = tagging().await;
    let (mut wire, sid) = connected(&server).await;
    let mut ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    ws.say("40").await;
    ws.receive_until("42[\"hello\"").await;
    let mut idle = Wire::open(server.addr).await;
    assert_eq!(idle.get("/").await.status, 200);
    let mut late = Wire::open(server.addr).await;
    until("all are served", || server.app.connections() == 4).await;

    let lingering = tokio::spawn(server.app.linger());
    idle.closed().await;
    let late_sid = open(&mut late).await;
    for mut kept in [late, wire] {
        let refused = kept.get(POLLING).await;
        assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
        assert_eq!(refused.header("connection"), Some("close"), "what comes next is to come on a new one");
    }
    wire = Wire::open(server.addr).await;
    for id in 1..5 {
        echoes(&server, &mut wire, &sid, id).await;
        ws.say(&format!("42{id}[\"echo\",{id}]")).await;
        ws.receive_until(&format!("43{id}")).await;
    }
    ws.frame(0x88, b"").await;
    ws.closed().await;
    assert_eq!(post(server.addr, &late_sid, "1").await.text(), "ok");
    echoes(&server, &mut wire, &sid, 5).await;
    assert!(!lingering.is_finished(), "one session is left");
    assert_eq!(post(server.addr, &sid, "1").await.text(), "ok");
    soon("it is idle", lingering).await.expect("task");
    drop(wire);
    soon("the end", server.close(Duration::ZERO)).await.expect("closed");
}

#[tokio::test]
async fn a_session_between_two_polls_counts_until_its_heartbeat_fails() {
    let settings = Settings {
        ping_interval: Duration::from_millis(500),
        ping_timeout: Duration::from_millis(1000),
        ..Settings::default()
    };
    let server = serve_tagging(settings.clone(), Some(tags())).await;
    let start = tokio::time::Instant::now();
    let mut wire = Wire::open(server.addr).await;
    wire.ask(&format!("GET {POLLING}"), &["connection: close"], "").await;
    assert_eq!(wire.reply().await.status, 200);
    wire.closed().await;
    until("no connection is left", || server.app.connections() == 0).await;
    soon("it is idle", server.app.linger()).await;
    assert!(start.elapsed() >= settings.ping_interval + settings.ping_timeout, "before that it may still come back");
}

#[tokio::test]
async fn a_worker_without_sessions_is_idle_at_once_and_can_then_end() {
    let server = tagging().await;
    let (wire, sid) = connected(&server).await;
    assert_eq!(post(server.addr, &sid, "1").await.text(), "ok");
    soon("it is idle", server.app.linger()).await;
    drop(wire);
    soon("the end", server.close(Duration::from_secs(3600))).await.expect("closed");
    assert_eq!(server.app.connections(), 0);
}

/// How often a session may be polled before its goodbye arrives.
const MAX_ROUNDS: usize = 1000;

#[tokio::test]
async fn goodbyes_are_said_one_by_one_and_who_has_heard_none_goes_on() {
    let server = tagging().await;
    let mut sids = Vec::new();
    // Between two polls each, without a connection.
    for _ in 0..3 {
        let (mut wire, sid) = connected(&server).await;
        echoes(&server, &mut wire, &sid, 1).await;
        sids.push(sid);
    }
    until("no connection is left", || server.app.connections() == 0).await;
    let lingering = tokio::spawn(server.app.linger());
    // The first gets its goodbye immediately, the others never within this test.
    let (drain, _master) = orders(|master| assert!(master.send_drain(3 * 3_600_000).is_ok())).await;
    let goodbye = tokio::spawn(server.app.say_goodbye(drain));
    let mut going_on = sids.clone();
    // The round with the goodbye, and one more, in which the others go on.
    for _ in 0..MAX_ROUNDS {
        let before = going_on.len();
        let mut left = Vec::new();
        for sid in going_on {
            let mut wire = Wire::open(server.addr).await;
            wire.ask(&format!("GET {POLLING}&sid={sid}"), &[], "").await;
            // The goodbye comes before an answer.
            let sent = post(server.addr, &sid, "42[\"echo\",\"still here\"]").await;
            let received = wire.reply().await.text().to_owned();
            if !received.ends_with('1') {
                assert!(sent.text() == "ok" && received.contains("still here"), "{received}");
                left.push(sid);
            }
        }
        going_on = left;
        if before < sids.len() {
            break;
        }
    }
    assert_eq!(going_on.len(), 2);
    assert!(!lingering.is_finished() && !goodbye.is_finished());
    goodbye.abort();
    let (drain, _master) = orders(|master| assert!(master.send_drain(0).is_ok())).await;
    let mut goodbye = tokio::spawn(server.app.say_goodbye(drain));
    for sid in &sids {
        let last = Wire::open(server.addr).await.get(&format!("{POLLING}&sid={sid}")).await;
        assert!(last.text().ends_with('1'), "{}", last.text());
        let crossed = post(server.addr, sid, "42[\"echo\",\"too late\"]").await;
        assert_eq!((crossed.status, crossed.text(), crossed.header("connection")), (200, "ok", Some("close")));
    }
    soon("it is idle", lingering).await.expect("task");
    assert!(!goodbye.is_finished());
    goodbye.abort();
    assert!((&mut goodbye).await.expect_err("it never ends by itself").is_cancelled());
}

#[tokio::test]
async fn who_stays_to_the_last_is_told_to_go_when_the_time_is_over() {
    let server = tagging().await;
    let (mut wire, sid) = connected(&server).await;
    echoes(&server, &mut wire, &sid, 1).await;
    let lingering = tokio::spawn(server.app.linger());
    wire.ask(&format!("GET {POLLING}&sid={sid}"), &[], "").await;
    assert_eq!(post(server.addr, &sid, "42[\"echo\",2]").await.text(), "ok");
    assert!(wire.reply().await.text().contains("[\"echo\",2]"));
    assert!(!lingering.is_finished());
    let closing = server.close(Duration::ZERO);
    let last = wire.get(&format!("{POLLING}&sid={sid}")).await;
    assert!(last.text().ends_with('1'), "{}", last.text());
    assert_eq!(last.header("connection"), Some("close"));
    soon("the end", closing).await.expect("task");
    soon("no session is left", lingering).await.expect("task");
}
