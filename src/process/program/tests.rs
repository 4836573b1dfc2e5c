//! Whole command lines, in a folder with a package.json.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use tempfile::TempDir;

use super::inspect::PerWorker;
use super::*;

/// A project with installed programs, and a `node` that reports how it was started.
fn project() -> (TempDir, LaunchContext) {
    let folder = TempDir::new().expect("temporary folder");
    let at = |name: &str| folder.path().join(name);
    for inner in ["bin", "app/node_modules/.bin", "app/sub", "other"] {
        fs::create_dir_all(at(inner)).expect("folder");
    }
    let executable = |name: &str, text: &str| {
        fs::write(at(name), text).expect("file");
        fs::set_permissions(at(name), fs::Permissions::from_mode(0o755)).expect("mode");
    };
    executable("bin/node", "#!/bin/sh\necho \"node[$*] event=$npm_lifecycle_event A=$A\"\n");
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
    let place = LaunchContext { folder: at("app"), path: vec![at("bin"), "/usr/bin".into(), "/bin".into()] };
    (folder, place)
}

const PACKAGE: &str = r#"{
    "name": "app", "version": "1.2.3", "config": {"port": 3000, "nested": {"a-b": "c"}},
    "scripts": {
        "start": "node server.js",
        "early": "node server.js", "preearly": "npm run build", "postearly": "echo done",
        "build": "node build.js",
        "serve": "npm start",
        "prod": "NODE_ENV=production node server.js",
        "cross": "cross-env NODE_ENV=production node --enable-source-maps server.js",
        "chain": "npm run build && node server.js",
        "pretty": "node server.js 2>&1 | tool --colour",
        "flags": "node server.js --port $PORT",
        "options": "NODE_OPTIONS=--max-old-space-size=100 A=1 node server.js",
        "several": "NODE_OPTIONS='--max-old-space-size=100 --x' A=1 node \"server.js\"",
        "crossed": "cross-env NODE_OPTIONS=--max-old-space-size=100 A=1 node server.js",
        "lost": "NODE_OPTIONS=--x node server.js | tool",
        "deno": "A=1 deno run -A server.ts",
        "denoed": "true && deno run -A server.ts",
        "quoted": "node 'server.js' \"$A\"",
        "wrapped": "node node_modules/.bin/nodemon server.js",
        "either": "test -f dist.js && node dist.js || node server.js",
        "tool": "serve --quiet",
        "typed": "tsx server.ts",
        "python": "python3 worker.py",
        "number": 7
    }
}"#;

/// Words that are parted by blanks; those within apostrophes are one.
fn words(line: &str) -> Vec<String> {
    let parts = line.split('\'').enumerate();
    let split = |(at, part): (usize, &str)| match at % 2 {
        0 => part.split_whitespace().map(str::to_owned).collect::<Vec<_>>(),
        _ => vec![part.to_owned()],
    };
    parts.flat_map(split).collect()
}

fn at(place: &LaunchContext, line: &str) -> Recognised {
    recognise(&words(line), place, None).unwrap_or_else(|error| panic!("{line}: {error}"))
}

fn error(place: &LaunchContext, line: &str) -> String {
    recognise(&words(line), place, None).expect_err(line).to_string()
}

#[test]
fn a_plain_start_of_node_is_direct() {
    let (_folder, place) = project();
    for line in [
        "node server.js",
        "nodejs server.js",
        "/usr/bin/node --enable-source-maps server.js",
        "node20 server.js",
        "node-v22.3.0 server.js",
        "node --import tsx server.ts",
        "node -r ./pre.js --env-file .env server.js --watch",
    ] {
        let seen = at(&place, line);
        assert_eq!((seen.dialect, seen.is_wrapped), (Dialect::Node, false), "{line}");
        assert_eq!(
            (seen.command, seen.shown.as_str(), seen.warnings),
            (words(line), words(line).join(" ").as_str(), vec![]),
            "{line}"
        );
    }
}

