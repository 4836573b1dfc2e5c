use super::*;

const AT_ONCE: Duration = Duration::ZERO;

#[tokio::test]
async fn with_nothing_open_the_end_is_at_once() {
    let server = serve(Settings::default()).await;
    soon("the end", server.close(Duration::from_secs(3600))).await.expect("closed");
}

#[tokio::test]
async fn when_the_last_session_has_ended_by_itself_the_end_is_at_once() {
    let server = serve(Settings::default()).await;
    let mut sockets = Vec::new();
    for _ in 0..3 {
        let mut ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
        ws.receive_until("0{").await;
        sockets.push(ws);
    }
    let (wire, sid) = connected(&server).await;
    // The turns of three of the four are hours away.
    let closing = server.close(Duration::from_secs(24 * 3600));
    until("the end has begun", || server.app.registry.draining()).await;
    assert_eq!(post(server.addr, &sid, "1").await.text(), "ok");
    drop((wire, sockets));
    soon("the end", closing).await.expect("closed");
    assert_eq!(server.app.connections(), 0);
}

#[tokio::test]
async fn a_pending_poll_is_answered_with_a_close_and_its_connection_ends() {
    let server = serve(Settings::default()).await;
    let (mut wire, sid) = connected(&server).await;
    let mut posts = Wire::open(server.addr).await;
    posts.ask(&format!("POST {POLLING}&sid={sid}"), &[], "421[\"join\",{\"room\":\"r\"}]").await;
    assert_eq!(posts.reply().await.text(), "ok");
    poll_for(&mut wire, &sid, "\"members\",{").await;
    echoes(&server, &mut wire, &sid, 2).await;
    let idle = {
        let mut wire = Wire::open(server.addr).await;
        wire.get("/").await;
        wire
    };
    wire.ask(&format!("GET {POLLING}&sid={sid}"), &[], "").await;
    until("three connections are counted", || server.app.connections() == 3).await;
    let closing = server.close(AT_ONCE);
    let last = wire.reply().await;
    assert_eq!((last.status, last.text(), last.header("connection")), (200, "1", Some("close")));
    for wire in [wire, posts, idle] {
        assert!(wire.closed().await.is_empty());
    }
    soon("the end", closing).await.expect("closed");
    assert_eq!(server.app.connections(), 0);
}

/// On a kept connection, on a new one, and however much later: the client gets its goodbye, and no error.
#[tokio::test]
async fn a_message_that_crosses_its_session_s_goodbye_is_answered_and_counted() {
    let server = serve(Settings::default()).await;
    let lost = || server.scoreboard.get(Field::LostGoodbye);
    let (mut wire, sid) = connected(&server).await;
    let mut kept = Wire::open(server.addr).await;
    kept.ask(&format!("POST {POLLING}&sid={sid}"), &[], "3").await;
    assert_eq!(kept.reply().await.text(), "ok");
    wire.ask(&format!("GET {POLLING}&sid={sid}"), &[], "").await;
    let mut ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    ws.receive_until("0{").await;
    // The polling session gets its goodbye immediately. The turn of the WebSocket is an hour away, so the worker does
    // not end.
    let closing = server.close(Duration::from_secs(7200));
    assert_eq!(wire.reply().await.text(), "1");
    kept.ask(&format!("POST {POLLING}&sid={sid}"), &[], "3\x1e421[\"echo\",1]\x1ebAQ==").await;
    assert_eq!(kept.reply().await.text(), "ok");
    kept.closed().await;
    assert_eq!((lost(), post(server.addr, &sid, "42[]").await.text()), (Some(2), "ok"));
    assert_eq!(Wire::open(server.addr).await.get(&format!("{POLLING}&sid={sid}")).await.text(), "1");
    assert_eq!((lost(), server.scoreboard.get(Field::RefusedSession)), (Some(3), Some(0)));
    closing.abort();
}

