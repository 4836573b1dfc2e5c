//! Clients that speak raw HTTP and raw WebSocket frames, for tests.

use std::future::Future;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Far longer than anything takes, so that a test ends.
const DEADLINE: Duration = Duration::from_secs(20);

pub(super) async fn soon<F: Future>(what: &str, future: F) -> F::Output {
    match timeout(DEADLINE, future).await {
        Ok(output) => output,
        Err(_) => panic!("{what}: not within {DEADLINE:?}"),
    }
}

/// Waits for a state that nothing announces.
pub(super) async fn until(what: &str, mut state: impl FnMut() -> bool) {
    let reached = async {
        while !state() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    soon(what, reached).await;
}

#[derive(Debug)]
pub(super) struct Reply {
    pub(super) status: u16,
    head: String,
    pub(super) body: Vec<u8>,
}

impl Reply {
    pub(super) fn header(&self, name: &str) -> Option<&str> {
        let line = |line: &'_ str| -> Option<(String, usize)> {
            let (key, _) = line.split_once(':')?;
            Some((key.to_ascii_lowercase(), key.len() + 1))
        };
        self.head.lines().find_map(|text| match line(text) {
            Some((key, at)) if key == name => Some(text[at..].trim()),
            _ => None,
        })
    }

    pub(super) fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("text")
    }
}

/// One connection, spoken to by hand.
pub(super) struct Wire {
    pub(super) stream: TcpStream,
    unread: Vec<u8>,
}

impl Wire {
    pub(super) async fn open(addr: SocketAddr) -> Self {
        let stream = TcpStream::connect(addr).await.expect("connect");
        stream.set_nodelay(true).expect("nodelay");
        Self { stream, unread: Vec::new() }
    }

    pub(super) async fn send(&mut self, bytes: &[u8]) {
        self.stream.write_all(bytes).await.expect("send");
    }

    pub(super) async fn ask(&mut self, request: &str, headers: &[&str], body: &str) {
        let headers: String = headers.iter().map(|header| format!("{header}\r\n")).collect();
        let length = body.len();
        self.send(
            format!("{request} HTTP/1.1\r\nhost: x\r\ncontent-length: {length}\r\n{headers}\r\n{body}").as_bytes(),
        )
        .await;
    }

