//! The layer around a real engine, in axum, over real TCP sockets.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use http_body::Frame;
use socketioxide::SocketIo;
use socketioxide::extract::{AckSender, Data, SocketRef};
use tokio::net::TcpListener;
use tower::ServiceExt;

use super::*;
use crate::drain::DrainSource;
use crate::tags::tests::{OTHER, OWN, tagger};
use crate::testing::*;

fn tags(drain: &DrainSource) -> Tags {
    Tags::new(tagger(), OWN, drain.subscribe())
}

/// An application whose engine reports what it sees, until the runtime of the test ends.
async fn serve(tags: Option<Tags>) -> SocketAddr {
    let (engine, io) = SocketIo::new_layer();
    io.ns("/", async |socket: SocketRef| {
        socket.emit("engine", &[socket.id.as_str(), &socket.req_parts().uri.to_string()]).ok();
        socket.on("echo", async |Data::<serde_json::Value>(data), ack: AckSender| {
            ack.send(&data).ok();
        });
    });
    let seen = async |request: Request<axum::body::Body>| request.uri().to_string();
    let app = Router::new().route("/api", get(seen)).layer(engine).layer(TagLayer::new(tags));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.expect("bind");
    let addr = listener.local_addr().expect("address");
    tokio::spawn(async move { axum::serve(listener, app).await });
    addr
}

#[tokio::test]
async fn a_session_s_id_has_the_tag_outside_and_the_engine_never_sees_it() {
    let drain = DrainSource::new();
    let addr = serve(Some(tags(&drain))).await;
    let mut wire = Wire::open(addr).await;
    let opened = wire.get(POLLING).await;
    let length = opened.body.len().to_string();
    assert_eq!((opened.status, opened.header("content-length")), (200, Some(length.as_str())));
    let open: serde_json::Value = serde_json::from_str(&opened.text()[1..]).expect("open packet");
    let sid = open["sid"].as_str().expect("sid");
    let (base, tag) = tagger().read(sid.as_bytes()).expect("a tag");
    let base = std::str::from_utf8(base).expect("text");
    assert_eq!((base.len(), tag), (16, OWN));
    let untagged = opened.text().replace(sid, base);
    let engines = r#"","upgrades":["websocket"],"pingInterval":25000,"pingTimeout":20000,"maxPayload":100000}"#;
    assert_eq!(untagged, format!("0{{\"sid\":\"{base}{engines}"));

    assert_eq!(post(addr, sid, "40").await.text(), "ok");
    let received = poll_for(&mut wire, sid, "engine").await;
    assert!(received.contains(&format!("42[\"engine\",\"{base}\",\"{POLLING}\"]")), "{received}");
    let mut ws = Wire::websocket(addr, &format!("&sid={sid}")).await.expect("a WebSocket");
    ws.say("2probe").await;
    assert_eq!(ws.receive().await.1, "3probe");
    ws.say("5").await;
    ws.say("421[\"echo\",7]").await;
    assert_eq!(ws.receive_until("431").await, "431[7]");
}

#[tokio::test]
async fn another_worker_s_session_is_unknown_and_the_connection_ends() {
    let drain = DrainSource::new();
    let addr = serve(Some(tags(&drain))).await;
    let sid = tagger().append("AAAAAAAAAAAAAAAA", OTHER);
    for method in ["GET", "POST"] {
        let mut wire = Wire::open(addr).await;
        wire.ask(&format!("{method} {POLLING}&sid={sid}"), &[], "").await;
        let refused = wire.reply().await;
        assert_eq!((refused.status, refused.text()), (400, r#"{"code":1,"message":"Session ID unknown"}"#));
        assert_eq!(refused.header("content-type"), Some("application/json"));
        assert_eq!(refused.header("connection"), Some("close"));
        assert!(wire.closed().await.is_empty());
    }
    let refused = Wire::websocket(addr, &format!("&sid={sid}")).await.err().expect("refused");
    assert_eq!(refused.status, 400);
    // Ours, but unknown, and what is no tag of ours: the engine's to answer, and the connection stays.
    let mut wire = Wire::open(addr).await;
    for sid in [tagger().append("AAAAAAAAAAAAAAAA", OWN), "AAAAAAAAAAAAAAAA".to_owned(), format!("{sid}x")] {
        let refused = wire.get(&format!("{POLLING}&sid={sid}")).await;
        assert_eq!((refused.status, refused.header("connection")), (400, None), "{sid}");
    }
}

#[tokio::test]
async fn what_is_not_the_engine_s_and_what_has_no_tags_passes_unchanged() {
    let drain = DrainSource::new();
    let addr = serve(Some(tags(&drain))).await;
    let elsewhere = format!("/api?transport=polling&sid={}", tagger().append("x", OTHER));
    assert_eq!(Wire::open(addr).await.get(&elsewhere).await.text(), elsewhere);

    let addr = serve(None).await;
    let mut wire = Wire::open(addr).await;
    let sid = open(&mut wire).await;
    assert_eq!(sid.len(), 16);
    assert_eq!(post(addr, &sid, "40").await.text(), "ok");
    poll_for(&mut wire, &sid, "engine").await;
}

#[tokio::test]
async fn a_worker_that_lingers_opens_no_session_after_those_on_their_way_and_keeps_those_it_has() {
    let drain = DrainSource::new();
    let tags = tags(&drain);
    let addr = serve(Some(tags.clone())).await;
    let mut before = Wire::open(addr).await;
    let sid = open(&mut before).await;
    drain.linger(Duration::from_secs(40));
    let mut late = Wire::open(addr).await;
    let late_sid = open(&mut late).await;
    until("those on their way have had their time", || tags.refuses_sessions()).await;
    for sid in [&sid, &late_sid] {
        assert_eq!(post(addr, sid, "40").await.text(), "ok");
    }
    poll_for(&mut late, &late_sid, "engine").await;
    let refused = before.get(POLLING).await;
    assert_eq!((refused.status, refused.header("retry-after")), (503, Some("1")));
    assert_eq!(refused.header("connection"), Some("close"));
    before.closed().await;
    let refused = Wire::websocket(addr, "").await.err().expect("refused");
    assert_eq!(refused.status, 503);
    let mut wire = Wire::open(addr).await;
    poll_for(&mut wire, &sid, "engine").await;
    assert_eq!(wire.get("/socket.io/").await.status, 400, "what is no handshake is the engine's");
}

/// A body of unknown length that never comes.
struct Endless;

impl Body for Endless {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Pending
    }
}

#[tokio::test]
async fn an_answer_that_cannot_be_an_open_packet_is_not_waited_for() {
    let drain = DrainSource::new();
    let answer = |_: Request<()>| std::future::ready(Ok::<_, Infallible>(Response::new(Endless)));
    let endless = tower::service_fn(answer);
    let service = TagLayer::new(Some(tags(&drain))).below("/x").layer(endless);
    let request = Request::get("/x/?EIO=4&transport=polling").body(()).expect("request");
    let response = soon("the head", service.oneshot(request)).await.expect("a response");
    assert!(matches!(response.into_body(), Either::Left(Endless)));
}
