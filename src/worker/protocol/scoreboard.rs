//! What stands in a worker's page of the scoreboard: docs/scoreboard.md has the layout for other languages. Pure.

/// Bytes of a page.
pub const PAGE: u64 = 4096;
/// Numbers in what is written: 8 bytes each, little-endian.
const WORDS: usize = 64;
/// Bytes that are written.
pub const RECORD: usize = WORDS * 8;
/// The layout's name and version, the first word.
const MAGIC: u64 = u64::from_le_bytes(*b"haftsb01");
/// Where the sequence number stands, and once more.
const SEQUENCE: [usize; 2] = [1, WORDS - 1];
/// When it was written, in milliseconds since 1970.
const WRITTEN: usize = 2;
/// Where it stands how many figures follow.
const COUNT: usize = 3;
/// How many a page has that does not say so: the first version had these.
const FIRST_COUNT: u64 = 29;
/// Where the figures begin, in the order of [`Field::ALL`].
const FIRST: usize = 4;
/// Stands for a figure that is not known.
const UNKNOWN: u64 = u64::MAX;

/// A figure that a worker may report.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(usize)]
pub enum Field {
    /// Connections that are open.
    OpenConnections,
    /// Connections that have come.
    Connections,
    /// Sessions of Engine.IO over HTTP long-polling.
    PollingSessions,
    /// Sessions over WebSocket.
    WebsocketSessions,
    /// Sessions over another transport, or of which the transport is not known.
    OtherSessions,
    /// Sessions that have begun.
    SessionsOpened,
    /// Sessions that have moved from long-polling to another transport.
    Upgrades,
    /// Messages from clients.
    MessagesIn,
    /// Messages to clients.
    MessagesOut,
    /// Bytes from clients.
    BytesIn,
    /// Bytes to clients.
    BytesOut,
    /// By how much the event loop was late in the last second, nanoseconds: the median.
    LoopDelayP50,
    /// The same: what 99 of 100 were below.
    LoopDelayP99,
    /// The same: the most.
    LoopDelayMax,
    /// Bytes of the heap in use.
    HeapUsed,
    /// Bytes that the heap may have.
    HeapLimit,
    /// Sessions that have ended: no answer to a ping came in time.
    ClosedPingTimeout,
    /// Sessions that have ended: the client has gone.
    ClosedTransport,
    /// Sessions that have ended: by an error of the transport or in what the client sent.
    ClosedError,
    /// Sessions that the program has ended.
    ClosedByServer,
    /// Sessions that have ended for another reason.
    ClosedOther,
    /// Requests refused: the transport is unknown.
    RefusedTransport,
    /// Requests refused: the session is unknown.
    RefusedSession,
    /// Requests refused: a session must begin with GET.
    RefusedMethod,
    /// Requests refused: malformed.
    RefusedRequest,
    /// Requests refused: the program does not allow them.
    RefusedForbidden,
    /// Requests refused: a version of the protocol that is not spoken.
    RefusedProtocol,
    /// Requests refused for another reason, such as a worker that is ending.
    RefusedOther,
    /// Errors that the program did not catch.
    UncaughtErrors,
    /// Connections and polling sessions closed: one held more memory than one may.
    ClosedMemoryConnection,
    /// Connections and polling sessions closed: all together held more memory than the worker may.
    ClosedMemoryWorker,
    /// Connections closed: the client read nothing of what waited for it for the time of a heartbeat.
    ClosedMemoryStalled,
    /// Messages from clients that were lost: they crossed the goodbye by which the worker ended their session.
    LostGoodbye,
    /// Messages to clients that were lost: too many waited for the client already.
    LostQueue,
    /// Clients that came back with what they had: their rooms, data and missed packets (connectionStateRecovery).
    Recovered,
}

impl Field {
    /// All, in the order of the page.
    pub const ALL: [Self; 35] = [
        Self::OpenConnections,
        Self::Connections,
        Self::PollingSessions,
        Self::WebsocketSessions,
        Self::OtherSessions,
        Self::SessionsOpened,
        Self::Upgrades,
        Self::MessagesIn,
        Self::MessagesOut,
        Self::BytesIn,
        Self::BytesOut,
        Self::LoopDelayP50,
        Self::LoopDelayP99,
        Self::LoopDelayMax,
        Self::HeapUsed,
        Self::HeapLimit,
        Self::ClosedPingTimeout,
        Self::ClosedTransport,
        Self::ClosedError,
        Self::ClosedByServer,
        Self::ClosedOther,
        Self::RefusedTransport,
        Self::RefusedSession,
        Self::RefusedMethod,
        Self::RefusedRequest,
        Self::RefusedForbidden,
        Self::RefusedProtocol,
        Self::RefusedOther,
        Self::UncaughtErrors,
        Self::ClosedMemoryConnection,
        Self::ClosedMemoryWorker,
        Self::ClosedMemoryStalled,
        Self::LostGoodbye,
        Self::LostQueue,
        Self::Recovered,
    ];

