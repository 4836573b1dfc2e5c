//! Sessions whose worker is about to name them.

use super::*;

fn asking_of(sid: &str) -> String {
    format!("GET /socket.io/?EIO=4&transport=polling&sid={sid} HTTP/1.1\r\n\r\n")
}

#[tokio::test]
async fn a_session_that_is_named_a_moment_late_is_found() {
    let mut rig = Fixture::new(&["-w2", "--affinity=session"]);
    let (worker, _channel) = rig.attach_node(true);
    let (_client, outcome) = rig.arrive(asking_of("AAAA").as_bytes());
    assert!(outcome.is_none(), "a worker may be about to name it");
    // The request may come after the connection.
    let (mut late, outcome) = rig.arrive(b"");
    assert!(outcome.is_none());
    late.write_all(asking_of("BBBB").as_bytes()).expect("write");
    assert!(rig.look().is_none() && rig.look().is_none());
    assert_eq!(rig.peeking.len(), 2, "they count");
    assert!(rig.peeking.named(rig.now, &rig.dispatch).is_none());
    let named = RouteBy::Session(Tag { slot: Slot(1), generation: 0 });
    for sid in ["BBBB", "AAAA"] {
        rig.name(sid, worker);
        let outcome = rig.peeking.named(rig.now, &rig.dispatch);
        assert_eq!(assigned(outcome, asking_of(sid).as_bytes()).0, named);
    }
    assert_eq!(rig.peeking.len(), 0);
    let (_client, outcome) = rig.arrive(asking_of("AAAA").as_bytes());
    assert_eq!(assigned(outcome, asking_of("AAAA").as_bytes()).0, named, "at once, from then on");
}

#[tokio::test]
async fn a_session_that_nobody_names_is_not_waited_for_long_nor_by_many() {
    let mut rig = Fixture::new(&["-w2", "--affinity=session"]);
    let request = asking_of("AAAA");
    let (_client, outcome) = rig.arrive(request.as_bytes());
    assert_eq!(assigned(outcome, request.as_bytes()).0, RouteBy::Address, "no worker would name it");
    let _tagging = rig.attach_node(false);
    let (_client, outcome) = rig.arrive(request.as_bytes());
    assert_eq!(assigned(outcome, request.as_bytes()).0, RouteBy::Address, "no worker would name it");
    let _naming = rig.attach_node(true);
    let (_client, outcome) = rig.arrive(request.as_bytes());
    assert!(outcome.is_none());
    assert!(rig.peeking.named(rig.now + Duration::from_millis(249), &rig.dispatch).is_none());
    let outcome = rig.peeking.named(rig.now + Duration::from_millis(250), &rig.dispatch);
    assert_eq!(assigned(outcome, request.as_bytes()).0, RouteBy::Address);

    let clients: Vec<_> = std::iter::repeat_with(|| rig.arrive(request.as_bytes()))
        .map_while(|(client, outcome)| match outcome {
            None => Some(client),
            Some(outcome) => {
                assert_eq!(assigned(Some(outcome), request.as_bytes()).0, RouteBy::Address);
                None
            }
        })
        .collect();
    assert_eq!((clients.len(), rig.peeking.len(), rig.peeking.counts.unnamed), (256, 256, 2));
    end(rig);
}
