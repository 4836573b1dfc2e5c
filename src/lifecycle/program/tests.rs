//! Whole command lines, in a folder with a package.json.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use tempfile::TempDir;

use super::inspect::PerWorker;
use super::*;

/// A project with installed programs, and a `node` that tells how it was started.
fn project() -> (TempDir, Place) {
    let folder = TempDir::new().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    for inner in ["bin", "app/node_modules/.bin", "app/sub", "other"] {
        fs::create_dir_all(at(inner)).expect("folder");
    }
    let executable = |name: &str, text: &str| {
        fs::write(at(name), text).expect("file");
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).expect("mode");
    };
    executable(
        "bin/node",
        "#!/bin/sh\necho \"node[$*] in ${PWD##*/} event=$npm_lifecycle_event fd=$NODE_CHANNEL_FD\"\n",
    );
    executable("bin/tool", "#!/usr/bin/env node\n");
    executable("app/node_modules/.bin/serve", "#!/usr/bin/env node\n");
    executable("app/node_modules/.bin/tsx", "#!/usr/bin/env node\n");
    executable("app/server.mjs", "#!/usr/bin/env node\n");
    executable("app/flagged.mjs", "#!/usr/bin/env -S node --enable-source-maps\n");
    executable("app/run.sh", "#!/bin/sh\n# the server\nif true; then exec node server.js \"$@\"; fi\n");
    executable("app/wrapped.sh", "#!/bin/bash\nnpm start\n");
    executable("app/binary", "\u{7f}ELF");
    executable("app/worker.py", "#!/usr/bin/python3\n");
    fs::write(at("other/server.js"), "").expect("file");
    fs::write(at("other/package.json"), r#"{"name": "other"}"#).expect("file");
    fs::write(at("app/package.json"), PACKAGE).expect("file");
    let place = Place { folder: at("app"), path: vec![at("bin"), "/usr/bin".into(), "/bin".into()] };
    (folder, place)
}

const PACKAGE: &str = r#"{
    "name": "app", "version": "1.2.3", "config": {"port": 3000, "nested": {"a-b": "c"}},
    "scripts": {
        "start": "node server.js",
        "prestart": "npm run build",
        "poststart": "echo done",
        "build": "node build.js",
        "serve": "npm start",
        "prod": "NODE_ENV=production node server.js",
        "cross": "cross-env NODE_ENV=production node --enable-source-maps server.js",
        "chain": "npm run build && node server.js",
        "pretty": "node server.js 2>&1 | tool --colour",
        "flags": "node server.js --port $PORT",
        "either": "test -f dist.js && node dist.js || node server.js",
        "loop": "npm run pool", "pool": "npm run loop",
        "tool": "serve --quiet",
        "typed": "tsx server.ts",
        "python": "python3 worker.py",
        "number": 7
    }
}"#;

/// Splits as a shell would.
fn words(line: &str) -> Vec<String> {
    shell::split(line).expect("a plain line")
}

