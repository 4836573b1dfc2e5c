//! Rooms that workers share, on this host and on others.

use super::error::FlagsError;
use super::provenance::Provenance;
use crate::config::{Redis, RoomsOptions, SharedRooms};
use crate::flags::SWITCH;
use crate::rooms::servers;

/// The heading of these flags in the help, which distinguishes them from the others.
pub(super) const HEADING: &str = "Rooms";

#[derive(Debug, clap::Args)]
#[command(next_help_heading = HEADING)]
pub(super) struct RoomsFlags {
    /// Whether messages of Socket.IO to a room, or to every client, reach the clients of all workers (auto) or of the same
    /// worker only (off)
    ///
    /// auto: if a Node program's Socket.IO (4.0 or later) would use the adapter that knows its own process only, haft's
    /// preload gives it one that knows all workers; a program that sets an adapter keeps it. Programs with haft's own protocol are
    /// given a link to the other workers, and the built-in worker uses it.
    #[arg(long, value_name = "auto|off", default_value = "auto")]
    rooms: SharedRooms,

    /// Share rooms with the haft of other hosts over this Redis: redis://[NAME:PASSWORD@]HOST[:PORT], rediss:// with TLS,
    /// unix:///PATH, redis+sentinel://HOST[:PORT],HOST[:PORT]/NAME or redis+cluster://HOST[:PORT],HOST[:PORT] [default: off]
    ///
    /// redis+sentinel: the sentinels (26379 without a port) are asked which server is NAME's primary, again whenever the link
    /// breaks. What stands before the @ is for the primary; ?sentinel_username=NAME&sentinel_password=PASSWORD for the sentinels.
    /// redis+cluster: the link is with one of these nodes, and with the next one when that is lost. With TLS: rediss+sentinel,
    /// rediss+cluster.
    ///
    /// One link for each host, beside what accepts connections. Without Redis, or while it is away, rooms are those of
    /// this host. Any client of Redis that can publish there can send to all clients: give it a password, or a network
    /// of its own.
    #[arg(long, value_name = "URL", value_parser = url)]
    redis: Option<String>,

    /// What sets this application's rooms apart from another's on the same Redis [default: the program's name]
    #[arg(long, value_name = "TEXT", value_parser = prefix)]
    redis_prefix: Option<String>,

    /// /readyz answers 503 while the link to Redis is broken
    #[arg(long, value_name = SWITCH, action = clap::ArgAction::Set)]
    redis_required: bool,

    /// Which programs outside haft can send to clients by @socket.io/redis-emitter over the same Redis: those with this
    /// key, or off for none [default: socket.io]
    ///
    /// Several applications on one Redis need a key each: new Emitter(client, { key: "KEY" }).
    #[arg(long, value_name = "KEY|off", value_parser = prefix)]
    redis_emitter: Option<String>,
}

/// What `@socket.io/redis-emitter` has without options.
const EMITTER: &str = "socket.io";

fn url(text: &str) -> Result<String, servers::RedisUrlError> {
    servers::parse(text).map(|_| text.to_owned())
}

fn prefix(text: &str) -> Result<String, &'static str> {
    if text.is_empty() { Err("it is empty") } else { Ok(text.to_owned()) }
}

impl RoomsFlags {
    pub(super) fn resolve(self, argv: &[String], provenance: &Provenance) -> Result<RoomsOptions, FlagsError> {
        let Some(url) = self.redis else {
            let given = [
                ("redis-prefix", self.redis_prefix.is_some()),
                ("redis-required", self.redis_required),
                ("redis-emitter", self.redis_emitter.is_some()),
            ];
            return match given.into_iter().find(|(_, is_given)| *is_given) {
                None => Ok(RoomsOptions { shared: self.rooms, redis: None }),
                Some((flag, _)) => Err(FlagsError::NoRedis { name: provenance.name(flag) }),
            };
        };
        let emitter = self.redis_emitter.unwrap_or_else(|| EMITTER.to_owned());
        let emitter = (emitter != "off").then_some(emitter);
        let prefix = self.redis_prefix.unwrap_or_else(|| name_of(argv));
        Ok(RoomsOptions {
            shared: self.rooms,
            redis: Some(Redis { url, prefix, required: self.redis_required, emitter }),
        })
    }
}

