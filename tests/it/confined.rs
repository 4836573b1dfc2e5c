//! What haft's own processes and threads have given up: their seccomp filters, as the kernel counts them.

use std::collections::BTreeMap;
use std::fs;

use crate::guardian::guardian_of;
use crate::harness::{Client, Setup, eventually};

/// How many seccomp filters hold for each thread of a process, by its number, with its name.
fn filters(pid: u32) -> BTreeMap<u32, (String, u32)> {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).expect("its threads").filter_map(Result::ok);
    let thread = |task: fs::DirEntry| {
        let status = fs::read_to_string(task.path().join("status")).ok()?;
        let value = |name| status.lines().find_map(|line| Some(line.strip_prefix(name)?.trim().to_owned()));
        Some((value("Pid:")?.parse().ok()?, (value("Name:")?, value("Seccomp_filters:")?.parse().ok()?)))
    };
    tasks.filter_map(thread).collect()
}

#[test]
fn all_threads_of_a_built_in_worker_the_guardian_and_the_thread_of_rooms_are_confined() {
    for confine in ["auto", "off"] {
        let setup = Setup::new(&["-w", "2", "--confine", confine, "--static", "{dir}"]).without_command();
        fs::write(setup.folder().join("file.txt"), "of a file").expect("a file");
        let haft = setup.start_all();
        // A file is read by a thread that is begun for it.
        let mut client = Client::connect(haft.address()).expect("connect");
        client.send("/file.txt").expect("send");
        assert!(client.receive_body().expect("an answer").ends_with("of a file"));

        let master = haft.pid();
        // The kernel counts those since Linux 5.9.
        let Some((_, of_master)) = filters(master).remove(&master) else { return };
        let expected = if confine == "auto" { of_master + 1 } else { of_master };
        let workers = [haft.worker(0), haft.worker(1)].map(filters);
        for (name, count) in workers.iter().flat_map(BTreeMap::values) {
            assert_eq!(*count, expected, "--confine {confine}: a worker's thread {name}");
        }
        assert!(workers.iter().any(|threads| threads.len() > 1), "a worker with more than one thread");

        let guardian = filters(guardian_of(master).expect("a guardian"));
        assert!(guardian.values().all(|(_, count)| *count == of_master + 1), "the guardian: {guardian:?}");
        let rooms = || filters(master).into_values().find(|(name, _)| name == "haft-rooms");
        let (_, of_rooms) = eventually("the thread of the rooms", rooms);
        assert_eq!(of_rooms, of_master + 1, "the thread of the rooms");
        let others = filters(master).into_values().filter(|(name, _)| name != "haft-rooms");
        others.for_each(|(name, count)| assert_eq!(count, of_master, "it is the master's to start programs: {name}"));
        haft.stop();
    }
}