    pub(super) async fn reply(&mut self) -> Reply {
        soon("an answer", async {
            let end = loop {
                match self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                    Some(end) => break end + 4,
                    None => self.more().await,
                }
            };
            let head: Vec<u8> = self.unread.drain(..end).collect();
            let head = String::from_utf8(head).expect("head");
            let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).expect("status");
            let mut reply = Reply { status, head, body: Vec::new() };
            if reply.header("transfer-encoding") == Some("chunked") {
                self.chunks(&mut reply.body).await;
            } else if let Some(length) = reply.header("content-length") {
                let length = length.parse().expect("length");
                reply.body = self.exactly(length).await;
            }
            reply
        })
        .await
    }

    async fn chunks(&mut self, body: &mut Vec<u8>) {
        loop {
            let end = loop {
                match self.unread.windows(2).position(|two| two == b"\r\n") {
                    Some(end) => break end,
                    None => self.more().await,
                }
            };
            let size = String::from_utf8(self.exactly(end + 2).await).expect("size");
            let size = usize::from_str_radix(size.trim(), 16).expect("size");
            body.extend(self.exactly(size).await);
            self.exactly(2).await;
            if size == 0 {
                return;
            }
        }
    }

    pub(super) async fn get(&mut self, path: &str) -> Reply {
        self.ask(&format!("GET {path}"), &[], "").await;
        self.reply().await
    }

    async fn more(&mut self) {
        let n = self.stream.read_buf(&mut self.unread).await.expect("read");
        assert!(n > 0, "the server closed, unread: {:?}", String::from_utf8_lossy(&self.unread));
    }

    async fn exactly(&mut self, n: usize) -> Vec<u8> {
        while self.unread.len() < n {
            self.more().await;
        }
        self.unread.drain(..n).collect()
    }

    /// Waits until the server has closed; returns what it sent before.
    pub(super) async fn closed(mut self) -> Vec<u8> {
        soon("the server closes", async {
            loop {
                match self.stream.read_buf(&mut self.unread).await {
                    Ok(0) | Err(_) => return self.unread,
                    Ok(_) => {}
                }
            }
        })
        .await
    }

    /// Upgrades the connection.
    pub(super) async fn websocket(addr: SocketAddr, query: &str) -> Result<Self, Reply> {
        let mut wire = Self::open(addr).await;
        let headers = [
            "connection: keep-alive, Upgrade",
            "upgrade: websocket",
            "sec-websocket-version: 13",
            // The example of RFC 6455, 1.3.
            "sec-websocket-key: dGhlIHNhbXBsZSBub25jZQ==",
        ];
        wire.ask(&format!("GET /socket.io/?EIO=4&transport=websocket{query}"), &headers, "").await;
        let reply = wire.reply().await;
        if reply.status != 101 {
            return Err(reply);
        }
        assert_eq!(reply.header("sec-websocket-accept"), Some("s3pPLMBiTxaQ9kYGzzhZRbK+xOo="));
        Ok(wire)
    }

    /// Sends a masked frame of at most 125 bytes.
    pub(super) async fn frame(&mut self, first: u8, payload: &[u8]) {
        const MASK: [u8; 4] = [9, 8, 7, 6];
        let length = u8::try_from(payload.len()).ok().filter(|length| *length < 126).expect("short");
        let masked = payload.iter().zip(MASK.iter().cycle()).map(|(byte, mask)| byte ^ mask);
        let frame: Vec<u8> = [first, 0x80 | length].into_iter().chain(MASK).chain(masked).collect();
        self.send(&frame).await;
    }

    pub(super) async fn say(&mut self, text: &str) {
        self.frame(0x81, text.as_bytes()).await;
    }

    /// The next frame: its first byte and what it carries.
    pub(super) async fn receive(&mut self) -> (u8, String) {
        soon("a frame", async {
            let head = self.exactly(2).await;
            let length = match head[1] {
                126 => u16::from_be_bytes(self.exactly(2).await.try_into().expect("two bytes")).into(),
                short => usize::from(short),
            };
            (head[0], String::from_utf8_lossy(&self.exactly(length).await).into_owned())
        })
        .await
    }

    /// The text of the next frame that begins with `start`.
    pub(super) async fn receive_until(&mut self, start: &str) -> String {
        loop {
            match self.receive().await {
                (0x81, text) if text.starts_with(start) => return text,
                (0x81, _) => {}
                (first, text) => panic!("waiting for {start}: frame {first:#x} {text}"),
            }
        }
    }
}

pub(super) const POLLING: &str = "/socket.io/?EIO=4&transport=polling";

/// Opens a polling session on a connection of its own; returns its id.
pub(super) async fn open(wire: &mut Wire) -> String {
    let reply = wire.get(POLLING).await;
    assert_eq!(reply.status, 200, "{reply:?}");
    let open: serde_json::Value = serde_json::from_str(&reply.text()[1..]).expect("open packet");
    open["sid"].as_str().expect("sid").to_owned()
}

pub(super) async fn post(addr: SocketAddr, sid: &str, packets: &str) -> Reply {
    let mut wire = Wire::open(addr).await;
    wire.ask(&format!("POST {POLLING}&sid={sid}"), &["connection: close"], packets).await;
    wire.reply().await
}

/// Polls until `part` has come; returns all that was received.
pub(super) async fn poll_for(wire: &mut Wire, sid: &str, part: &str) -> String {
    let mut received = String::new();
    while !received.contains(part) {
        let reply = wire.get(&format!("{POLLING}&sid={sid}")).await;
        assert_eq!(reply.status, 200, "{reply:?} after {received:?}");
        assert_ne!(reply.text(), "1", "the session was closed, after {received:?}");
        received += reply.text();
    }
    received
}
