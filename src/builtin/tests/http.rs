use std::fs;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

use super::*;
use crate::builtin::BuiltinError;
use crate::builtin::bundle::Bundle;
use crate::config::Transport;

/// A folder as npm makes it.
fn installed(version: &str) -> TempDir {
    let home = tempfile::tempdir().expect("folder");
    let package = home.path().join("node_modules/socket.io-client");
    fs::create_dir_all(package.join("dist")).expect("folder");
    fs::write(package.join("package.json"), format!(r#"{{"name":"socket.io-client","version":"{version}"}}"#))
        .expect("write");
    for file in ["socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js"] {
        fs::write(package.join("dist").join(file), format!("// {file}\n{}", "x".repeat(2000))).expect("write");
        fs::write(package.join("dist").join(format!("{file}.map")), "{}").expect("write");
    }
    home
}

fn dist(home: &TempDir) -> PathBuf {
    home.path().join("node_modules/socket.io-client/dist")
}

#[tokio::test]
async fn the_bundle_has_the_headers_of_socket_ios_own_server() {
    let home = installed("4.8.4");
    let server = serve(Settings { client_dist: Some(dist(&home)), ..Settings::default() }).await;
    let mut wire = Wire::open(server.addr).await;
    for file in ["socket.io.js", "socket.io.min.js", "socket.io.esm.min.js", "socket.io.msgpack.min.js"] {
        let script = wire.get(&format!("/socket.io/{file}?v=1")).await;
        assert_eq!((script.status, script.text().lines().next()), (200, Some(format!("// {file}").as_str())));
        assert_eq!(script.header("content-type"), Some("application/javascript; charset=utf-8"));
        assert_eq!(script.header("cache-control"), Some("public, max-age=0"));
        assert_eq!(script.header("etag"), Some("\"4.8.4\""));
        let map = wire.get(&format!("/socket.io/{file}.map")).await;
        assert_eq!((map.status, map.text()), (200, "{}"));
        assert_eq!(map.header("content-type"), Some("application/json; charset=utf-8"));
        assert_eq!(map.header("etag"), Some("\"4.8.4\""));
    }
    for (tag, status) in [("\"4.8.4\"", 304), ("W/\"4.8.4\"", 304), ("\"4.8.3\"", 200)] {
        wire.ask("GET /socket.io/socket.io.js", &[&format!("if-none-match: {tag}")], "").await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.body.is_empty()), (status, status == 304), "{tag}");
    }
    for encoding in ["br", "gzip", "deflate"] {
        wire.ask("GET /socket.io/socket.io.js", &[&format!("accept-encoding: {encoding}")], "").await;
        let reply = wire.reply().await;
        assert_eq!(reply.header("content-encoding"), Some(encoding));
        assert!(reply.body.len() < 500, "{} bytes", reply.body.len());
    }
}

#[tokio::test]
async fn without_a_bundle_the_answer_says_what_to_install_and_finds_it_once_it_is_there() {
    let home = tempfile::tempdir().expect("folder");
    let deep = home.path().join("a/b");
    fs::create_dir_all(&deep).expect("folder");
    let bundle = Bundle::new(None, &deep).expect("bundle");
    let none = bundle.serve("socket.io.js", &::http::HeaderMap::new()).await;
    assert_eq!(none.status(), 404);
    let text = axum::body::to_bytes(none.into_body(), 10_000).await.expect("body");
    let text = String::from_utf8_lossy(&text);
    assert!(text.contains("npm install socket.io-client") && text.contains("--client-dist"), "{text}");

    let later = home.path().join("node_modules/socket.io/client-dist");
    fs::create_dir_all(&later).expect("folder");
    fs::write(later.join("socket.io.js"), "/*!\n * Socket.IO v4.7.1\n */").expect("write");
    let there = bundle.serve("socket.io.js", &::http::HeaderMap::new()).await;
    assert_eq!(there.status(), 200, "two folders above, in the other package");
    assert_eq!(there.headers()["etag"], "\"4.7.1\"", "from the banner, for there is no package.json");
    assert_eq!(bundle.serve("socket.io.min.js", &::http::HeaderMap::new()).await.status(), 404);
}

