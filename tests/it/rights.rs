//! What haft does for a worker of another user, what it passes on to workers of what it was given itself, and what it
//! trusts.

use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::os::unix::net::UnixListener;
use std::path::Path;

use nix::sys::signal::Signal;

use crate::harness::{Client, Haft, Load, Setup, eventually, signal};

/// A user that has nothing.
const USER: u32 = 65_533;

fn is_root() -> bool {
    nix::unistd::geteuid().is_root()
}

/// A Node worker with these wishes: see `tests/it/claims.cjs`. As another user, if it is to be one.
fn wishing(setup: Setup, user: Option<u32>, wishes: &[&str]) -> Setup {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/it/claims.cjs");
    let user = user.map(|user| user.to_string()).unwrap_or_default();
    let become_it = ["setpriv", "--reuid", &user, "--regid", &user, "--clear-groups"];
    let become_it = if user.is_empty() { &[][..] } else { &become_it };
    setup.command(&[become_it, &["node", script, "{dir}/outcomes"], wishes].concat())
}

fn outcomes(haft: &Haft) -> Vec<serde_json::Value> {
    let file = haft.folder().join("outcomes");
    let text = eventually("the outcomes", || fs::read_to_string(&file).ok().filter(|text| text.ends_with('\n')));
    serde_json::from_str(text.lines().next().expect("a line")).expect("JSON")
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, Permissions::from_mode(mode)).expect("mode");
}

/// The worker has no root any more: haft, which has, must not be root for it.
/// Folders with their owners, a file that the worker writes to, and a secret of root's.
fn with_folders(folders: &[(&str, u32)]) -> Setup {
    let setup = Setup::new(&["-w", "1"]);
    let at = |name: &str| setup.folder().join(name);
    mode(setup.folder(), 0o755);
    for &(folder, of) in folders {
        fs::create_dir(at(folder)).expect("folder");
        chown(at(folder), Some(of), Some(of)).expect("owner");
    }
    fs::write(at("outcomes"), "").expect("file");
    chown(at("outcomes"), Some(USER), None).expect("owner");
    fs::write(at("roots/secret"), "secret").expect("file");
    mode(&at("roots/secret"), 0o600);
    setup
}

#[test]
fn a_worker_of_another_user_gets_what_that_user_might_have_and_no_more() {
    if !is_root() {
        return;
    }
    let setup = with_folders(&[("roots", 0), ("own", USER)]);
    let at = |name: &str| setup.folder().join(name);
    symlink(at("roots/secret"), at("own/link")).expect("link");
    drop(UnixListener::bind(at("roots/stale")).expect("a stale socket"));
    mode(&at("roots/stale"), 0o777);
    drop(UnixListener::bind(at("own/stale")).expect("a stale socket"));
    chown(at("own/stale"), Some(USER), Some(USER)).expect("owner");
    let wish = |mode: &str, name: &str| format!("path:{mode}:{}", at(name).display());
    let paths = [
        wish("all", "roots/new"),
        wish("all", "roots/secret"),
        wish("all", "roots/stale"),
        wish("all", "own/link"),
        wish("all", "own/stale"),
        wish("umask", "own/new"),
    ];
    let paths = paths.iter().map(String::as_str);
    let wishes: Vec<&str> = ["tcp:0", "tcp:81", "udp:81"].into_iter().chain(paths).collect();
    let mut haft = wishing(setup, Some(USER), &wishes).start();
    let outcomes = outcomes(&haft);
    let expected = ["ok", "EACCES", "EACCES", "EACCES", "EADDRINUSE", "EACCES", "EADDRINUSE", "ok", "ok"];
    assert_eq!(outcomes, expected, "{wishes:?}");
    let at = |name: &str| haft.folder().join(name);
    let look = |name: &str| {
        let found = fs::symlink_metadata(at(name)).expect(name);
        (found.uid(), found.mode() & 0o777)
    };
    assert_eq!([look("roots/secret"), look("roots/stale")], [(0, 0o600), (0, 0o777)], "as they were");
    assert_eq!(look("own/stale"), (USER, 0o777), "its own, for everybody from the first moment");
    assert_eq!(look("own/new").0, USER);
    assert!(haft.page("/metrics").expect("metrics").1.contains("\nhaft_node_listens_refused_total 2\n"));
    // Where it has put something else in the meantime, that stays.
    fs::remove_file(at("own/new")).expect("removed");
    fs::write(at("own/new"), "precious").expect("file");
    haft.signal(Signal::SIGTERM);
    let own = at("own");
    haft.wait_for_exit();
    assert!(own.join("new").exists() && !own.join("stale").exists());
}

