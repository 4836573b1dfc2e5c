//! Screens.

use super::explain::By;
use super::*;
use crate::route::{Slot, Tag, TagKey, Tagger};

const KEY: &str = "--tag-key=a secret of some length";

/// What is printed for a client, with haft's flags in words.
fn screen(question: Question, flags: &[&str]) -> String {
    let ParseOutcome::Run(config) = flags::parse_from(["haft"].iter().chain(flags)) else { panic!("{flags:?}") };
    answer(&config, question, &|_| None, None).expect("an answer")
}

fn of_address(ip: &str) -> Question {
    Question { client: Some(ip.parse().expect("an address")), ..Question::default() }
}

fn of_request(request: &str) -> Question {
    Question { request: Some(request.as_bytes().to_vec()), ..Question::default() }
}

#[test]
fn an_address() {
    let expected = "\
client           127.0.0.1
affinity         ip
key              d4cc26b8cab1a5bb: the first 32 bits of the address
order            3, 1, 2, 0
goes to          slot 3; while that is not to be had, to the next in the order
with 5 slots     slot 4: it moves
";
    assert_eq!(screen(of_address("127.0.0.1"), &["-w", "4"]), expected);
    let mapped = screen(of_address("::ffff:127.0.0.1"), &["-w", "4"]);
    assert_eq!(mapped.lines().nth(2), expected.lines().nth(2), "it is the same client");
    let prefix = screen(of_address("2001:db8:1:2::1"), &["-w", "4", "--ipv6-prefix", "56"]);
    assert!(prefix.contains("key              099831defd68b416: the first 56 bits of the address\n"), "{prefix}");
}

#[test]
fn a_slot_more_moves_some() {
    let moved = (0..20).filter(|host| {
        let text = screen(of_address(&format!("10.0.0.{host}")), &["-w", "2"]);
        assert!(text.contains("with 3 slots     slot "), "{text}");
        text.contains("with 3 slots     slot 2: it moves\n")
    });
    assert!((1..20).contains(&moved.count()));
}

#[test]
fn a_session() {
    let key = TagKey::of_text("a secret of some length");
    let sid = Tagger::new(&key).append("lgy5fjW0yVKcPbBnAAAC", Tag { slot: Slot(2), generation: 7 });
    let of = |sid: &str| Question { sid: Some(sid.to_owned()), ..Question::default() };
    let expected = "\
affinity         session
  session        decides
session          lgy5fjW0yVKcPbBnAAAC
  tag            slot 2, generation 7
  checksum       valid
goes to          slot 2, to the worker of generation 7
if it is gone    the slot's present worker, which answers 400: the client comes anew
";
    let flags = ["-w", "4", "--affinity=session", KEY];
    assert_eq!(screen(of(&sid), &flags), expected);
    assert!(screen(of(&sid), &["-w", "2", flags[2], KEY]).ends_with("the address decides: there is no slot 2 of 2\n"));
    let without_key = screen(of(&sid), &flags[..3]);
    assert!(
        without_key.contains("slot 2, generation 7\n  checksum       cannot be checked without --tag-key\n"),
        "{without_key}"
    );
    let forged = screen(of(&sid.replace("lgy", "abc")), &flags);
    assert!(forged.contains("  checksum       wrong: made with another key, or by hand; it is ignored\n"), "{forged}");
    let of_b = Tagger::new(&key).on("B".parse().expect("a name")).append("x", Tag { slot: Slot(2), generation: 7 });
    let elsewhere = screen(of(&of_b), &["-w", "4", "--affinity=session", KEY, "--host-id=A"]);
    assert!(elsewhere.contains("  tag            host 0B, slot 2, generation 7\n"), "{elsewhere}");
    assert!(elsewhere.contains("its session belongs to host 0B"), "{elsewhere}");
    assert!(screen(of("lgy5fjW0yVKcPbBnAAAC"), &flags).contains("  tag            none\n"));
}