#[tokio::test]
async fn folders_that_are_missing_are_named() {
    let refused =
        |settings| App::new(&settings, IDENTITY, None, Default::default(), Default::default()).err().expect("refused");
    let gone = Path::new("/does/not/exist");
    let error = refused(Settings { static_dir: Some(gone.into()), ..Settings::default() });
    assert!(matches!(error, BuiltinError::StaticDir { .. }));
    assert!(error.to_string().contains("/does/not/exist") && error.to_string().contains("--static"), "{error}");
    let error = refused(Settings { client_dist: Some(gone.into()), ..Settings::default() });
    assert!(error.to_string().contains("/does/not/exist") && error.to_string().contains("--client-dist"), "{error}");
    let error = refused(Settings { cors_origin: vec!["a\nb".to_owned()], ..Settings::default() });
    assert!(matches!(error, BuiltinError::CorsOrigin(_)), "{error}");
    assert!(matches!(refused(Settings { transports: vec![], ..Settings::default() }), BuiltinError::NoTransport));
}

/// What engine.io 6.6 answers, request by request.
#[tokio::test]
async fn bad_requests_are_refused_as_socket_ios_own_server_does() {
    let server = serve(Settings::default()).await;
    let mut wire = Wire::open(server.addr).await;
    let unknown = r#"{"code":1,"message":"Session ID unknown"}"#;
    let transport = r#"{"code":0,"message":"Transport unknown"}"#;
    let bad = r#"{"code":3,"message":"Bad request"}"#;
    for (request, body) in [
        ("GET /socket.io/", transport),
        ("GET /socket.io/?EIO=4&transport=grpc", transport),
        ("GET /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA", unknown),
        ("GET /socket.io/?EIO=4&transport=polling&sid=of-another-length", unknown),
        ("POST /socket.io/?EIO=4&transport=polling&sid=AAAAAAAAAAAAAAAA", unknown),
        ("GET /socket.io/?EIO=3&transport=polling&sid=AAAAAAAAAAAAAAAA", unknown),
        ("POST /socket.io/?EIO=4&transport=polling", r#"{"code":2,"message":"Bad handshake method"}"#),
        ("GET /socket.io/?EIO=4&transport=websocket", bad),
        ("GET /socket.io/?EIO=3&transport=polling", r#"{"code":5,"message":"Unsupported protocol version"}"#),
    ] {
        wire.ask(request, &[], "").await;
        let reply = wire.reply().await;
        assert_eq!((reply.status, reply.text()), (400, body), "{request}");
        assert_eq!(reply.header("content-type"), Some("application/json"), "{request}");
    }
    let refused = Wire::websocket(server.addr, "&sid=AAAAAAAAAAAAAAAA").await.err().expect("refused");
    assert_eq!((refused.status, refused.text()), (400, "Session ID unknown"), "before the WebSocket, not after");

    let sid = open(&mut wire).await;
    for request in ["GET /socket.io/?EIO=4&transport=websocket", "PUT /socket.io/?EIO=4&transport=polling"] {
        wire.ask(&format!("{request}&sid={sid}"), &[], "").await;
        assert_eq!(wire.reply().await.text(), bad, "{request}");
    }
}

#[tokio::test]
async fn a_malformed_request_costs_its_own_connection_only() {
    let server = serve(Settings::default()).await;
    let mut good = Wire::open(server.addr).await;
    let mut bad = Wire::open(server.addr).await;
    bad.send(b"\x16\x03\x01 this is no HTTP\r\n\r\n").await;
    assert!(String::from_utf8_lossy(&bad.closed().await).starts_with("HTTP/1.1 400"));
    assert_eq!(good.get("/").await.status, 200);
}

/// The clock stands still but for what is waited for.
#[tokio::test(start_paused = true)]
async fn a_head_that_does_not_come_is_not_waited_for_for_ever() {
    let server = serve(Settings::default()).await;
    let mut wire = Wire::open(server.addr).await;
    let start = tokio::time::Instant::now();
    wire.send(b"GET / HTTP/1.1\r\nhost: ").await;
    let mut received = Vec::new();
    wire.stream.read_to_end(&mut received).await.expect("read");
    assert!(received.is_empty(), "{}", String::from_utf8_lossy(&received));
    assert!(start.elapsed() >= crate::builtin::HEADER_TIMEOUT);
}

#[tokio::test]
async fn the_path_is_the_prefix_of_what_the_engine_answers() {
    let server = serve(Settings { path: "/x/y/".to_owned(), ..Settings::default() }).await;
    let mut wire = Wire::open(server.addr).await;
    for path in ["/x/y/?EIO=4&transport=polling", "/x/y/more?EIO=4&transport=polling"] {
        assert!(wire.get(path).await.text().starts_with("0{"), "{path}");
    }
    for path in ["/x/y?EIO=4&transport=polling", "/x/yz/?EIO=4&transport=polling", POLLING] {
        assert_eq!(wire.get(path).await.status, 404, "{path}");
    }
    assert!(wire.get("/haft/page.json").await.text().contains(r#""path":"/x/y/""#));
}

#[tokio::test]
async fn a_transport_that_is_not_allowed_is_unknown_and_not_offered() {
    let server = serve(Settings { transports: vec![Transport::Polling], ..Settings::default() }).await;
    let mut wire = Wire::open(server.addr).await;
    let open = wire.get(POLLING).await;
    assert!(open.text().contains(r#""upgrades":[]"#), "{}", open.text());
    let refused = Wire::websocket(server.addr, "").await.err().expect("refused");
    assert_eq!(refused.text(), "Transport unknown");

    let server = serve(Settings { transports: vec![Transport::Websocket], ..Settings::default() }).await;
    let refused = Wire::open(server.addr).await.get(POLLING).await;
    assert_eq!(refused.text(), r#"{"code":0,"message":"Transport unknown"}"#);
    Wire::websocket(server.addr, "").await.expect("a WebSocket").receive_until("0{").await;
}

#[tokio::test]
async fn without_serve_client_the_bundle_is_no_request_of_the_engine() {
    let home = installed("4.8.4");
    let settings = Settings { client_dist: Some(dist(&home)), serve_client: false, ..Settings::default() };
    let server = serve(settings).await;
    let reply = Wire::open(server.addr).await.get("/socket.io/socket.io.js").await;
    assert_eq!(reply.text(), r#"{"code":0,"message":"Transport unknown"}"#);
}

#[tokio::test]
async fn the_page_brings_all_it_needs_and_allows_nothing_else() {
    let server = serve(Settings::default()).await;
    let mut wire = Wire::open(server.addr).await;
    let page = wire.get("/").await;
    assert_eq!((page.status, page.header("content-type")), (200, Some("text/html; charset=utf-8")));
    let policy = page.header("content-security-policy").expect("policy").to_owned();
    assert!(policy.contains("default-src 'none'") && !policy.contains("unsafe"), "{policy}");
    let html = page.text().to_owned();
    assert!(html.contains("on this worker"), "it states that rooms are this worker's only");
    let names = html.split(['"']).filter(|part| part.starts_with("/haft/") || part.contains("://"));
    let mut seen = 0;
    for name in names {
        assert_eq!(wire.get(name).await.status, 200, "{name}");
        seen += 1;
    }
    assert!(seen >= 3, "script, style, icon");
    assert!(wire.get("/haft/client.js").await.text().contains("Released under the MIT License"));
    let facts: serde_json::Value = serde_json::from_str(wire.get("/haft/page.json").await.text()).expect("json");
    assert_eq!(facts["worker"], serde_json::json!({"slot": 3, "generation": 2, "pid": 4711}));
    assert_eq!(facts["transports"], serde_json::json!(["polling", "websocket"]));

    let etag = page.header("etag").expect("etag").to_owned();
    wire.ask("GET /", &[&format!("if-none-match: {etag}")], "").await;
    assert_eq!(wire.reply().await.status, 304);
    wire.ask("DELETE /", &[], "").await;
    assert_eq!(wire.reply().await.status, 405);
    assert_eq!(wire.get("/nothing").await.status, 404);
}

#[tokio::test]
async fn a_static_folder_takes_the_place_of_the_page_and_shows_nothing_beside_it() {
    let home = tempfile::tempdir().expect("folder");
    fs::write(home.path().join("secret.txt"), "secret").expect("write");
    let public = home.path().join("public");
    fs::create_dir_all(public.join("sub")).expect("folder");
    fs::write(public.join("index.html"), "<h1>mine</h1>").expect("write");
    fs::write(public.join("sub/index.html"), "<h1>sub</h1>").expect("write");
    fs::write(public.join("a.js"), "1").expect("write");
    fs::write(public.join("a.svg"), "<svg/>").expect("write");
    let server = serve(Settings { static_dir: Some(public), ..Settings::default() }).await;
    let mut wire = Wire::open(server.addr).await;
    for (path, status, kind, body) in [
        ("/", 200, "text/html; charset=utf-8", "<h1>mine</h1>"),
        ("/sub/", 200, "text/html; charset=utf-8", "<h1>sub</h1>"),
        ("/a.js", 200, "text/javascript; charset=utf-8", "1"),
        ("/a.svg", 200, "image/svg+xml", "<svg/>"),
        ("/haft/page.js", 404, "text/plain; charset=utf-8", "There is nothing at this address.\n"),
    ] {
        let reply = wire.get(path).await;
        assert_eq!((reply.status, reply.text()), (status, body), "{path}");
        assert_eq!(reply.header("content-type"), Some(kind), "{path}");
    }
    for path in ["/../secret.txt", "/%2e%2e/secret.txt", "/sub/..%2f..%2fsecret.txt", "/..%5csecret.txt"] {
        let reply = wire.get(path).await;
        assert!(reply.status >= 400 && !reply.text().contains("secret"), "{path}: {reply:?}");
    }
    assert!(wire.get(POLLING).await.text().starts_with("0{"), "the engine is still there");
}

#[tokio::test]
async fn a_static_folder_follows_no_link_out_of_itself_and_redirects_nowhere_else() {
    use std::os::unix::fs::symlink;
    let home = tempfile::tempdir().expect("folder");
    let (outside, release) = (home.path().join("outside"), home.path().join("release"));
    for folder in [&outside, &release, &release.join("sub")] {
        fs::create_dir(folder).expect("folder");
        fs::write(folder.join("index.html"), folder.file_name().expect("name").as_encoded_bytes()).expect("write");
    }
    symlink("../outside/index.html", release.join("file.html")).expect("link");
    symlink(outside.join("index.html"), release.join("absolute.html")).expect("link");
    symlink("/proc/self/environ", release.join("environ")).expect("link");
    symlink("/dev/zero", release.join("zero")).expect("link");
    symlink("../outside", release.join("folder")).expect("link");
    symlink("folder", release.join("twice")).expect("link");
    symlink("loop", release.join("loop")).expect("link");
    symlink("sub/index.html", release.join("within.html")).expect("link");
    symlink(release.join("sub"), release.join("inner")).expect("link");
    nix::unistd::mkfifo(&release.join("pipe"), nix::sys::stat::Mode::S_IRUSR).expect("pipe");
    // What is served may itself be a link, as releases are switched.
    let current = home.path().join("current");
    symlink(&release, &current).expect("link");
    let server = serve(Settings { static_dir: Some(current), ..Settings::default() }).await;
    let mut wire = Wire::open(server.addr).await;
    for (path, status, body) in [
        ("/", 200, "release"),
        ("/within.html", 200, "sub"),
        ("/inner/", 200, "sub"),
        ("//sub/", 200, "sub"),
        ("/file.html", 404, ""),
        ("/absolute.html", 404, ""),
        ("/environ", 404, ""),
        ("/zero", 404, ""),
        ("/folder/", 404, ""),
        ("/folder", 404, ""),
        ("/folder/index.html", 404, ""),
        ("/twice/index.html", 404, ""),
        ("/pipe", 404, ""),
    ] {
        let reply = wire.get(path).await;
        assert_eq!((reply.status, reply.header("location")), (status, None), "{path}: {reply:?}");
        assert!(status == 404 || reply.text() == body, "{path}: {reply:?}");
    }
    assert!(wire.get("/loop").await.status >= 400);
    for path in ["/sub", "//sub", "///sub", "/inner", "http://evil.example/sub", "http://evil.example//sub"] {
        let reply = Wire::open(server.addr).await.get(path).await;
        let own = if path == "/inner" { "/inner/" } else { "/sub/" };
        assert_eq!((reply.status, reply.header("location")), (307, Some(own)), "{path}");
    }
}

#[tokio::test]
async fn a_websocket_of_a_foreign_site_is_refused_where_sites_are_named() {
    let handshake = |origin: &str, query: &str| {
        format!(
            "GET /socket.io/?EIO=4&transport=websocket{query} HTTP/1.1\r\nHost: own.example\r\nOrigin: {origin}\r\n\
             Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
             Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n"
        )
    };
    for (named, origin, status) in [
        (&["https://a.example"][..], "https://evil.example", 403),
        (&["https://a.example"], "null", 403),
        (&["https://a.example"], "https://a.example", 101),
        (&["https://a.example"], "https://own.example", 101),
        (&["*"], "https://evil.example", 101),
        (&[], "https://evil.example", 101),
    ] {
        let cors_origin = named.iter().map(|origin| (*origin).to_owned()).collect();
        let server = serve(Settings { cors_origin, ..Settings::default() }).await;
        let sid = open(&mut Wire::open(server.addr).await).await;
        for query in [String::new(), format!("&sid={sid}")] {
            let mut wire = Wire::open(server.addr).await;
            wire.send(handshake(origin, &query).as_bytes()).await;
            let reply = wire.reply().await;
            assert_eq!(reply.status, status, "{named:?} {origin} {query}");
            if status == 403 {
                assert_eq!((reply.text(), reply.header("connection")), ("Forbidden", Some("close")));
            }
        }
    }
}

#[tokio::test]
async fn only_the_named_origins_may_call_from_elsewhere() {
    let allowed = |origins: &[&str]| Settings {
        cors_origin: origins.iter().map(|origin| (*origin).to_owned()).collect(),
        ..Settings::default()
    };
    for (origins, asks, answer) in [
        (&["https://a.example", "https://b.example"][..], "https://b.example", Some("https://b.example")),
        (&["https://a.example"][..], "https://evil.example", None),
        (&["*"][..], "https://any.example", Some("*")),
        (&[][..], "https://any.example", None),
    ] {
        let server = serve(allowed(origins)).await;
        let mut wire = Wire::open(server.addr).await;
        for path in [POLLING, "/socket.io/?EIO=4&transport=polling&sid=unknown"] {
            wire.ask(&format!("GET {path}"), &[&format!("origin: {asks}")], "").await;
            assert_eq!(wire.reply().await.header("access-control-allow-origin"), answer, "{origins:?} {path}");
        }
        let preflight = ["access-control-request-method: POST", "access-control-request-headers: content-type"];
        wire.ask(&format!("OPTIONS {POLLING}"), &[preflight[0], preflight[1], &format!("origin: {asks}")], "").await;
        let reply = wire.reply().await;
        assert_eq!(reply.header("access-control-allow-origin"), answer, "{origins:?}");
        if answer.is_some() {
            assert_eq!(reply.header("access-control-allow-headers"), Some("content-type"));
        }
    }
}