/// Between any two steps of haft's the path may be another's: a link to a file of root's, or through its folder.
#[test]
fn a_path_that_is_swapped_while_it_is_opened_gives_nothing_away() {
    if !is_root() {
        return;
    }
    const PATHS: usize = 120;
    let setup = with_folders(&[("roots", 0), ("own", USER), ("own/inner", USER)]);
    let at = |name: &str| setup.folder().join(name);
    let [own, inner] = [at("own"), at("own/inner")];
    let names = (0..PATHS).map(|n| if n % 2 == 0 { own.join(n.to_string()) } else { inner.join("secret") });
    let names: Vec<_> = names.collect();
    let wishes: Vec<String> = names.iter().map(|name| format!("path:all:{}", name.display())).collect();
    let wishes: Vec<&str> = wishes.iter().map(String::as_str).collect();
    let (roots, load) = (at("roots"), Load::default());
    let haft = std::thread::scope(|scope| {
        let _until = load.until();
        scope.spawn(|| {
            for name in names.iter().step_by(2).cycle().take_while(|_| load.goes_on()) {
                symlink(roots.join("secret"), name).ok();
                fs::rename(&inner, own.join("aside")).ok();
                symlink(&roots, &inner).ok();
                fs::remove_file(&inner).ok();
                fs::rename(own.join("aside"), &inner).ok();
                if fs::symlink_metadata(name).is_ok_and(|found| found.is_symlink()) {
                    fs::remove_file(name).ok();
                }
            }
        });
        let haft = wishing(setup, Some(USER), &wishes).start();
        assert_eq!(outcomes(&haft).len(), PATHS);
        haft
    });
    let secret = fs::symlink_metadata(roots.join("secret")).expect("the file");
    assert_eq!((secret.uid(), secret.mode() & 0o777, secret.is_file()), (0, 0o600, true));
    assert_eq!(fs::read_dir(&roots).expect("the folder").count(), 1, "nothing was put beside it");
    haft.stop();
}

/// A megabyte a query would be the master's for good.
#[test]
fn what_a_worker_asks_to_be_kept_is_bounded() {
    let wishes = ["tcp:0", "data:20000000", "data:1000", "address:20000000", "data:20000000"];
    let haft = wishing(Setup::new(&["-w", "1"]), None, &wishes).start();
    let outcomes = outcomes(&haft);
    let error = |errno: i32| serde_json::Value::from(-errno);
    let expected: [serde_json::Value; 5] =
        ["ok".into(), error(libc::EMSGSIZE), 0.into(), error(libc::ENAMETOOLONG), error(libc::EMSGSIZE)];
    assert_eq!(outcomes, expected, "{wishes:?}");
    assert!(haft.page("/metrics").expect("metrics").1.contains("\nhaft_node_listens_refused_total 3\n"));
    haft.stop();
}

/// What a service manager says to haft is not said to its workers, and what haft was given is not given to them.
#[test]
fn workers_inherit_what_is_meant_for_them() {
    let given = "NOTIFY_SOCKET WATCHDOG_USEC WATCHDOG_PID LISTEN_FDS LISTEN_PID LISTEN_FDNAMES NODE_CHANNEL_FD";
    let exports = given.split(' ').map(|name| format!("export {name}=1; ")).collect::<String>();
    for (flags, limit) in [(&["-w", "1"][..], "300"), (&["-w", "1", "--worker-nofile", "400"], "400")] {
        let script = "env > {dir}/env; ulimit -Sn > {dir}/limit; readlink /proc/$$/fd/* > {dir}/open; \
            mv {dir}/open {dir}/descriptors; exec sleep 1000";
        let haft = Setup::new(flags)
            .command(&["sh", "-c", script])
            .after(&format!("{exports}exec 7</etc/passwd; ulimit -Hn 500; ulimit -Sn 300"))
            .launch();
        let read = |name: &str| fs::read_to_string(haft.folder().join(name));
        let descriptors = eventually("what the worker has", || read("descriptors").ok());
        assert!(!descriptors.contains("/etc/passwd"), "{descriptors}");
        let environment = read("env").expect("the environment");
        for name in given.split(' ') {
            assert!(!environment.lines().any(|line| line.starts_with(&format!("{name}="))), "{environment}");
        }
        assert_eq!(read("limit").expect("the limit").trim(), limit);
    }
    let mut haft = Setup::new(&["-w", "1", "--worker-nofile", "501"]).after("ulimit -n 500").launch();
    assert_eq!(haft.wait_for_exit().code(), Some(2));
    assert!(haft.log().whole().contains("--worker-nofile 501: the hard limit is 500; raise it"));
}