#[test]
fn env_with_variables_alone_is_no_wrapper_and_its_node_options_are_joined_by_haft_s() {
    let (_folder, place) = project();
    for (line, command, options) in [
        ("env node server.js", "env node server.js", None),
        ("env A=1 B=2 node -r ./x.js server.js", "env A=1 B=2 node -r ./x.js server.js", None),
        ("/usr/bin/env A=1 NODE_OPTIONS=--x node server.js", "/usr/bin/env A=1 node server.js", Some("--x")),
    ] {
        let seen = at(&place, line);
        assert_eq!((seen.dialect, seen.is_wrapped), (Dialect::Node, false), "{line}");
        assert_eq!((seen.command, seen.node_options.as_deref()), (words(command), options), "{line}");
    }
}

#[test]
fn everything_else_that_leads_to_node_is_run_as_it_stands() {
    let (_folder, place) = project();
    for line in [
        "env -u HOME A=1 B=2 -- node server.js",
        "/usr/bin/env -uHOME --chdir=sub node server.js",
        "env -S 'A=1 node --x' server.js",
        "sh -c 'node server.js'",
        "bash -ec 'cd sub; exec node server.js'",
        "sh -c 'A=1 node server.js >log 2>&1'",
        "sh -c 'true && node b.js; true'",
        "sh -c 'if true; then node server.js; fi'",
        "sh -c 'cat <<X | node server.js'",
        "sh run.sh --port 3",
        "nice -n 5 ionice -c2 -n 7 node server.js",
        "taskset -c 0,1 node server.js",
        "chrt -f 10 node server.js",
        "setpriv --reuid 1000 --clear-groups -- node server.js",
        "timeout -k 5 3600 nohup node server.js",
        "tini -- node server.js",
        "gosu app:app node server.js",
        "unknown-runner --opt x -- node server.js",
        "./server.mjs",
        "./flagged.mjs",
        "./run.sh",
        "./wrapped.sh",
        "tool",
        "node --watch server.js",
        "node -e 'x()'",
        "node node_modules/.bin/nodemon server.js",
        "node /usr/lib/node_modules/npm/bin/npm-cli.js start",
        "npm start --port 3",
        "npm --silent start",
        "npm run chain",
        "npm run flags",
        "npm run quoted",
        "npm run wrapped",
        "npm run serve",
        "npm run cross",
        "npm run either",
        "npm run typed",
        "npm -w member start",
        "npx serve --port 3",
        "npx -y node server.js",
        "npx -c 'serve --quiet'",
        "npx not-installed",
        "yarn serve",
        "yarn node server.js",
        "yarn start -- --port 3",
        "pnpm exec serve",
        "pnpm run tool",
        "corepack yarn start",
        "tsx server.ts",
        "npx tsx server.ts",
        "nodemon server.js",
        "dotenv -e .env -- node server.js",
        "cross-env A=1 node server.js",
        "node --run chain",
    ] {
        assert_as_it_stands(&place, line);
    }
}

#[test]
fn what_a_program_or_a_shell_starts_from_its_arguments_is_found() {
    let (_folder, place) = project();
    for line in [
        "sh -c 'exec \"$@\"' sh node server.js",
        "sh -c 'exec \"$0\" \"$1\"' node server.js",
        "sh -c 'exec \"$1\" \"$2\"' sh node server.js",
        "bash -c 'cd sub && $0 $*' ./server.mjs --port 3",
        "./binary exec role node --enable-source-maps server.mjs",
        "nice ./binary ./env npm start",
    ] {
        assert_as_it_stands(&place, line);
    }
}

fn assert_as_it_stands(place: &LaunchContext, line: &str) {
    let seen = at(place, line);
    assert_eq!((seen.dialect, seen.is_wrapped), (Dialect::Node, true), "{line}");
    assert_eq!((seen.command, seen.warnings), (words(line), vec![]), "{line}");
}

#[test]
fn deno_opens_the_channel_itself_through_whatever_is_no_node() {
    let (_folder, place) = project();
    for line in [
        "deno run -A server.ts",
        "deno -A server.ts",
        "/usr/local/bin/deno task start",
        "sh -c 'true && deno run -A server.ts'",
        "env A=1 nice deno run -A server.ts",
    ] {
        let seen = at(&place, line);
        let kind = (seen.dialect, seen.is_wrapped, seen.runs_on_node);
        assert_eq!((kind, seen.command, seen.warnings), ((Dialect::Node, false, false), words(line), vec![]), "{line}");
    }
    assert!(at(&place, "node server.js").runs_on_node && at(&place, "npm start").runs_on_node);
    assert!(!at(&place, "env A=1 deno run server.ts").runs_on_node && !at(&place, "npm run deno").runs_on_node);
}