#[test]
fn a_request() {
    let flags = ["-w", "4", "--affinity=session,cookie:uid,query:room", KEY];
    let request = "GET /socket.io/?room=the%204th HTTP/1.1\r\nHost: x\r\nCookie: a=b\r\n\r\n";
    let text = screen(of_request(request), &flags);
    let begin = "\
affinity         session,cookie:uid,query:room
  session        absent, or not known here
  cookie:uid     absent
  query:room     decides: \"the 4th\"
key              ";
    assert!(text.starts_with(begin) && text.contains(": the query's value\norder            "), "{text}");
    let without_key = screen(of_request(request), &flags[..3]);
    assert!(
        without_key.contains("(not known) by a value, hashed with a key that only the running haft has"),
        "{without_key}"
    );

    let opening = screen(of_request("GET /socket.io/?EIO=4 HTTP/1.1\r\n"), &flags);
    assert!(opening.contains("note             its headers do not end"), "{opening}");
    assert!(
        opening.ends_with("goes to          the worker with the fewest sessions, since it opens one\n"),
        "{opening}"
    );
    assert!(screen(of_request("GET / HTTP/1.1\r\n\r\n"), &flags).contains("give it, too (haft why ADDRESS"));
    let tls = screen(of_request("\x16\x03\x01"), &flags);
    assert!(tls.contains("no request of HTTP/1: TLS"), "{tls}");
    assert!(screen(of_request("GET / HTTP/1.1\r\n\r\n"), &["--affinity=query:room,none"]).contains("nothing sticks"));
}

#[test]
fn a_request_behind_a_proxy() {
    let header = ["-w", "4", "--client-ip-header=x-real-ip", "--trusted-proxy=10.0.0.0/8"];
    let question = |ip: &str| Question {
        client: Some(ip.parse().expect("an address")),
        ..of_request("GET / HTTP/1.1\r\nX-Real-IP: 127.0.0.1\r\n\r\n")
    };
    assert!(screen(question("10.0.0.1"), &header).starts_with("client           127.0.0.1 (from its header)\n"));
    assert!(
        screen(question("192.0.2.1"), &header).starts_with("client           192.0.2.1\n"),
        "its word does not count"
    );
    let protocol = ["-w", "4", "--proxy-protocol", "--trusted-proxy=10.0.0.0/8"];
    let text = screen(of_request("PROXY TCP4 127.0.0.1 10.0.0.9 1 2\r\nGET / HTTP/1.1\r\n\r\n"), &protocol);
    assert!(
        text.starts_with("client           127.0.0.1 (from its PROXY header)\n") && text.contains("slot 3;"),
        "{text}"
    );
}

#[test]
fn the_words_may_stand_in_any_order() {
    use clap::Parser;

    #[derive(Parser)]
    struct Line {
        #[command(flatten)]
        why: Why,
    }
    let flags = |line: &str| {
        let mut why = Line::try_parse_from(line.split(' ')).expect(line).why;
        why.take_late_words().expect(line);
        let address = why.take_address().expect(line).map(|ip| ip.to_string());
        let flags = why.flags().into_iter().map(|word| word.into_string().expect("text")).collect::<Vec<_>>().join(" ");
        (address, why.sid, flags)
    };
    let some = |text: &str| Some(text.to_owned());
    assert_eq!(flags("why 10.0.0.1 -w 4"), (some("10.0.0.1"), None, "haft -w 4".to_owned()));
    assert_eq!(flags("why [::1]"), (some("::1"), None, "haft".to_owned()));
    assert_eq!(flags("why --sid x -w 4"), (None, some("x"), "haft --affinity=session -w 4".to_owned()));
    assert_eq!(flags("why -w 4 --sid=x -c f.yaml"), (None, some("x"), "haft -w 4 -c f.yaml".to_owned()));
    assert_eq!(
        flags("why 10.0.0.1 -w 4 -- node --sid y"),
        (some("10.0.0.1"), None, "haft -w 4 -- node --sid y".to_owned())
    );
    let mut why = Line::try_parse_from(["why", "example.org"]).expect("words").why;
    assert!(why.take_address().expect_err("no address").contains("\"example.org\" is no address"));
    let mut both = Line::try_parse_from(["why", "--sid=x", "-w", "4", "--request", "-"]).expect("words").why;
    assert!(both.take_late_words().is_err());
}