    /// Its name in `/status`.
    pub const fn name(self) -> &'static str {
        match self {
            Self::OpenConnections => "open_connections",
            Self::Connections => "connections",
            Self::PollingSessions => "polling_sessions",
            Self::WebsocketSessions => "websocket_sessions",
            Self::OtherSessions => "other_sessions",
            Self::SessionsOpened => "sessions_opened",
            Self::Upgrades => "upgrades",
            Self::MessagesIn => "messages_in",
            Self::MessagesOut => "messages_out",
            Self::BytesIn => "bytes_in",
            Self::BytesOut => "bytes_out",
            Self::LoopDelayP50 => "loop_delay_p50",
            Self::LoopDelayP99 => "loop_delay_p99",
            Self::LoopDelayMax => "loop_delay_max",
            Self::HeapUsed => "heap_used",
            Self::HeapLimit => "heap_limit",
            Self::ClosedPingTimeout => "closed_ping_timeout",
            Self::ClosedTransport => "closed_transport",
            Self::ClosedError => "closed_error",
            Self::ClosedByServer => "closed_by_server",
            Self::ClosedOther => "closed_other",
            Self::RefusedTransport => "refused_transport",
            Self::RefusedSession => "refused_session",
            Self::RefusedMethod => "refused_method",
            Self::RefusedRequest => "refused_request",
            Self::RefusedForbidden => "refused_forbidden",
            Self::RefusedProtocol => "refused_protocol",
            Self::RefusedOther => "refused_other",
            Self::UncaughtErrors => "uncaught_errors",
            Self::ClosedMemoryConnection => "closed_memory_connection",
            Self::ClosedMemoryWorker => "closed_memory_worker",
            Self::ClosedMemoryStalled => "closed_memory_stalled",
            Self::LostGoodbye => "lost_goodbye",
            Self::LostQueue => "lost_queue",
            Self::Recovered => "recovered",
        }
    }

    /// Whether it only grows as long as a worker lives: then what former workers of a slot have reported is a part of
    /// it.
    pub const fn is_counter(self) -> bool {
        !matches!(
            self,
            Self::OpenConnections
                | Self::PollingSessions
                | Self::WebsocketSessions
                | Self::OtherSessions
                | Self::LoopDelayP50
                | Self::LoopDelayP99
                | Self::LoopDelayMax
                | Self::HeapUsed
                | Self::HeapLimit
        )
    }
}

/// What a worker reports of itself at one moment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Figures {
    figures: [u64; Field::ALL.len()],
    /// When it was written, in milliseconds since 1970 by the worker's clock.
    pub written: u64,
}

impl Default for Figures {
    fn default() -> Self {
        Self { figures: [UNKNOWN; Field::ALL.len()], written: 0 }
    }
}

impl Figures {
    /// Nothing yet, written then: milliseconds since 1970.
    pub fn at(written: u64) -> Self {
        Self { written, ..Self::default() }
    }

    /// A figure, if it is known.
    pub fn get(&self, field: Field) -> Option<u64> {
        Some(self.figures[field as usize]).filter(|figure| *figure != UNKNOWN)
    }

    /// Sets a figure.
    pub fn set(&mut self, field: Field, figure: u64) {
        self.figures[field as usize] = figure;
    }

    /// All that are known.
    pub fn known(&self) -> impl Iterator<Item = (Field, u64)> {
        Field::ALL.into_iter().filter_map(|field| Some((field, self.get(field)?)))
    }

    /// Adds the counters of a worker that has ended.
    pub fn add_counters(&mut self, of: &Self) {
        for (field, figure) in of.known().filter(|(field, _)| field.is_counter()) {
            let before = self.get(field).unwrap_or(0);
            self.set(field, before.saturating_add(figure).min(UNKNOWN - 1));
        }
    }

