//! The frames: what is written is read, and nothing that comes panics.

use super::*;
use proptest::prelude::*;

fn address() -> impl Strategy<Value = EndAddr> {
    prop_oneof![
        Just(EndAddr::Unix),
        (any::<[u8; 4]>(), any::<u16>()).prop_map(|(ip, port)| EndAddr::Ip((ip, port).into())),
        (any::<[u8; 16]>(), any::<u16>(), any::<u32>())
            .prop_map(|(ip, port, scope)| { EndAddr::Ip(SocketAddrV6::new(ip.into(), port, 0, scope).into()) }),
    ]
}

fn worker_frame() -> impl Strategy<Value = FromWorker> {
    prop_oneof![
        (any::<u64>(), any::<bool>()).prop_map(|(limit, tags)| FromWorker::Ready { limit, tags }),
        (any::<u64>(), any::<u64>(), any::<u32>()).prop_map(|(below, limit, open)| FromWorker::Taken {
            below,
            limit,
            open
        }),
        (any::<u64>(), any::<u32>()).prop_map(|(first, count)| FromWorker::Returned { first, count }),
        Just(FromWorker::Idle),
    ]
}

fn entry() -> impl Strategy<Value = Entry> {
    (any::<u64>(), any::<u16>(), address(), address()).prop_map(|(sequence, listener, client, local)| Entry {
        sequence,
        listener,
        client,
        local,
    })
}

proptest! {
    #[test]
    fn connections_come_back_as_they_were(entries in prop::collection::vec(entry(), 1..=MAX_CONNECTIONS)) {
        let mut bytes = Vec::new();
        FromMaster::write_connections(entries.iter().copied(), &mut bytes);
        prop_assert!(bytes.len() <= MAX_CONNECTIONS_LEN);
        prop_assert_eq!(FromMaster::read(&bytes).expect("frame"), FromMaster::Connections(entries));
    }

    #[test]
    fn a_worker_s_frames_come_back_as_they_were(frame in worker_frame()) {
        let mut bytes = Vec::new();
        frame.write(&mut bytes);
        prop_assert!(bytes.len() <= MAX_WORKER_FRAME_LEN);
        prop_assert_eq!(FromWorker::read(&bytes).expect("frame"), frame);
        bytes.push(0);
        prop_assert!(FromWorker::read(&bytes).is_err());
    }

    #[test]
    fn the_master_s_times_come_back_as_they_were(within_ms: u32) {
        prop_assert_eq!(FromMaster::read(&FromMaster::drain(within_ms)), Ok(FromMaster::Drain { within_ms }));
        prop_assert_eq!(FromMaster::read(&FromMaster::linger(within_ms)), Ok(FromMaster::Linger { within_ms }));
    }

    /// What this version does not know is for a later one.
    #[test]
    fn flags_of_ready_that_nobody_knows_are_ignored(flags: u32, limit: u64) {
        let frame = [&header(READY, 0, flags)[..], &limit.to_le_bytes()].concat();
        prop_assert_eq!(FromWorker::read(&frame), Ok(FromWorker::Ready { limit, tags: flags & 1 == 1 }));
    }

    #[test]
    fn any_bytes_are_a_frame_or_an_error(mut bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        FromWorker::read(&bytes).ok();
        FromMaster::read(&bytes).ok();
        for kind in [CONNECTIONS, DRAIN, LINGER, PING, READY, TAKEN, RETURNED, IDLE] {
            if let [version, at, ..] = bytes.as_mut_slice() {
                (*version, *at) = (VERSION, kind);
            }
            FromWorker::read(&bytes).ok();
            FromMaster::read(&bytes).ok();
        }
    }
}

#[test]
fn the_documented_bytes_are_the_bytes() {
    let client = EndAddr::Ip("127.0.0.7:258".parse().expect("address"));
    let local = EndAddr::Ip("[2001:db8::1]:3000".parse().expect("address"));
    let mut bytes = Vec::new();
    FromMaster::write_connections([Entry { sequence: 5, listener: 1, client, local }].into_iter(), &mut bytes);
    assert_eq!(bytes[..16], [1, 1, 1, 0, 0, 0, 0, 0, 5, 0, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[16..36], [1, 0, 0, 0, 0, 0, 0, 0, 4, 0, 2, 1, 127, 0, 0, 7, 0, 0, 0, 0]);
    assert_eq!(bytes[48..56], [6, 0, 0xb8, 0x0b, 0x20, 0x01, 0x0d, 0xb8]);
    assert_eq!(bytes.len(), 72);
    assert_eq!(FromMaster::drain(258), [1, 2, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0]);
    assert_eq!(FromMaster::ping(), [1, 4, 0, 0, 0, 0, 0, 0]);
    assert_eq!(FromMaster::read(&FromMaster::ping()), Ok(FromMaster::Ping));
    assert!(FromMaster::read(&[1, 4, 0, 0, 0, 0, 0, 0, 0]).is_err());
    FromWorker::Taken { below: 3, limit: 9, open: 2 }.write(&mut bytes);
    assert_eq!(bytes[..8], [1, 130, 0, 0, 0, 0, 0, 0]);
    assert_eq!(bytes[8..], [3, 0, 0, 0, 0, 0, 0, 0, 9, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0]);
    assert_eq!(FromMaster::linger(258), [1, 3, 0, 0, 0, 0, 0, 0, 2, 1, 0, 0]);
    FromWorker::Ready { limit: 7, tags: true }.write(&mut bytes);
    assert_eq!(bytes, [1, 129, 0, 0, 1, 0, 0, 0, 7, 0, 0, 0, 0, 0, 0, 0]);
    FromWorker::Idle.write(&mut bytes);
    assert_eq!(bytes, [1, 132, 0, 0, 0, 0, 0, 0]);
}

#[test]
fn another_version_and_an_unknown_kind_are_named() {
    assert_eq!(FromWorker::read(&[2, READY, 0, 0, 0, 0, 0, 0]), Err(FrameError::Version(2)));
    assert_eq!(FromWorker::read(&[1, 9, 0, 0, 0, 0, 0, 0]), Err(FrameError::Kind(9)));
    assert_eq!(FromWorker::read(&[]), Err(FrameError::Length { kind: 0, len: 0 }));
}