#[test]
fn of_a_running_haft_it_says_what_is_so_now() {
    let slot = |slot: u16, drained: bool| serde_json::json!({"slot": slot, "state": "ready", "drained": drained, "pid": 100 + slot, "generation": 8});
    let status: Status = serde_json::from_value(serde_json::json!({
        "affinity": "session", "dispatch": "handover",
        "routing": {"ipv4_prefix": 32, "ipv6_prefix": 64},
        "slots": [slot(0, false), slot(1, false), slot(2, false), slot(3, true)],
        "draining": [{"slot": 2, "generation": 7, "pid": 42}],
    }))
    .expect("a status");
    let ParseOutcome::Run(config) = flags::parse_from(now::flags(&status)) else { panic!("{:?}", now::flags(&status)) };
    assert_eq!((config.workers, config.affinity.to_string().as_str(), config.prefix.ipv6), (4, "session", 64));
    let screen = |question| answer(&config, question, &|_| None, Some(&status)).expect("an answer");
    let text = screen(of_address("127.0.0.1"));
    let expected = "\
order            3, 1, 2, 0
goes to          slot 3; while that is not to be had, to the next in the order
with 5 slots     slot 4: it moves
now              slot 1, pid 101, ready
  since          slot 3 is ready, drained
";
    assert!(text.ends_with(expected), "{text}");
    let by = |generation| By::Session(Tag { slot: Slot(2), generation });
    for (generation, expected) in [
        (8, "now              it is there: pid 102, ready\n"),
        (7, "now              it is there, and finishes: pid 42\n"),
        (6, "now              it is gone: slot 2 is ready\n"),
    ] {
        assert_eq!(now::rows(&status, &by(generation)), expected);
    }
    let no_slot = Status { slots: vec![status.slots[3].clone()], ..status.clone() };
    let ParseOutcome::Run(config) = flags::parse_from(now::flags(&no_slot)) else { panic!("no configuration") };
    let text = answer(&config, of_address("127.0.0.1"), &|_| None, Some(&no_slot)).expect("an answer");
    assert!(text.contains("now              no slot takes clients\n"), "{text}");
}

#[test]
fn a_running_haft_says_whether_it_has_signed_a_session() {
    let ParseOutcome::Run(config) = flags::parse_from(["haft", "-w4", "--affinity=session"]) else { panic!("flags") };
    let ours =
        Tagger::new(&TagKey::of_text("its own")).append("lgy5fjW0yVKcPbBnAAAC", Tag { slot: Slot(2), generation: 7 });
    let is_signed = |sid: &str| Some(sid == ours);
    let ask = |sid: &str, as_request: bool| {
        let request = format!("GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\nHost: x\r\n\r\n");
        let question = match as_request {
            true => Question { request: Some(request.into_bytes()), ..Question::default() },
            false => Question { sid: Some(sid.to_owned()), ..Question::default() },
        };
        answer(&config, question, &is_signed, None).expect("an answer")
    };
    for as_request in [false, true] {
        let text = ask(&ours, as_request);
        assert!(text.contains("  session        decides\n") && text.contains("  checksum       valid\n"), "{text}");
        assert!(text.contains("session          lgy5fjW0yVKcPbBnAAAC\n"), "{text}");
        assert!(text.contains("goes to          slot 2, to the worker of generation 7\n"), "{text}");
        let forged = ask(&ours.replace('C', "D"), as_request);
        assert!(forged.contains("  checksum       wrong") && !forged.contains("slot 2, to the worker"), "{forged}");
    }
}
