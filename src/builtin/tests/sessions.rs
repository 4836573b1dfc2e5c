use super::*;

fn short_upgrade() -> Settings {
    Settings { upgrade_timeout: Duration::from_millis(150), ..Settings::default() }
}

#[tokio::test]
async fn a_polling_session_lives_on_any_connection() {
    let server = serve(Settings::default()).await;
    let (mut wire, sid) = connected(&server).await;
    echoes(&server, &mut wire, &sid, 7).await;
    echoes(&server, &mut Wire::open(server.addr).await, &sid, 8).await;
}

#[tokio::test]
async fn an_upgrade_moves_the_session_and_loses_nothing() {
    let server = serve(Settings::default()).await;
    let (mut wire, sid) = connected(&server).await;
    echoes(&server, &mut wire, &sid, 9).await;
    let query = format!("&sid={sid}");
    wire.ask(&format!("GET {POLLING}&sid={sid}"), &[], "").await;
    let mut ws = Wire::websocket(server.addr, &query).await.expect("a WebSocket");
    ws.say("2probe").await;
    assert_eq!(ws.receive().await, (0x81, "3probe".to_owned()));
    assert_eq!(wire.reply().await.text(), "6", "the pending poll is released");
    // What the client sends together with the upgrade packet must not be lost.
    ws.frame(0x89, b"are you there").await;
    ws.say("5").await;
    ws.say("421[\"echo\",\"now\"]").await;
    assert_eq!(ws.receive().await, (0x8a, "are you there".to_owned()), "a ping amid the probe is answered");
    assert_eq!(ws.receive_until("431").await, "431[\"now\"]", "and no second 3probe comes before it");

    let again = wire.get(&format!("{POLLING}&sid={sid}")).await;
    assert_eq!((again.status, again.text()), (400, r#"{"code":3,"message":"Bad request"}"#));
    let mut second = Wire::websocket(server.addr, &format!("&sid={sid}")).await.expect("accepted, as engine.io does");
    assert_eq!(second.receive().await, (0x88, String::new()), "and closed: one WebSocket is enough");
}

#[tokio::test]
async fn a_client_that_never_completes_its_upgrade_is_cut_off_and_its_session_goes_on() {
    for probes in [false, true] {
        let server = serve(short_upgrade()).await;
        let (mut wire, sid) = connected(&server).await;
        let mut ws = Wire::websocket(server.addr, &format!("&sid={sid}")).await.expect("a WebSocket");
        if probes {
            ws.say("2probe").await;
            assert_eq!(ws.receive().await.1, "3probe");
        }
        assert_eq!(ws.receive().await, (0x88, String::new()), "a close frame, without the client's doing");
        ws.frame(0x88, b"").await;
        ws.closed().await;
        echoes(&server, &mut wire, &sid, 1).await;
        let mut ws = Wire::websocket(server.addr, &format!("&sid={sid}")).await.expect("it may try again");
        ws.say("2probe").await;
        assert_eq!(ws.receive().await.1, "3probe");
        ws.say("5").await;
        ws.say("429[\"echo\",9]").await;
        assert_eq!(ws.receive_until("439").await, "439[9]");
    }
}

#[tokio::test]
async fn a_failed_probe_costs_the_websocket_only() {
    let server = serve(Settings::default()).await;
    let (mut wire, sid) = connected(&server).await;
    let frames: [(u8, &[u8]); 5] =
        [(0x81, b"4no probe"), (0x82, b"2probe"), (0x01, b"2probe"), (0x88, b"\x03\xe8"), (0x81, b"5")];
    for (first, payload) in frames {
        let mut ws = Wire::websocket(server.addr, &format!("&sid={sid}")).await.expect("a WebSocket");
        ws.frame(first, payload).await;
        assert_eq!(ws.receive().await.0, 0x88, "{first:#x}");
    }
    let mut ws = Wire::websocket(server.addr, &format!("&sid={sid}")).await.expect("a WebSocket");
    ws.say("2probe").await;
    assert_eq!(ws.receive().await.1, "3probe");
    let mut second = Wire::websocket(server.addr, &format!("&sid={sid}")).await.expect("a second WebSocket");
    assert_eq!(second.receive().await.0, 0x88, "one attempt at a time");
    drop(ws);
    echoes(&server, &mut wire, &sid, 1).await;
}

#[tokio::test]
async fn an_abandoned_poll_ends_its_session() {
    let server = serve(Settings::default()).await;
    let (mut ann, ann_sid) = connected(&server).await;
    let (mut bob, bob_sid) = connected(&server).await;
    for sid in [&ann_sid, &bob_sid] {
        assert_eq!(post(server.addr, sid, "421[\"join\",{\"room\":\"r\"}]").await.text(), "ok");
    }
    poll_for(&mut bob, &bob_sid, r#"["members",{"room":"r","members":2}]"#).await;
    echoes(&server, &mut bob, &bob_sid, 5).await;
    bob.ask(&format!("GET {POLLING}&sid={bob_sid}"), &[], "").await;
    // What was sent before this is answered has been read before it: the poll is pending now.
    assert_eq!(post(server.addr, &ann_sid, "3").await.text(), "ok");
    drop(bob);
    poll_for(&mut ann, &ann_sid, r#"["members",{"room":"r","members":1}]"#).await;
    let gone = post(server.addr, &bob_sid, "3").await;
    assert_eq!(gone.text(), r#"{"code":1,"message":"Session ID unknown"}"#);
}

#[tokio::test]
async fn a_message_above_the_limit_ends_the_session_that_sent_it() {
    let server = serve(Settings { max_payload: 1000, ..Settings::default() }).await;
    let (_wire, sid) = connected(&server).await;
    assert_eq!(post(server.addr, &sid, &"4".repeat(1001)).await.status, 413);
    let mut ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    assert!(ws.receive_until("0{").await.contains(r#""maxPayload":1000"#));
    let mut frame = vec![0x81, 0xfe, 0x03, 0xe9, 0, 0, 0, 0];
    frame.extend([b'4'; 1001]);
    ws.send(&frame).await;
    ws.closed().await;
    let (mut wire, sid) = connected(&server).await;
    echoes(&server, &mut wire, &sid, 1).await;
}

#[tokio::test]
async fn the_heartbeat_is_as_configured() {
    let settings = Settings {
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(100),
        ..Settings::default()
    };
    let server = serve(settings).await;
    let mut ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    let open = ws.receive_until("0{").await;
    assert!(open.contains(r#""pingInterval":50,"pingTimeout":100"#), "{open}");
    for _ in 0..3 {
        ws.receive_until("2").await;
        ws.say("3").await;
    }
    ws.receive_until("2").await;
    ws.closed().await;
}

#[tokio::test]
async fn the_chat_refuses_in_words_and_survives_nonsense() {
    let server = serve(Settings::default()).await;
    let mut ws = Wire::websocket(server.addr, "").await.expect("a WebSocket");
    ws.say("40").await;
    ws.receive_until("42[\"hello\"").await;
    for (id, event, error) in [
        (1, r#"["join",{"room":""}]"#, "1 to 64 characters"),
        (2, r#"["join"]"#, "join takes"),
        (3, r#"["message",{"room":"r","text":"x"}]"#, "not in this room"),
        (4, r#"["message",[[[]]]]"#, "message takes"),
        (5, r#"["leave",7]"#, "leave takes"),
    ] {
        ws.say(&format!("42{id}{event}")).await;
        let answer = ws.receive_until(&format!("43{id}")).await;
        assert!(answer.contains(r#""ok":false"#) && answer.contains(error), "{answer}");
    }
    ws.say(r#"42["unheard of",{}]"#).await;
    ws.say(r#"42["join",null]"#).await;
    ws.say(r#"426["join",{"room":"r","name":"Ann"}]"#).await;
    assert_eq!(ws.receive_until("436").await, r#"436[{"ok":true,"room":"r","name":"Ann","members":1}]"#);
    ws.say(r#"427["echo",{"_placeholder":true,"num":3},1]"#).await;
    ws.receive_until("437").await;
    for nonsense in ["4", "4x", "42", "42{", "451-[\"echo\"]4", "459999999-[1]", "42[]", "43", "44", "4999"] {
        let mut bad = Wire::websocket(server.addr, "").await.expect("a WebSocket");
        bad.say("40").await;
        bad.receive_until("42[\"hello\"").await;
        bad.say(nonsense).await;
        bad.frame(0x88, b"").await;
        bad.closed().await;
    }
    ws.say(r#"428["message",{"room":"r","text":"still here"}]"#).await;
    assert!(ws.receive_until("438").await.contains(r#""ok":true"#));
}

#[tokio::test]
async fn an_answer_that_is_not_read_is_counted_until_its_connection_is_cut_off() {
    let beat = Duration::from_secs(2);
    let server = serve(Settings { ping_interval: beat, ping_timeout: beat, ..Settings::default() }).await;
    let (_wire, sid) = connected(&server).await;
    let long = "x".repeat(200_000);
    assert_eq!(post(server.addr, &sid, &format!("42[\"echo\",\"{long}\"]")).await.text(), "ok");
    let (mut deaf, stream) = tokio::io::duplex(1024);
    tokio::spawn(server.app.serve_connection(stream, EndAddr::from_ip(server.addr)));
    let poll = format!("GET {POLLING}&sid={sid} HTTP/1.1\r\nhost: a\r\n\r\n");
    tokio::io::AsyncWriteExt::write_all(&mut deaf, poll.as_bytes()).await.expect("write");
    until("it is answered", || server.app.connections() == 2).await;
    until("all of it is counted", || server.app.budget.held() > 150_000).await;
    let stalled = || server.scoreboard.get(Field::ClosedMemoryStalled);
    until("the connection is cut off", || stalled() == Some(1)).await;
    until("and holds nothing", || server.app.budget.held() == 0).await;
    let mut received = Vec::new();
    deaf.read_to_end(&mut received).await.expect("what was written before");
    assert!(received.starts_with(b"HTTP/1.1 200") && received.len() < 100_000, "{}", received.len());
}

#[tokio::test(start_paused = true)]
async fn a_websocket_that_joins_no_namespace_is_closed() {
    let hour = Duration::from_secs(3600);
    let settings = Settings { ping_interval: hour, ..Settings::default() };
    let app = App::new(&settings, IDENTITY, None, Scoreboard::default(), Default::default()).expect("settings");
    let (mut client, stream) = tokio::io::duplex(4096);
    tokio::spawn(app.serve_connection(stream, EndAddr::Unix));
    let headers = "host: a\r\nconnection: upgrade\r\nupgrade: websocket\r\nsec-websocket-version: 13\r\n\
                   sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    let request = format!("GET {} HTTP/1.1\r\n{headers}", POLLING.replace("polling", "websocket"));
    tokio::io::AsyncWriteExt::write_all(&mut client, request.as_bytes()).await.expect("write");
    let (start, mut received) = (tokio::time::Instant::now(), Vec::new());
    client.read_to_end(&mut received).await.expect("read");
    assert!(received.starts_with(b"HTTP/1.1 101"), "{}", String::from_utf8_lossy(&received));
    assert!(start.elapsed() < hour / 2, "Socket.IO's own server waits for 45 s");
}