fn at(place: &Place, line: &str) -> Recognised {
    recognise(&words(line), place, None).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn error(place: &Place, line: &str) -> String {
    recognise(&words(line), place, None).expect_err(line).to_string()
}

/// What a package manager's line is run as, without the environment that is set for it.
fn run_as(place: &Place, line: &str) -> Vec<String> {
    let command = at(place, line).command;
    let assigned = usize::from(command[0] == "env");
    let start = command[assigned..].iter().take_while(|word| shell::assignment(word).is_some()).count();
    command[assigned + start..].to_vec()
}

#[test]
fn a_start_of_node_is_recognised_and_left_as_it_is() {
    let (_folder, place) = project();
    for line in [
        "node server.js",
        "nodejs server.js",
        "/usr/bin/node --enable-source-maps server.js",
        "node20 server.js",
        "node-v22.3.0 server.js",
        "env node server.js",
        "env -u HOME A=1 B=2 -- node server.js",
        "env -C sub -- A=1 node ../server.js",
        "/usr/bin/env -uHOME --chdir=sub node server.js",
        "sh -c 'node server.js'",
        "bash -ec 'cd sub; exec node server.js'",
        "sh -c 'A=1 node server.js >log 2>&1'",
        "sh -c 'exec node \"$@\"' sh server.js",
        "sh run.sh --port 3",
        "nice node server.js",
        "nice -n 5 ionice -c2 -n 7 node server.js",
        "taskset -c 0,1 node server.js",
        "chrt -f 10 node server.js",
        "chrt --batch 0 stdbuf -oL node server.js",
        "setpriv --reuid 1000 --clear-groups -- node server.js",
        "timeout -k 5 3600 nohup node server.js",
        "tini -- node server.js",
        "gosu app:app node server.js",
        "unknown-runner --opt x -- node server.js",
        "./server.mjs",
        "./server.mjs --port 3",
        "./flagged.mjs",
        "./run.sh",
        "tool",
        "sh -c 'if true; then node server.js; fi'",
        "sh -c 'cat <<X | node server.js'",
    ] {
        let seen = at(&place, line);
        let expected = Recognised { dialect: Dialect::Node, command: words(line), said: vec![], warnings: vec![] };
        assert_eq!(seen, expected, "{line}");
    }
}

#[test]
fn what_is_not_node_speaks_our_own_dialect() {
    let (_folder, place) = project();
    for line in [
        "./binary",
        "python3 worker.py",
        "./worker.py",
        "no-such-program",
        "env A=node ./binary",
        "sh -c 'echo node'",
        "sh -c './binary --runtime node'",
        "nice ./binary node",
        "node_exporter",
        "node-gyp",
        "npm install",
        "npm run python",
        "env",
        "taskset -c",
    ] {
        let seen = at(&place, line);
        let expected = Recognised { dialect: Dialect::Haft, command: words(line), said: vec![], warnings: vec![] };
        assert_eq!(seen, expected, "{line}");
    }
}

#[test]
fn package_managers_are_seen_through() {
    let (_folder, place) = project();
    let table = [
        ("npm start", "sh -c 'exec node server.js'"),
        ("npm --silent start", "sh -c 'exec node server.js'"),
        ("npm run start --silent", "sh -c 'exec node server.js'"),
        ("npm start -- --port 3", "sh -c 'exec node server.js \"$@\"' sh --port 3"),
        ("npm run-script prod one -- --two", "sh -c 'NODE_ENV=production exec node server.js \"$@\"' sh one --two"),
        ("yarn start --port 3", "sh -c 'exec node server.js \"$@\"' sh --port 3"),
        ("yarn run start -- --port 3", "sh -c 'exec node server.js \"$@\"' sh --port 3"),
        ("yarn prod", "sh -c 'NODE_ENV=production exec node server.js'"),
        ("pnpm start", "sh -c 'exec node server.js'"),
        ("pnpm prod --x", "sh -c 'NODE_ENV=production exec node server.js \"$@\"' sh --x"),
        ("pnpm run tool", "sh -c 'exec serve --quiet'"),
        ("npm run cross", "sh -c 'exec env NODE_ENV=production node --enable-source-maps server.js'"),
        ("npm run flags", "sh -c 'exec node server.js --port $PORT'"),
        ("npm run either", "sh -c 'test -f dist.js && node dist.js || node server.js'"),
        ("npm run serve", "sh -c 'exec env npm_lifecycle_event=start sh -c '\\''exec node server.js'\\'''"),
        ("node --run start -- --port 3", "sh -c 'exec node server.js \"$@\"' sh --port 3"),
        ("npx serve --port 3", "serve --port 3"),
        ("npx -y node server.js", "node server.js"),
        ("npm exec -- serve --port 3", "serve --port 3"),
        ("npx -c 'serve --quiet'", "sh -c 'exec serve --quiet'"),
        ("yarn node server.js", "node server.js"),
        ("yarn serve", "sh -c 'exec env npm_lifecycle_event=start sh -c '\\''exec node server.js'\\'''"),
        ("pnpm exec serve", "serve"),
        ("corepack yarn start", "sh -c 'exec node server.js'"),
    ];
    for (line, expected) in table {
        assert_eq!(shell::join(&run_as(&place, line)), expected, "{line}");
        assert_eq!(at(&place, line).dialect, Dialect::Node, "{line}");
    }
}

#[test]
fn only_the_server_gets_the_channel() {
    let (_folder, place) = project();
    let away = "env -u NODE_CHANNEL_FD -u NODE_UNIQUE_ID -u NODE_CHANNEL_SERIALIZATION_MODE";
    let table = [
        ("npm run chain", format!("{away} npm run build && exec node server.js")),
        ("npm run pretty", format!("node server.js 2>&1 | {away} tool --colour")),
        ("sh -c 'A=1 node a.js; node b.js'", format!("A=1 {away} node a.js; node b.js")),
        ("sh -c 'npm run python && node b.js'", format!("{away} npm run python && node b.js")),
        ("sh -c 'npx missing && node b.js'", format!("{away} npx missing && node b.js")),
        // A branch may be the only one that runs.
        ("sh -c 'node a.js || node b.js'", "node a.js || node b.js".to_owned()),
    ];
    for (line, expected) in table {
        assert_eq!(run_as(&place, line)[2], expected, "{line}");
    }
}

#[test]
fn the_words_around_a_package_manager_stay() {
    let (_folder, place) = project();
    let command = at(&place, "nice -n 5 env A=1 npm start").command;
    assert_eq!(command[..5], words("nice -n 5 env A=1")[..]);
    assert_eq!(shell::join(&command[command.len() - 3..]), "sh -c 'exec node server.js'");

    let text = at(&place, "sh -c 'A=$B npm run tool -- \"$HOME\" >log'").command[2].clone();
    assert!(text.starts_with("A=$B env "), "{text}");
    assert!(text.ends_with(r#" sh -c 'exec serve --quiet "$@"' sh "$HOME" >log"#), "{text}");

    let seen = at(&place, "env -i -u X A=1 node server.js");
    let channel = look::CHANNEL.map(|name| format!("{name}=\"${{{name}-}}\"")).join(" ");
    let text = format!("exec env -i -u X {channel} \"$@\"");
    assert_eq!(seen.command, [words("sh -c"), vec![text], words("sh A=1 node server.js")].concat());
    assert_eq!(at(&place, "env -S 'A=1 node --x' server.js").command, words("env A=1 node --x server.js"));
}

#[test]
fn it_is_said_what_is_run_instead_and_what_is_not() {
    let (_folder, place) = project();
    let seen = at(&place, "npm start");
    let said = "npm start is run as: sh -c 'exec node server.js' - because npm would keep the channel to itself";
    assert_eq!(seen.said, [said]);
    assert_eq!(seen.warnings.len(), 2);
    assert!(seen.warnings[0].contains("its script prestart (npm run build) is not run"), "{}", seen.warnings[0]);
    assert!(seen.warnings[1].contains("poststart (echo done)"), "{}", seen.warnings[1]);
    assert_eq!(at(&place, "npm run prod").warnings, Vec::<String>::new());
    // A build before the server is none of a worker's business.
    assert_eq!(at(&place, "npm run chain").said.len(), 1);
    assert_eq!(at(&place, "npm run serve").said.len(), 1);
    let port = at(&place, "sh -c 'npm start -- --port ${PORT:-3000} > /dev/null'");
    assert!(port.said[0].contains("sh --port $... "), "{}", port.said[0]);
    assert!(port.command.last().is_some_and(|text| text.ends_with("sh --port ${PORT:-3000} > /dev/null")));
}

#[test]
fn tools_that_start_another_node_are_told_by_name() {
    let (_folder, place) = project();
    let table = [
        ("tsx server.ts", "node --import tsx FILE"),
        ("npx tsx server.ts", "node --import tsx FILE"),
        ("npm run typed", "node --import tsx FILE"),
        ("nodemon server.js", "node FILE"),
        ("pm2-runtime server.js", "haft starts, watches and restarts"),
        ("dotenv -e .env -- node server.js", "node --env-file=.env FILE"),
        ("node --watch server.js", "leave --watch out"),
        ("node -r ./pre.js -e 'x()'", "must be a file"),
        ("sudo -u app node server.js", "use setpriv"),
        ("setsid node server.js", "leave it out"),
        ("./wrapped.sh", "write the server's own command into it"),
        ("sh wrapped.sh", "write the server's own command into it"),
    ];
    for (line, cure) in table {
        let seen = at(&place, line);
        assert_eq!(seen.dialect, Dialect::Node, "{line}");
        assert!(seen.warnings.iter().any(|warning| warning.contains(cure)), "{line}: {:?}", seen.warnings);
    }
}

#[test]
fn what_is_not_there_is_named() {
    let (folder, mut place) = project();
    let package = folder.path().join("app/package.json");
    let known = "build, chain, cross, either, flags, loop, pool, poststart, prestart, pretty, prod, python, serve, \
                 start, tool, typed";
    let script = error(&place, "npm run sevre");
    assert_eq!(script, format!("npm run sevre: {} has no script \"sevre\"; it has: {known}", package.display()));
    assert!(error(&place, "npm run").contains("name the script to run; there are: build, "));
    assert!(error(&place, "yarn nothing").contains("has no script \"nothing\""));
    assert!(error(&place, "npx nothing").contains("npm install nothing"));
    assert!(error(&place, "npm run loop").contains("call each other without end"));
    assert!(error(&place, "npm -w member start").contains("go to the folder of member"));
    assert!(error(&place, "pnpm --filter member start").contains("go to the folder of member"));
    assert!(error(&place, "sh -c 'npm run build && npm run sevre'").contains("has no script \"sevre\""));
    fs::write(&package, "{,}").expect("file");
    assert!(error(&place, "npm start").contains("app/package.json: key must be a string at line 1"));
    place.folder = "/nonexistent".into();
    assert!(error(&place, "npm start").contains("no package.json in /nonexistent or above it"));
}

#[test]
fn a_dialect_that_was_asked_for_is_used() {
    let (_folder, place) = project();
    let with = |line: &str, asked| recognise(&words(line), &place, Some(asked)).expect(line);
    assert_eq!(with("npm start", Dialect::Haft).command, words("npm start"));
    assert_eq!(with("node x.js", Dialect::Haft).dialect, Dialect::Haft);
    assert_eq!(with("./binary", Dialect::Node).dialect, Dialect::Node);
    assert_eq!(with("./binary", Dialect::Node).command, words("./binary"));
    assert_eq!(
        with("npm run python", Dialect::Node).command.last().map(String::as_str),
        Some("exec python3 worker.py")
    );
}

/// Runs what a line is recognised as, with a channel in the environment, and gives what the `node` above has said.
fn ran(line: &str, place: &Place, folder: &Path) -> String {
    let command = recognise(&words(line), place, None).unwrap_or_else(|error| panic!("{line}: {error}")).command;
    let path = std::env::join_paths(&place.path).expect("PATH");
    let output = Command::new(&command[0])
        .args(&command[1..])
        .env_remove("npm_lifecycle_event")
        .env("PATH", path)
        .env("PORT", "4 5")
        .env("NODE_CHANNEL_FD", "3")
        .current_dir(folder)
        .output()
        .expect(line);
    String::from_utf8(output.stdout).expect("text")
}

#[test]
fn what_is_run_instead_does_the_same() {
    let (folder, mut place) = project();
    place.folder = folder.path().join("app/sub");
    let table = [
        ("npm start -- a 'b c' '$d'", "node[server.js a b c $d] in app event=start fd=3\n"),
        ("npm run serve", "node[server.js] in app event=start fd=3\n"),
        ("npm run cross", "node[--enable-source-maps server.js] in app event=cross fd=3\n"),
        ("npm run flags", "node[server.js --port 4 5] in app event=flags fd=3\n"),
        ("env -i PATH=$P NODE_ENV=x node server.js", "node[server.js] in sub event= fd=3\n"),
        (
            "sh -c 'node build.js && npm start'",
            "node[build.js] in sub event= fd=\nnode[server.js] in app event=start fd=3\n",
        ),
        ("sh -c 'cd ../../other; exec npm start'", "node[server.js] in other event=start fd=3\n"),
        ("npm --prefix ../../other start", "node[server.js] in other event=start fd=3\n"),
        ("sh -c 'node a.js | cat; :'", "node[a.js] in sub event= fd=3\n"),
        ("cross-env A=1 node server.js", "node[server.js] in sub event= fd=3\n"),
        ("pnpm -C .. exec node x.js", "node[x.js] in app event= fd=3\n"),
        ("env --chdir ../../other npm start", "node[server.js] in other event=start fd=3\n"),
    ];
    let path = place.path.iter().map(|folder| folder.to_string_lossy()).collect::<Vec<_>>().join(":");
    for (line, expected) in table {
        assert_eq!(ran(&line.replace("$P", &path), &place, &place.folder), expected, "{line}");
    }
}

#[test]
fn each_worker_has_a_port_for_its_inspector() {
    let table = [
        ("node server.js", "node server.js"),
        ("node --inspect server.js", "node --inspect --inspect-port=9231 server.js"),
        ("node --inspect=9300 server.js --inspect=1", "node --inspect=9302 server.js --inspect=1"),
        ("node --inspect=0 server.js", "node --inspect=0 server.js"),
        ("node --inspect=0.0.0.0 server.js", "node --inspect=0.0.0.0:9231 server.js"),
        ("node '--inspect-brk=[::1]:9300' server.js", "node '--inspect-brk=[::1]:9302' server.js"),
        ("node --inspect --inspect-port 9300 x.js", "node --inspect --inspect-port 9302 x.js"),
        ("node -r ./pre.js --inspect=localhost:65535 x.js", "node -r ./pre.js --inspect=localhost:0 x.js"),
        ("nice env A=1 node --inspect x.js", "nice env A=1 node --inspect --inspect-port=9231 x.js"),
        ("sh -c 'exec node --inspect=1 $X'", "sh -c 'exec node --inspect=3 $X'"),
        ("sh -c 'node a.js; node --inspect=1 b.js'", "sh -c 'node a.js; node --inspect=3 b.js'"),
        (
            "sh -c 'NODE_OPTIONS=--inspect node x.js'",
            "sh -c 'NODE_OPTIONS='\\''--inspect --inspect-port=9231'\\'' node x.js'",
        ),
        ("npm start --inspect", "npm start --inspect"),
    ];
    for (line, expected) in table {
        let PerWorker { command, node_options } = inspect::for_slot(&words(line), None, 2);
        assert_eq!((shell::join(&command).as_str(), node_options), (expected, None), "{line}");
    }
}

#[test]
fn node_options_name_a_port_for_each_worker_too() {
    let table = [
        ("--max-old-space-size=512", "node x.js", "--max-old-space-size=512", "node x.js"),
        ("--inspect", "node x.js", "--inspect --inspect-port=9231", "node x.js"),
        ("--inspect=9400 --foo", "node x.js", "--inspect=9402 --foo", "node x.js"),
        // The command line's bare --inspect means the port that the environment names.
        ("--inspect-port=9400", "node --inspect x.js", "--inspect-port=9402", "node --inspect x.js"),
    ];
    for (options, line, expected_options, expected) in table {
        let PerWorker { command, node_options } = inspect::for_slot(&words(line), Some(options), 2);
        assert_eq!(node_options.as_deref(), Some(expected_options), "{options}");
        assert_eq!(shell::join(&command), expected, "{options}");
    }
}

#[test]
fn npm_s_environment_is_there() {
    let (folder, place) = project();
    let command = at(&place, "npm start").command;
    let app = folder.path().join("app");
    let bin = format!("PATH={}/node_modules/.bin:", app.display());
    for entry in [
        "npm_lifecycle_event=start",
        "npm_package_name=app",
        "npm_package_version=1.2.3",
        "npm_package_config_port=3000",
        "npm_package_config_nested_a_b=c",
        &format!("npm_package_json={}/package.json", app.display()),
        &format!("INIT_CWD={}", app.display()),
    ] {
        assert!(command.iter().any(|word| word == entry), "{entry} in {command:?}");
    }
    assert!(command.iter().any(|word| word.starts_with(&bin)), "{bin} in {command:?}");
}
