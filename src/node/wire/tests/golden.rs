//! The lines that were captured between real primaries and real workers (Node 14 to 26), word for word.

use std::net::SocketAddr;
use std::time::Duration;

use super::{body_of, framed, read, tcp};
use crate::node::paths::EnginePath;
use crate::node::wire::PreloadMessage;
use crate::node::wire::message::WorkerMessage;
use crate::node::wire::say::Voice;
use crate::node::wire::{
    AdapterRouting, AddressType, ConnectionMessage, ListenOutcome, ListenReply, Query, Serialization, SharedKind,
    Sockname,
};

fn of_line(line: &str) -> WorkerMessage<'_> {
    read(Serialization::Json, line.as_bytes())
}

fn query(line: &str) -> Query<'_> {
    match of_line(line) {
        WorkerMessage::QueryServer(query) | WorkerMessage::Listening(query) => query,
        other => panic!("{line}: {other:?}"),
    }
}

#[test]
fn the_path_of_an_engine() {
    let path = EnginePath::read("/a/").expect("a path");
    let stated = WorkerMessage::Preload(PreloadMessage::Path(path));
    assert_eq!(of_line(r#"{"cmd":"NODE_HAFT","act":"path","type":"/a/"}"#), stated);
    assert_eq!(of_line(r#"{"cmd":"NODE_HAFT","act":"path","type":"a"}"#), WorkerMessage::Internal);
}

#[test]
fn a_worker_s_short_messages() {
    for (line, message) in [
        (r#"{"cmd":"NODE_CLUSTER","act":"online","seq":0}"#, WorkerMessage::Online),
        (r#"{"cmd":"NODE_HANDLE_ACK"}"#, WorkerMessage::HandleAck),
        (r#"{"cmd":"NODE_HANDLE_NACK"}"#, WorkerMessage::HandleNack),
        (r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":true,"seq":9}"#, WorkerMessage::Reply { ack: 4, accepted: true }),
        (
            r#"{"cmd":"NODE_CLUSTER","ack":4,"accepted":false,"seq":9}"#,
            WorkerMessage::Reply { ack: 4, accepted: false },
        ),
        (
            r#"{"cmd":"NODE_CLUSTER","act":"close","key":"null:3456:4:undefined:0","seq":12}"#,
            WorkerMessage::Close { key: "null:3456:4:undefined:0".into() },
        ),
        (
            r#"{"cmd":"NODE_CLUSTER","act":"exitedAfterDisconnect","seq":32}"#,
            WorkerMessage::ExitedAfterDisconnect { seq: 32 },
        ),
        (r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"x"}"#, WorkerMessage::Handle),
        (r#"{"cmd":"NODE_SOCKET_GET_COUNT","key":"k"}"#, WorkerMessage::Internal),
        (r#"{"cmd":"NODE_CLUSTER","act":"somethingNew","seq":1}"#, WorkerMessage::Internal),
        (r#"{"cmd":"NODE_CLUSTER","act":"queryServer"}"#, WorkerMessage::Internal),
        (r#"{"cmd":"NODE_HAFT","act":"tags"}"#, WorkerMessage::Preload(PreloadMessage::Tags)),
        (
            r#"{"cmd":"NODE_HAFT","act":"sessions","count":17}"#,
            WorkerMessage::Preload(PreloadMessage::Sessions { count: 17 }),
        ),
        (r#"{"cmd":"NODE_HAFT","act":"sessions","count":-1}"#, WorkerMessage::Internal),
        (r#"{"cmd":"NODE_HAFT","act":"sessions"}"#, WorkerMessage::Internal),
        (r#"{"cmd":"NODE_HAFT","act":"idle"}"#, WorkerMessage::Preload(PreloadMessage::Idle)),
        (
            r#"{"cmd":"NODE_HAFT","act":"pass","slot":3,"generation":70000,"what":"restore"}"#,
            WorkerMessage::Preload(PreloadMessage::Pass { slot: 3, generation: 70000 }),
        ),
        (r#"{"cmd":"NODE_HAFT","act":"pass","slot":65536,"generation":0}"#, WorkerMessage::Internal),
        (r#"{"cmd":"NODE_HAFT","act":"pass","slot":3}"#, WorkerMessage::Internal),
        (r#"{"cmd":"NODE_HAFT","act":"somethingNew","count":1}"#, WorkerMessage::Internal),
        (
            r#"{"cmd":"NODE_HAFT","act":"handles","signals":["SIGTERM","SIGINT"]}"#,
            WorkerMessage::Preload(PreloadMessage::Handles { term: true }),
        ),
        (r#"{"cmd":"NODE_HAFT"}"#, WorkerMessage::Internal),
        (r#""ready""#, WorkerMessage::Ready),
        (r#"{"cmd":"ready"}"#, WorkerMessage::Ready),
        (r#"{"type":"close"}"#, WorkerMessage::Closing),
        (
            r#"{"type":"sticky:connection","data":"Zz_-0123456789abcdef"}"#,
            WorkerMessage::SessionOpened { sid: "Zz_-0123456789abcdef".into() },
        ),
        (
            r#"{"type":"sticky:disconnection","data":"Zz_-0123456789abcdef"}"#,
            WorkerMessage::SessionClosed { sid: "Zz_-0123456789abcdef".into() },
        ),
        (r#"{"cmd":"node_cluster","act":"online"}"#, WorkerMessage::Other),
        (r#"{"cmd":7,"type":{"a":[]},"source":null}"#, WorkerMessage::Other),
        (r#"[{"cmd":"NODE_HANDLE_ACK"}]"#, WorkerMessage::Other),
        (r#""steady""#, WorkerMessage::Other),
        ("null", WorkerMessage::Other),
        ("17", WorkerMessage::Other),
    ] {
        assert_eq!(of_line(line), message, "{line}");
    }
}

/// A worker's frequent messages are recognised by their bytes: that must make no difference, however similar other
/// bytes are.
#[test]
fn the_short_way_and_the_long_way_say_the_same() {
    let usual = [r#"{"cmd":"NODE_HANDLE_ACK"}"#, r#"{"cmd":"NODE_CLUSTER","ack":140,"accepted":true,"seq":9}"#];
    let numbers =
        ["0", "00", "07", "-1", "1.0", "1e3", "", "999999999999999", "9999999999999999", "99999999999999999999"];
    let replies = numbers.iter().flat_map(|number| {
        [("140", number), ("9", number)].map(|(old, new)| usual[1].replace(&format!(":{old}"), &format!(":{new}")))
    });
    let cut = usual.iter().flat_map(|line| (0..=line.len()).map(|at| line[..at].to_owned()));
    let more = usual.iter().flat_map(|line| [format!("{line}}}"), format!(" {line}"), format!("{line} ")]);
    let changed = usual.iter().flat_map(|line| {
        (0..line.len()).map(|at| {
            String::from_utf8_lossy(&[&line.as_bytes()[..at], b"x", &line.as_bytes()[at + 1..]].concat()).into()
        })
    });
    for line in replies.chain(cut).chain(more).chain(changed).chain(usual.map(str::to_owned)) {
        let short = WorkerMessage::of_body(Serialization::Json, line.as_bytes());
        let long = WorkerMessage::walked(Serialization::Json, line.as_bytes());
        assert_eq!(short.ok(), long.ok(), "{line}");
    }
}

#[test]
fn a_worker_s_queries() {
    let plain = tcp(3456);
    for line in [
        r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":3456,"addressType":4,"backlog":0,"seq":1}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":3456,"addressType":4,"flags":0,"backlog":0,"seq":1}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":3456,"addressType":4,"flags":0,"backlog":false,"seq":1}"#,
        r#"{"cmd":"NODE_CLUSTER","act":"listening","index":0,"data":null,"address":null,"port":3456,"addressType":4,"backlog":0,"seq":1}"#,
    ] {
        assert_eq!(query(line), plain);
    }
    let line = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":2,"data":null,"address":"::1","port":0,"addressType":6,"flags":1,"backlog":77,"seq":3}"#;
    let expected = Query {
        seq: 3,
        address: Some("::1".into()),
        port: Some(0),
        address_type: AddressType::Tcp6,
        index: 2,
        flags: 1,
        backlog: Some(77),
        ..plain.clone()
    };
    assert_eq!(query(line), expected);
    let line = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"/run/app/u.sock","port":-1,"addressType":-1,"backlog":0,"readableAll":true,"writableAll":true,"seq":2}"#;
    let expected = Query {
        seq: 2,
        address: Some("/run/app/u.sock".into()),
        port: Some(-1),
        address_type: AddressType::Unix,
        readable_all: true,
        writable_all: true,
        ..plain.clone()
    };
    assert_eq!(query(line), expected);
    let line = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":"0.0.0.0","port":3458,"addressType":"udp4","fd":-1,"flags":0,"seq":4}"#;
    let expected = Query {
        seq: 4,
        address: Some("0.0.0.0".into()),
        port: Some(3458),
        address_type: AddressType::Udp4,
        ..plain.clone()
    };
    assert_eq!(query(line), expected);
    let line = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":{"ticketKeys":"78b676c9"},"address":null,"port":3306,"addressType":4,"backlog":0,"seq":1}"#;
    assert_eq!(query(line).data.map(|data| data.bytes()), Some(br#"{"ticketKeys":"78b676c9"}"#.as_slice()));
    let line = r#"{"cmd":"NODE_CLUSTER","act":"queryServer","index":0,"data":null,"address":null,"port":null,"addressType":null,"backlog":0,"fd":5,"seq":1}"#;
    let by_number = query(line);
    assert_eq!((by_number.fd, by_number.port, by_number.address_type), (Some(5), None, AddressType::Other));
}

#[test]
fn an_adapter_s_messages() {
    let line = r#"{"type":3,"data":{"packet":{"type":2,"data":["all",{"n":1}]},"opts":{"rooms":[],"except":[],"flags":{}}},"uid":"c49ee8e448a78c1f","nsp":"/","source":"_sio_adapter"}"#;
    let broadcast = AdapterRouting {
        kind: 3,
        uid: Some("c49ee8e448a78c1f".into()),
        nsp: Some("/".into()),
        ..AdapterRouting::default()
    };
    assert_eq!(of_line(line), WorkerMessage::Adapter(broadcast));
    let line = r#"{"type":10,"data":{"requestId":"3bcb","packet":944},"uid":"3079","nsp":"/","source":"_sio_adapter","requesterUid":"c49ee8e448a78c1f"}"#;
    let answer = AdapterRouting {
        kind: 10,
        uid: Some("3079".into()),
        requester_uid: Some("c49ee8e448a78c1f".into()),
        nsp: Some("/".into()),
        worker_id: None,
    };
    assert_eq!(of_line(line), WorkerMessage::Adapter(answer));
    // 0.2 has no uid; the worker is named inside, and looked for in answers only.
    let line = |kind: u8| {
        format!(
            r#"{{"type":{kind},"data":{{"requestId":"3bcb","workerId":12,"sockets":[{{"workerId":1}}]}},"source":"_sio_adapter","nsp":"/"}}"#
        )
    };
    for (kind, worker_id) in [(9, Some(12)), (11, Some(12)), (8, None)] {
        let expected =
            AdapterRouting { kind: kind.into(), nsp: Some("/".into()), worker_id, ..AdapterRouting::default() };
        assert_eq!(of_line(&line(kind)), WorkerMessage::Adapter(expected));
    }
    // Node's own messages come first, whatever else they say.
    assert_eq!(of_line(r#"{"cmd":"NODE_X","source":"_sio_adapter","type":1}"#), WorkerMessage::Internal);
    assert_eq!(of_line(r#"{"source":"_sio_adapter"}"#), WorkerMessage::Other);
}

/// What a voice writes, as text.
fn written(seq: u64, say: impl FnOnce(&mut Voice, &mut Vec<u8>)) -> String {
    let mut voice = Voice::new(Serialization::Json);
    (0..seq).for_each(|_| voice.disconnect(Duration::ZERO, None, &mut Vec::new()));
    let mut out = b"before".to_vec();
    say(&mut voice, &mut out);
    String::from_utf8(out.split_off(6)).expect("utf-8").strip_suffix('\n').expect("a line").to_owned()
}

#[test]
fn the_master_s_answers() {
    let key = "null:3456:4:undefined:0";
    let name = Sockname::Ip("[::]:3456".parse().expect("address"));
    let answer =
        ListenReply { key, data: None, outcome: ListenOutcome::HandOver { sockname: Some(&name), port: None } };
    assert_eq!(
        written(0, |voice, out| voice.answer(1, &answer, None, out)),
        r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"null:3456:4:undefined:0","ack":1,"data":null,"sockname":{"address":"::","family":"IPv6","port":3456},"seq":0}"#
    );
    let name = Sockname::Ip("127.0.0.1:8080".parse().expect("address"));
    let answer = ListenReply {
        key: "k",
        data: None,
        outcome: ListenOutcome::HandOver { sockname: Some(&name), port: Some(3000) },
    };
    assert_eq!(
        written(0, |voice, out| voice.answer(1, &answer, None, out)),
        r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"k","ack":1,"data":null,"sockname":{"address":"127.0.0.1","family":"IPv4","port":3000},"seq":0,"haft":{"port":8080}}"#
    );
    let data = Some(br#"{"ticketKeys":"78b6"}"#.as_slice());
    let key = "/run/app/u.sock:-1:-1:undefined:0";
    let answer = ListenReply { key, data, outcome: ListenOutcome::HandOver { sockname: None, port: None } };
    assert_eq!(
        written(1, |voice, out| voice.answer(2, &answer, None, out)),
        r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"/run/app/u.sock:-1:-1:undefined:0","ack":2,"data":{"ticketKeys":"78b6"},"seq":1}"#
    );
    let key = "null:3456:4:undefined:0";
    let answer = ListenReply { key, data: None, outcome: ListenOutcome::Shared(SharedKind::Listener) };
    assert_eq!(
        written(0, |voice, out| voice.answer(1, &answer, None, out)),
        r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"null:3456:4:undefined:0","ack":1,"data":null,"seq":0}}"#
    );
    let answer = ListenReply { key, data: None, outcome: ListenOutcome::Shared(SharedKind::ListenerAs(3456)) };
    assert_eq!(
        written(0, |voice, out| voice.answer(1, &answer, None, out)),
        r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"null:3456:4:undefined:0","ack":1,"data":null,"seq":0,"haft":{"asked":3456}}}"#
    );
    let key = "0.0.0.0:3458:udp4:-1:0";
    let answer = ListenReply { key, data: None, outcome: ListenOutcome::Shared(SharedKind::Udp) };
    assert_eq!(
        written(2, |voice, out| voice.answer(4, &answer, None, out)),
        r#"{"cmd":"NODE_HANDLE","type":"dgram.Native","msg":{"cmd":"NODE_CLUSTER","errno":0,"key":"0.0.0.0:3458:udp4:-1:0","ack":4,"data":null,"seq":2}}"#
    );
    let name = Sockname::Unix("/run/haft.sock".to_owned());
    let answer = ListenReply {
        key: "k",
        data: None,
        outcome: ListenOutcome::HandOver { sockname: Some(&name), port: Some(3000) },
    };
    assert_eq!(
        written(0, |voice, out| voice.answer(1, &answer, None, out)),
        r#"{"cmd":"NODE_CLUSTER","errno":null,"key":"k","ack":1,"data":null,"sockname":{"address":"/run/haft.sock","family":"Unix","port":3000},"seq":0}"#
    );
    let answer = ListenReply { key: "x", data: None, outcome: ListenOutcome::Failed { errno: 98 } };
    assert_eq!(
        written(9, |voice, out| voice.answer(7, &answer, None, out)),
        r#"{"cmd":"NODE_CLUSTER","errno":-98,"key":"x","ack":7,"data":null,"seq":9}"#
    );
}

#[test]
fn the_master_s_other_messages() {
    assert_eq!(
        written(4, |voice, out| voice.connection("null:3456:4:undefined:0", None, out)),
        r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"null:3456:4:undefined:0","seq":4}}"#
    );
    // The second to the same server is written from the first, and one to another server is not.
    let again = written(8, |voice, out| {
        for key in ["a", "b\"seq\":", "b\"seq\":"] {
            out.truncate(6);
            voice.connection(key, None, out);
        }
    });
    assert_eq!(
        again,
        r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"b\"seq\":","seq":10}}"#
    );
    assert_eq!(
        written(7, |voice, out| voice.disconnect(Duration::from_millis(25_000), None, out)),
        r#"{"cmd":"NODE_CLUSTER","act":"disconnect","seq":7,"haft":{"within":25000}}"#
    );
    assert_eq!(
        written(7, |voice, out| voice.disconnect(Duration::from_millis(25_000), Some("SIGTERM"), out)),
        r#"{"cmd":"NODE_CLUSTER","act":"disconnect","seq":7,"haft":{"within":25000,"signal":"SIGTERM"}}"#
    );
    assert_eq!(written(21, |voice, out| voice.acknowledge(32, out)), r#"{"cmd":"NODE_CLUSTER","ack":32,"seq":21}"#);
    assert_eq!(written(3, |voice, out| voice.acknowledge_handle(out)), r#"{"cmd":"NODE_HANDLE_ACK"}"#);
    assert_eq!(
        written(0, |voice, out| voice.connection("/a\"\\\nb", None, out)),
        r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"/a\"\\\nb","seq":0}}"#
    );
}

fn stated(text: &str) -> Option<SocketAddr> {
    Some(text.parse().expect("address"))
}

/// The address that a proxy stated stands behind what Node reads, which is the same with and without it.
#[test]
fn a_connection_whose_client_a_proxy_told() {
    let expected = r#"{"cmd":"NODE_HANDLE","type":"net.Native","msg":{"cmd":"NODE_CLUSTER","act":"newconn","key":"k","seq":2},"haft":{"address":"203.0.113.9","family":"IPv4","port":4711}}"#;
    assert_eq!(written(2, |voice, out| voice.connection("k", stated("203.0.113.9:4711"), out)), expected);
    let warm = written(0, |voice, out| {
        for client in [None, stated("198.51.100.1:1"), stated("203.0.113.9:4711")] {
            out.truncate(6);
            voice.connection("k", client, out);
        }
    });
    assert_eq!(warm, expected);
    let frame = ConnectionMessage::from_json("\"sticky:balance\"").expect("JSON").frame(Serialization::Json);
    assert_eq!(
        written(0, |voice, out| voice.message(&frame, stated("[2001:db8::1]:0"), out)),
        r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"sticky:balance","haft":{"address":"2001:db8::1","family":"IPv6","port":0}}"#
    );
    assert_eq!(
        written(0, |voice, out| voice.message(&frame, None, out)),
        r#"{"cmd":"NODE_HANDLE","type":"net.Socket","msg":"sticky:balance"}"#
    );
    let linger = r#"{"cmd":"NODE_HAFT","act":"linger","within":22500}"#;
    assert_eq!(written(3, |voice, out| voice.linger(Duration::from_millis(22_500), out)), linger);
}

/// The same in V8's format, of which the field count is the last byte.
#[test]
fn an_advanced_connection_whose_client_a_proxy_told() {
    let mut voice = Voice::new(Serialization::Advanced);
    let expected = [
        b"\x00\x00\x00\x97\xff\x0d\x6f\x22\x03cmd\x22\x0bNODE_HANDLE\x22\x04type\x22\x0anet.Native".as_slice(),
        b"\x22\x03msg\x6f\x22\x03cmd\x22\x0cNODE_CLUSTER\x22\x03act\x22\x07newconn\x22\x03key\x22\x01k",
        b"\x22\x03seq\x49\x00\x7b\x04\x22\x04haft\x6f\x22\x07address\x22\x0b203.0.113.9",
        b"\x22\x06family\x22\x04IPv4\x22\x04port\x49\xce\x49\x7b\x03\x7b\x04",
    ];
    let mut out = b"before".to_vec();
    voice.connection("k", stated("203.0.113.9:4711"), &mut out);
    assert_eq!(out, [b"before", expected.concat().as_slice()].concat());
    let frame = ConnectionMessage::from_json("7").expect("JSON").frame(Serialization::Advanced);
    let expected = [
        b"\x00\x00\x00\x65\xff\x0d\x6f\x22\x03cmd\x22\x0bNODE_HANDLE\x22\x03msg\x49\x0e\x22\x04type".as_slice(),
        b"\x22\x0anet.Socket\x22\x04haft\x6f\x22\x07address\x22\x0b2001:db8::1",
        b"\x22\x06family\x22\x04IPv6\x22\x04port\x49\x00\x7b\x03\x7b\x04",
    ];
    out.clear();
    voice.message(&frame, stated("[2001:db8::1]:0"), &mut out);
    assert_eq!(out, expected.concat());
    out.clear();
    voice.linger(Duration::from_millis(60), &mut out);
    assert_eq!(
        out,
        b"\x00\x00\x00\x2c\xff\x0d\x6f\x22\x03cmd\x22\x09NODE_HAFT\x22\x03act\x22\x06linger\x22\x06withinIx\x7b\x03"
    );
    for (json, message) in [
        (r#"{"cmd":"NODE_HAFT","act":"tags"}"#, WorkerMessage::Preload(PreloadMessage::Tags)),
        (
            r#"{"cmd":"NODE_HAFT","act":"sessions","count":300}"#,
            WorkerMessage::Preload(PreloadMessage::Sessions { count: 300 }),
        ),
        (r#"{"cmd":"NODE_HAFT","act":"idle"}"#, WorkerMessage::Preload(PreloadMessage::Idle)),
    ] {
        assert_eq!(read(Serialization::Advanced, &body_of(Serialization::Advanced, json)), message, "{json}");
    }
}

/// The bytes that a real worker wrote, and ours, which differ in the version alone.
#[test]
fn an_advanced_message() {
    let captured = b"\x00\x00\x00\x1b\xff\x0f\x6f\x22\x03cmd\x22\x0fNODE_HANDLE_ACK\x7b\x01";
    assert_eq!(read(Serialization::Advanced, &captured[4..]), WorkerMessage::HandleAck);
    assert_eq!(framed(Serialization::Advanced, &captured[4..]), captured);
    let mut ours = Vec::new();
    Voice::new(Serialization::Advanced).acknowledge_handle(&mut ours);
    assert_eq!(ours, [&captured[..5], &[13], &captured[6..]].concat());
    let mut reply = Vec::new();
    let name = Sockname::Ip("127.0.0.1:80".parse().expect("address"));
    let outcome = ListenOutcome::HandOver { sockname: Some(&name), port: None };
    Voice::new(Serialization::Advanced).answer(70, &ListenReply { key: "k", data: None, outcome }, None, &mut reply);
    let expected = [
        b"\x00\x00\x00\x76\xff\x0d\x6f\x22\x03cmd\x22\x0cNODE_CLUSTER\x22\x05errno\x30\x22\x03key\x22\x01k".as_slice(),
        b"\x22\x03ack\x49\x8c\x01\x22\x04data\x30\x22\x08sockname\x6f\x22\x07address\x22\x09127.0.0.1",
        b"\x22\x06family\x22\x04IPv4\x22\x04port\x49\xa0\x01\x7b\x03\x22\x03seq\x49\x00\x7b\x07",
    ];
    assert_eq!(reply, expected.concat());
}