#[test]
fn what_is_not_node_speaks_our_own_dialect() {
    let (_folder, place) = project();
    for line in [
        "./binary",
        "python3 worker.py",
        "./worker.py",
        "no-such-program",
        "./binary node",
        "./binary node missing.js",
        "./binary npm run missing",
        "env A=node ./binary",
        "sh -c 'echo node'",
        "sh -c './binary --runtime node'",
        "sh -c '# node x\n./binary'",
        "nice ./binary node",
        "node_exporter",
        "node-gyp",
        "deno install",
        "npm install",
        "npm run python",
        "env",
        "sh",
        "npm",
        "taskset -c",
    ] {
        let seen = at(&place, line);
        assert_eq!((seen.dialect, seen.is_wrapped), (Dialect::Haft, false), "{line}");
        assert_eq!(
            (seen.command, seen.shown.as_str(), seen.warnings),
            (words(line), words(line).join(" ").as_str(), vec![]),
            "{line}"
        );
    }
}

#[test]
fn a_script_that_is_plainly_node_is_direct_with_what_its_package_manager_would_add() {
    let (folder, place) = project();
    let app = folder.path().join("app");
    for (line, runs, event) in [
        ("npm start", "node server.js", "start"),
        ("npm run start -- --port 3", "node server.js --port 3", "start"),
        ("npm run-script prod -- one --two", "NODE_ENV=production node server.js one --two", "prod"),
        ("yarn start --port 3", "node server.js --port 3", "start"),
        ("yarn run prod", "NODE_ENV=production node server.js", "prod"),
        ("pnpm start", "node server.js", "start"),
        ("node --run start -- --port 3", "node server.js --port 3", "start"),
        ("npm run options", "A=1 node server.js", "options"),
        ("npm run several", "A=1 node server.js", "several"),
        ("npm run crossed", "A=1 node server.js", "crossed"),
    ] {
        let seen = at(&place, line);
        assert_eq!((seen.dialect, seen.is_wrapped), (Dialect::Node, false), "{line}");
        assert!(seen.command.ends_with(&words(runs)), "{line}: {:?}", seen.command);
        let (program, _) = seen.shown.split_once(" (").expect("what was typed");
        assert!(program.replace('"', "").ends_with("node server.js"), "{line}: {}", seen.shown);
        let bin = format!("PATH={}/node_modules/.bin:", app.display());
        assert!(seen.command.iter().any(|word| word.starts_with(&bin)), "{line}: {:?}", seen.command);
        for entry in [
            &format!("npm_lifecycle_event={event}"),
            "npm_package_name=app",
            "npm_package_version=1.2.3",
            "npm_package_config_port=3000",
            "npm_package_config_nested_a_b=c",
            &format!("npm_package_json={}/package.json", app.display()),
            &format!("INIT_CWD={}", app.display()),
        ] {
            assert!(seen.command.iter().any(|word| word == entry), "{line}: {entry} in {:?}", seen.command);
        }
    }
    // The preload is put in front of them.
    for (line, options) in [
        ("npm run options", "--max-old-space-size=100"),
        ("npm run crossed", "--max-old-space-size=100"),
        ("npm run several", "--max-old-space-size=100 --x"),
    ] {
        assert_eq!(at(&place, line).node_options.as_deref(), Some(options), "{line}");
    }
    assert!(at(&place, "npm run deno").command.ends_with(&words("A=1 deno run -A server.ts")));
    let command = at(&place, "npm run options").command;
    let output = Command::new(&command[0]).args(&command[1..]).current_dir(&app).output().expect("env");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "node[server.js] event=options A=1\n");
}

#[test]
fn what_a_package_manager_does_besides_is_not_left_out() {
    let (_folder, mut place) = project();
    let seen = at(&place, "npm run early");
    assert_eq!((seen.is_wrapped, seen.command), (true, words("npm run early")));
    assert_eq!(seen.warnings, ["npm run early runs its preearly and postearly with each start of a worker"]);
    // A script runs in its package's folder.
    place.folder.push("sub");
    assert!(at(&place, "npm start").is_wrapped);
}