/// Without its preload a program would not do what was asked for.
#[test]
fn what_needs_the_preload_does_not_start_without_it() {
    let without = |flags: &[&str], tmp: &str| {
        let tmp = format!("TMPDIR={tmp}");
        Setup::new(flags).node().under(&["env", "-u", "XDG_RUNTIME_DIR", &tmp])
    };
    let behind_a_proxy = ["-w", "1", "--client-ip-header", "x-real-ip", "--trusted-proxy", "::1"];
    for flags in [&["-w", "1", "--affinity", "session"][..], &behind_a_proxy] {
        let mut haft = without(flags, "/proc").launch();
        assert_eq!(haft.wait_for_exit().code(), Some(2));
        let log = haft.log().whole();
        assert!(log.contains("/proc: ") && log.contains("TMPDIR") && log.contains("--no-preload"), "{log}");
        without(&[flags, &["--no-preload"]].concat(), "/proc").start().stop();
    }
    without(&["-w", "1"], "/proc").start().stop();
}

/// Its script would run in the workers of root.
#[test]
fn the_preload_is_not_put_where_another_user_could_change_it() {
    for of_another in [false, true].into_iter().filter(|of_another| !of_another || is_root()) {
        let setup = Setup::new(&["-w", "1", "--affinity", "session"]).node();
        let folder = setup.folder().join("tmp");
        fs::create_dir(&folder).expect("folder");
        mode(&folder, if of_another { 0o755 } else { 0o777 });
        if of_another {
            chown(&folder, Some(USER), None).expect("owner");
        }
        let mut haft = setup.under(&["env", "XDG_RUNTIME_DIR={dir}/tmp", "TMPDIR={dir}/tmp"]).launch();
        assert_eq!(haft.wait_for_exit().code(), Some(2));
        let log = haft.log().whole();
        let cure = if of_another { "belongs to user 65533" } else { "chmod go-w" };
        assert!(log.contains(cure), "{log}");
        assert_eq!(fs::read_dir(folder).expect("folder").count(), 0);
    }
}

#[test]
fn what_a_killed_master_has_left_the_next_one_removes() {
    let place = tempfile::tempdir().expect("folder");
    mode(place.path(), 0o755);
    let tmp = format!("TMPDIR={}", place.path().display());
    let start = || {
        let setup = Setup::new(&["-w", "1", "--affinity", "session"]).node();
        setup.under(&["env", "-u", "XDG_RUNTIME_DIR", &tmp]).start()
    };
    let names = || {
        let entries = fs::read_dir(place.path()).expect("folder");
        entries.map(|entry| entry.expect("an entry").file_name()).collect::<Vec<_>>()
    };
    let mut killed = start();
    let left = names();
    assert_eq!(left.len(), 1);
    let beside = start();
    assert_eq!(names().len(), 2, "the first one lives");
    signal(killed.pid(), Signal::SIGKILL);
    killed.wait_for_exit();
    beside.stop();
    assert_eq!(names(), left);
    start().stop();
    assert!(names().is_empty());
}

#[test]
fn a_configuration_that_others_can_write_is_refused() {
    let refused = |prepare: &dyn Fn(&Path), cure: &str| {
        let setup = Setup::from_file("workers: 1\nadmin: unix:{dir}/admin.sock\n");
        prepare(&setup.folder().join("haft.yaml"));
        let mut haft = setup.launch();
        assert_eq!(haft.wait_for_exit().code(), Some(2));
        let log = haft.log().whole();
        assert!(log.contains("haft.yaml") && log.contains(cure), "{log}");
    };
    refused(&|file| mode(file, 0o666), "chmod go-w");
    if is_root() {
        refused(&|file| chown(file, Some(USER), None).expect("owner"), "chown 0");
    }
}

#[test]
fn without_any_privilege_the_kernel_assigns_and_a_stop_is_orderly() {
    if !is_root() {
        return;
    }
    let flags = ["-w", "2", "--dispatch", "kernel"];
    let haft = Setup::new(&flags).without_command().user(USER).start_all();
    let mut client = Client::connect(haft.address()).expect("connect");
    client.send("/").expect("send");
    client.receive_body().expect("an answer");
    haft.stop();
}