    /// As it stands in a page. `sequence`: how often the worker has written, this time counted.
    pub fn encode(&self, sequence: u64) -> [u8; RECORD] {
        let mut words = [0; WORDS];
        words[0] = MAGIC;
        SEQUENCE.iter().for_each(|at| words[*at] = sequence);
        words[WRITTEN] = self.written;
        words[COUNT] = self.figures.len() as u64;
        words[FIRST..FIRST + self.figures.len()].copy_from_slice(&self.figures);
        let mut bytes = [0; RECORD];
        bytes.chunks_exact_mut(8).zip(words).for_each(|(bytes, word)| bytes.copy_from_slice(&word.to_le_bytes()));
        bytes
    }

    /// Reads a page. `None`: nothing was written, or another layout, or it is being written at this moment.
    pub fn decode(bytes: &[u8; RECORD]) -> Option<Self> {
        let word = |at: usize| u64::from_le_bytes(std::array::from_fn(|byte| bytes[at * 8 + byte]));
        let [begin, end] = SEQUENCE.map(word);
        if word(0) != MAGIC || begin == 0 || begin != end {
            return None;
        }
        // A worker of another version may report fewer figures, or more.
        let count = Some(word(COUNT)).filter(|count| *count > 0).unwrap_or(FIRST_COUNT);
        let figure = |at: usize| if (at as u64) < count { word(FIRST + at) } else { UNKNOWN };
        Some(Self { figures: std::array::from_fn(figure), written: word(WRITTEN) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read_and_what_is_half_written_is_not() {
        let mut figures = Figures { written: 1_700_000_000_123, ..Figures::default() };
        figures.set(Field::OpenConnections, 0);
        figures.set(Field::UncaughtErrors, 7);
        let bytes = figures.encode(1);
        assert_eq!(Figures::decode(&bytes), Some(figures.clone()));
        assert_eq!(figures.known().collect::<Vec<_>>(), [(Field::OpenConnections, 0), (Field::UncaughtErrors, 7)]);
        let next = figures.encode(2);
        for cut in (16..RECORD - 7).step_by(8) {
            let torn: Vec<u8> = [&next[..cut], &bytes[cut..]].concat();
            assert_eq!(Figures::decode(&torn.try_into().expect("a record")), None, "{cut}");
        }
        assert_eq!(Figures::decode(&[0; RECORD]), None, "nothing was written");
        assert_eq!(figures.encode(1)[24], Field::ALL.len() as u8);
        let mut newer = bytes;
        newer[7] = b'2';
        assert_eq!(Figures::decode(&newer), None, "another layout");
    }

    /// Old writers leave what they do not know at 0, and do not say how many figures they report.
    #[test]
    fn a_page_of_another_version_is_read_as_far_as_it_goes() {
        let mut figures = Figures::at(1);
        Field::ALL.into_iter().for_each(|field| figures.set(field, 7));
        for (count, known) in [(0, 29), (29, 29), (30, 30), (35, 35), (40, 35), (u64::MAX, 35)] {
            let mut bytes = figures.encode(1);
            bytes[COUNT * 8..(COUNT + 1) * 8].copy_from_slice(&count.to_le_bytes());
            let read = Figures::decode(&bytes).expect("a page");
            assert_eq!(read.known().count(), known, "{count}");
        }
    }

    #[test]
    fn the_layout_is_the_documented_one() {
        let document = include_str!("../../../docs/scoreboard.md");
        for (at, field) in Field::ALL.into_iter().enumerate() {
            let row = format!("| {} | `{}` |", (FIRST + at) * 8, field.name());
            assert!(document.contains(&row), "{row}");
            assert_eq!(field as usize, at);
        }
        assert!(FIRST + Field::ALL.len() < SEQUENCE[1]);
        let mut figures = Figures::default();
        figures.set(Field::OpenConnections, 0x0102);
        let bytes = figures.encode(3);
        assert_eq!(
            (&bytes[..8], &bytes[8..16], &bytes[504..]),
            (&b"haftsb01"[..], &[3, 0, 0, 0, 0, 0, 0, 0][..], &[3, 0, 0, 0, 0, 0, 0, 0][..])
        );
        assert_eq!((&bytes[32..34], &bytes[40..48]), (&[2, 1][..], &[0xff; 8][..]));
    }

    #[test]
    fn counters_go_on_from_one_worker_to_the_next_and_gauges_do_not() {
        let (mut all, mut one) = (Figures::default(), Figures::default());
        one.set(Field::Upgrades, 3);
        one.set(Field::OpenConnections, 9);
        all.add_counters(&one);
        one.set(Field::Upgrades, u64::MAX - 1);
        all.add_counters(&one);
        assert_eq!((all.get(Field::Upgrades), all.get(Field::OpenConnections)), (Some(u64::MAX - 1), None));
    }
}