#[test]
fn what_cannot_work_is_told_with_its_cure() {
    let (_folder, place) = project();
    for (line, cure) in [
        ("sudo -u app node server.js", "use setpriv"),
        ("bun run server.ts", "on Node or Deno"),
        ("sh -c 'bun --hot server.ts'", "on Node or Deno"),
        ("npm run denoed", "(haft -- deno run FILE)"),
        ("/usr/local/bin/deno serve server.ts", "by node:http and start it by deno run"),
        ("setsid node server.js", "leave it out"),
        ("pm2-runtime server.js", "haft -- node FILE"),
        ("npm run lost", "write NODE_OPTIONS=\"$NODE_OPTIONS ...\""),
        ("cross-env NODE_OPTIONS=--x node server.js", "write NODE_OPTIONS=\"$NODE_OPTIONS ...\""),
    ] {
        let seen = at(&place, line);
        assert_eq!((seen.dialect, seen.warnings.len()), (Dialect::Node, 1), "{line}: {:?}", seen.warnings);
        assert!(seen.warnings[0].contains(cure), "{line}: {:?}", seen.warnings);
    }
}

#[test]
fn an_environment_that_is_emptied_keeps_what_a_worker_needs() {
    let (_folder, place) = project();
    let command = at(&place, "env -i A=1 node server.js").command;
    assert!(command.ends_with(&words("A=1 node server.js")), "{command:?}");
    assert!(command.windows(2).any(|words| words == ["-u", "PATH"]), "{command:?}");
    assert!(!command.iter().any(|word| word == "-i" || word == "NODE_OPTIONS"), "{command:?}");
}

#[test]
fn what_is_not_there_is_named() {
    let (folder, mut place) = project();
    let package = folder.path().join("app/package.json");
    let known = "build, chain, cross, crossed, deno, denoed, early, either, flags, lost, options, postearly, preearly, \
                 pretty, prod, python, quoted, serve, several, start, tool, typed, wrapped";
    let script = error(&place, "npm run sevre");
    assert_eq!(script, format!("npm run sevre: {} has no script \"sevre\"; it has: {known}", package.display()));
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
    let forced = with("./binary", Dialect::Node);
    assert_eq!((forced.dialect, forced.is_wrapped, forced.command), (Dialect::Node, true, words("./binary")));
}

#[test]
fn each_worker_has_a_port_for_its_inspector() {
    let table = [
        ("node server.js", "node server.js"),
        ("node --inspect server.js", "node --inspect --inspect-port=9231 server.js"),
        ("node --inspect=9300 server.js --inspect=1", "node --inspect=9302 server.js --inspect=1"),
        ("node --inspect=0 server.js", "node --inspect=0 server.js"),
        ("node --inspect=0.0.0.0 server.js", "node --inspect=0.0.0.0:9231 server.js"),
        ("node --inspect-brk=[::1]:9300 server.js", "node --inspect-brk=[::1]:9302 server.js"),
        ("node --inspect --inspect-port 9300 x.js", "node --inspect --inspect-port 9302 x.js"),
        ("node -r ./pre.js --inspect=localhost:65535 x.js", "node -r ./pre.js --inspect=localhost:0 x.js"),
        ("nice env A=1 node --inspect x.js", "nice env A=1 node --inspect --inspect-port=9231 x.js"),
    ];
    for (line, expected) in table {
        let PerWorker { command, node_options } = inspect::for_slot(&words(line), None, 2, false);
        assert_eq!((command, node_options), (words(expected), None), "{line}");
    }
    // Where only a shell sees the option, NODE_OPTIONS sets the port of a bare --inspect.
    for (options, expected) in [
        (None, "--inspect-port=9231"),
        (Some("--foo"), "--foo --inspect-port=9231"),
        (Some("--inspect"), "--inspect --inspect-port=9231"),
        (Some("--inspect-port=9400"), "--inspect-port=9402"),
    ] {
        let worker = inspect::for_slot(&words("npm start"), options, 2, true);
        assert_eq!(
            (worker.command, worker.node_options.as_deref()),
            (words("npm start"), Some(expected)),
            "{options:?}"
        );
    }
    let (_folder, place) = project();
    let found = texts(&words("sh -c 'node --inspect x.js'"), &place);
    assert!(
        ["node --inspect x.js", "tsx server.ts"].iter().all(|text| found.iter().any(|found| found == text)),
        "{found:?}"
    );
}