/// A program's name: that of its file, which follows the interpreter; the last word of a package manager's script.
fn name_of(argv: &[String]) -> String {
    let is_file =
        |word: &&String| word.rsplit_once('.').is_some_and(|(_, end)| matches!(end, "js" | "mjs" | "cjs" | "ts"));
    let word =
        argv.iter().find(is_file).or_else(|| argv.iter().skip(1).rfind(|word| !word.starts_with('-'))).or(argv.first());
    let name = word.map_or("haft", |word| word.rsplit('/').next().unwrap_or(word));
    name.split('.').next().filter(|name| !name.is_empty()).unwrap_or("haft").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::flags::testing::{config, refused};

    fn redis(args: &[&str]) -> Option<Redis> {
        config(&[args, &["--", "node", "--title=x", "src/chat.server.js", "-v"]].concat()).rooms.redis
    }

    #[test]
    fn rooms_can_be_each_worker_s_own() {
        let rooms = |text: &str| config(&["--rooms", text]).rooms.shared;
        assert_eq!((rooms("auto"), rooms("off")), (SharedRooms::Auto, SharedRooms::Off));
        assert!(refused(&["--rooms", "on", "--", "x"]).contains("write auto or off"));
    }

    #[test]
    fn without_it_rooms_are_those_of_this_host() {
        assert_eq!(redis(&[]), None);
        let message = refused(&["--redis-prefix=a", "--", "x"]);
        assert!(message.contains("--redis-prefix is of no use without --redis"), "{message}");
        assert!(refused(&["--redis-emitter=a", "--", "x"]).contains("--redis-emitter is of no use without --redis"));
        assert!(refused(&["--redis-required", "--", "x"]).contains("--redis-required is of no use without --redis"));
    }

    #[test]
    fn a_url_is_one_that_the_client_knows() {
        let expected = Redis {
            url: "redis://127.0.0.1:6380".to_owned(),
            prefix: "chat".to_owned(),
            required: false,
            emitter: Some(EMITTER.to_owned()),
        };
        assert_eq!(redis(&["--redis=redis://127.0.0.1:6380"]), Some(expected));
        for url in ["rediss://me:secret@redis.example", "unix:///run/redis.sock"] {
            assert_eq!(
                redis(&["--redis", url, "--redis-required"]).map(|it| (it.url, it.required)),
                Some((url.to_owned(), true))
            );
        }
        let of_several = ["redis+sentinel://a:26379,b/primary", "rediss+cluster://me:secret@a:7000,b:7001"];
        for url in of_several {
            assert_eq!(redis(&["--redis", url]).map(|it| it.url).as_deref(), Some(url));
        }
        for (url, cure) in [
            ("redis-sentinel://a", "redis+sentinel://HOST:PORT,HOST:PORT/NAME"),
            ("redis://a:6379,b:6379", "redis+cluster://HOST:PORT,HOST:PORT"),
            ("redis+sentinel://a:6379", "the name of the primary"),
        ] {
            let message = refused(&["--redis", url, "--", "x"]);
            assert!(message.contains(cure), "{message}");
        }
        let emitter = |key| redis(&["--redis=redis://a", "--redis-emitter", key]).and_then(|it| it.emitter);
        assert_eq!((emitter("chat"), emitter("off")), (Some("chat".to_owned()), None));
        assert!(refused(&["--redis=http://x", "--", "x"]).contains("write redis://HOST:PORT"));
    }

    #[test]
    fn a_program_has_a_name() {
        let name = |words: &str| name_of(&words.split(' ').map(str::to_owned).collect::<Vec<_>>());
        assert_eq!(name("node --inspect /srv/app/server.js 3000"), "server");
        assert_eq!(name("npm run chat"), "chat");
        assert_eq!(name("/opt/chat"), "chat");
        assert_eq!(config(&["--redis=redis://a"]).rooms.redis.map(|it| it.prefix).as_deref(), Some("haft"));
        assert_eq!(redis(&["--redis=redis://a", "--redis-prefix=b"]).map(|it| it.prefix).as_deref(), Some("b"));
    }
}