#[tokio::test]
async fn a_client_that_polls_on_new_connections_is_closed_with_what_it_hears_next() {
    let server = serve(Settings::default()).await;
    let mut posts = Wire::open(server.addr).await;
    let mut polls = Vec::new();
    for _ in 0..2 {
        let (mut wire, sid) = connected(&server).await;
        echoes(&server, &mut wire, &sid, 1).await;
        posts.ask(&format!("POST {POLLING}&sid={sid}"), &[], "3").await;
        assert_eq!(posts.reply().await.text(), "ok");
        wire.ask(&format!("GET {POLLING}&sid={sid}"), &["connection: close"], "").await;
        polls.push((wire, sid));
    }
    let [(mut ann, ann_sid), (mut bob, bob_sid)] = polls.try_into().ok().expect("two");
    assert_eq!(posts.get("/haft/page.json").await.status, 200, "so the polls before it are pending");
    // One gets its goodbye immediately; the turn of the other is an hour away.
    let closing = server.close(Duration::from_secs(7200));
    let (closed, mut other, sid) = tokio::select! {
        closed = ann.reply() => (closed, bob, bob_sid),
        closed = bob.reply() => (closed, ann, ann_sid),
    };
    assert_eq!(closed.text(), "1");
    posts.ask(&format!("POST {POLLING}&sid={sid}"), &[], "429[\"echo\",9]").await;
    assert_eq!(posts.reply().await.text(), "ok");
    let received = other.reply().await;
    assert_eq!(received.text(), "439[9]\x1e42[\"echo\",9]\x1e1");
    soon("its own connection ends too", posts.closed()).await;
    closing.abort();
}

#[tokio::test]
async fn a_session_between_two_polls_is_closed_by_the_next_with_all_it_had_to_hear() {
    let server = serve(Settings::default()).await;
    let (mut wire, sid) = connected(&server).await;
    assert_eq!(post(server.addr, &sid, "421[\"echo\",\"last words\"]").await.text(), "ok");
    let closing = server.close(AT_ONCE);
    until("the end has begun", || !closing.is_finished() && server.app.registry.draining()).await;
    let mut received = wire.get(&format!("{POLLING}&sid={sid}")).await;
    let mut packets = received.text().to_owned();
    if !packets.ends_with("\x1e1") {
        received = wire.get(&format!("{POLLING}&sid={sid}")).await;
        packets = format!("{packets}\x1e{}", received.text());
    }
    assert!(packets.contains("431[\"last words\"]") && packets.ends_with("\x1e1"), "{packets:?}");
    assert_eq!(received.header("connection"), Some("close"));
    wire.closed().await;
    soon("the end", closing).await.expect("closed");
}

#[tokio::test]
async fn a_websocket_gets_what_is_queued_then_a_close_frame() {
    let server = serve(Settings::default()).await;
    let mut ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    ws.say("40").await;
    ws.receive_until("42[\"hello\"").await;
    let message = b"\x81\x8d\0\0\0\x00421[\"echo\",1]";
    let (now, later) = message.split_at(11);
    ws.send(now).await;
    let closing = server.close(AT_ONCE);
    until("the end has begun", || server.app.registry.draining()).await;
    ws.send(later).await;
    assert_eq!(ws.receive_until("431").await, "431[1]", "half a message is waited for");
    assert_eq!(ws.receive_until("42").await, "42[\"echo\",1]");
    assert_eq!(ws.receive().await.0, 0x88);
    ws.closed().await;
    soon("the end", closing).await.expect("closed");
}

#[tokio::test]
async fn no_session_begins_once_the_end_has_begun_but_a_fresh_connection_is_answered() {
    let server = serve(Settings::default()).await;
    let mut fresh = Wire::open(server.addr).await;
    until("it is served", || server.app.connections() == 1).await;
    let closing = server.close(AT_ONCE);
    until("the end has begun", || server.app.registry.draining()).await;
    let refused = fresh.get(POLLING).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.header("connection"), Some("close"));
    fresh.closed().await;
    soon("the end", closing).await.expect("closed");
    let refused = Wire::websocket(server.addr, "").await.err().expect("refused");
    assert_eq!(refused.status, 503);
}

#[tokio::test]
async fn who_does_not_close_is_cut_off() {
    let server = serve(Settings::default()).await;
    // Three that never say another word: one idle, one between two polls, one in the middle of a WebSocket frame.
    let silent = Wire::open(server.addr).await;
    let (polling, _) = connected(&server).await;
    let mut ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    ws.receive_until("0{").await;
    ws.send(b"\x81\x85\0").await;
    until("all three are served", || server.app.connections() == 3).await;
    let closing = server.close(AT_ONCE);
    for wire in [silent, polling, ws] {
        wire.closed().await;
    }
    soon("the end", closing).await.expect("closed");
}
