//! Where Redis is: at one address, at the nodes of a cluster, or where sentinels say that the primary is.

use std::time::Duration;

use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Client, ConnectionAddr, ConnectionInfo, IntoConnectionInfo, RedisError, Value};
use tokio::time::timeout;

/// How long connecting may take, publishing, and until what is published here arrives here.
pub(super) const PATIENCE: Duration = Duration::from_secs(5);
/// How long one server may take to say what it is, while there are others to ask.
const BRIEFLY: Duration = Duration::from_secs(2);
/// Where sentinels listen.
const SENTINEL_PORT: u16 = 26379;
const REDIS_PORT: u16 = 6379;

/// Which servers a URL names.
#[derive(Debug, Clone)]
pub enum RedisServers {
    /// One, at this address.
    One(Box<ConnectionInfo>),
    /// Nodes of one cluster. Each passes what is published on to all others, so that any one will do.
    Cluster(Vec<ConnectionInfo>),
    /// The one that these sentinels call the primary.
    Sentinels(Box<RedisSentinels>),
}

/// Sentinels, and what they are asked for.
#[derive(Debug, Clone)]
pub struct RedisSentinels {
    /// With their own name and password.
    sentinels: Vec<ConnectionInfo>,
    /// What they call the primary and its replicas.
    name: String,
    /// Name, password and database of the primary.
    primary: ConnectionInfo,
}

/// A URL that names no Redis.
#[derive(Debug, thiserror::Error)]
pub enum RedisUrlError {
    /// It is none that is known here.
    #[error(
        "write redis://HOST:PORT, unix:///PATH, redis+sentinel://HOST:PORT,HOST:PORT/NAME or \
         redis+cluster://HOST:PORT,HOST:PORT (with TLS: rediss://, rediss+sentinel:// or rediss+cluster://)"
    )]
    Unknown,
    /// Several addresses, which need not be of one cluster.
    #[error(
        "one Redis has one address. With Sentinel write redis+sentinel://HOST:PORT,HOST:PORT/NAME, with Redis Cluster \
         redis+cluster://HOST:PORT,HOST:PORT"
    )]
    Several,
    /// Sentinels watch several primaries, each by its name.
    #[error("the name of the primary, as the sentinels have it, is missing: redis+sentinel://HOST:PORT,HOST:PORT/NAME")]
    NoName,
    /// A part behind the question mark.
    #[error("{0:?} is not known: redis+sentinel:// takes sentinel_username and sentinel_password behind the ?")]
    Option(String),
}

/// Reads the URL of `--redis`.
///
/// # Errors
///
/// When it is none, with what to write.
pub fn parse(url: &str) -> Result<RedisServers, RedisUrlError> {
    let (scheme, rest) = url.split_once("://").ok_or(RedisUrlError::Unknown)?;
    let Some((base @ ("redis" | "rediss"), kind)) = scheme.split_once('+') else { return one(url) };
    let (rest, options) = rest.split_once('?').unwrap_or((rest, ""));
    let hosts_at = rest.rfind('@').map_or(0, |at| at + 1);
    let (credentials, rest) = rest.split_at(hosts_at);
    let (hosts, path) = rest.split_once('/').unwrap_or((rest, ""));
    let all = |credentials: &str, port: u16| -> Result<Vec<_>, RedisUrlError> {
        hosts.split(',').map(|host| node(base, credentials, host, port, "")).collect()
    };
    match kind {
        "cluster" if options.is_empty() => Ok(RedisServers::Cluster(all(credentials, REDIS_PORT)?)),
        "sentinel" => {
            let (name, database) = path.split_once('/').unwrap_or((path, ""));
            if name.is_empty() {
                return Err(RedisUrlError::NoName);
            }
            let sentinels = all(&of_sentinels(options)?, SENTINEL_PORT)?;
            let primary = node(base, credentials, "primary", REDIS_PORT, database)?;
            Ok(RedisServers::Sentinels(Box::new(RedisSentinels { sentinels, name: name.to_owned(), primary })))
        }
        _ => Err(RedisUrlError::Unknown),
    }
}

fn one(url: &str) -> Result<RedisServers, RedisUrlError> {
    let several = if url.contains(',') { RedisUrlError::Several } else { RedisUrlError::Unknown };
    match url.into_connection_info() {
        Ok(info) => match info.addr() {
            ConnectionAddr::Tcp(host, _) | ConnectionAddr::TcpTls { host, .. } if host.contains(',') => Err(several),
            _ => Ok(RedisServers::One(Box::new(info))),
        },
        Err(_) => Err(several),
    }
}

/// One server of several. The client reads it, with what is escaped in names and passwords.
fn node(scheme: &str, credentials: &str, host: &str, port: u16, path: &str) -> Result<ConnectionInfo, RedisUrlError> {
    let has_port = host.rsplit_once(':').is_some_and(|(_, port)| port.parse::<u16>().is_ok());
    let port = if has_port { String::new() } else { format!(":{port}") };
    if host.is_empty() {
        return Err(RedisUrlError::Unknown);
    }
    format!("{scheme}://{credentials}{host}{port}/{path}").into_connection_info().map_err(|_| RedisUrlError::Unknown)
}

/// Name and password of the sentinels themselves, as they stand before a host.
fn of_sentinels(options: &str) -> Result<String, RedisUrlError> {
    let (mut username, mut password) = ("", "");
    for option in options.split('&').filter(|option| !option.is_empty()) {
        match option.split_once('=') {
            Some(("sentinel_username", value)) => username = value,
            Some(("sentinel_password", value)) => password = value,
            // Its value may be secret.
            _ => return Err(RedisUrlError::Option(option.split('=').next().unwrap_or_default().to_owned())),
        }
    }
    let is_given = !username.is_empty() || !password.is_empty();
    Ok(if is_given { format!("{username}:{password}@") } else { String::new() })
}

/// Why there is no server.
#[derive(Debug, thiserror::Error)]
pub(super) enum ServerNotFound {
    #[error("{0}: {1}")]
    Redis(String, RedisError),
    #[error("{0} does not answer")]
    Silent(String),
    #[error(
        "{0} is no node of a Redis Cluster, so it would share nothing with the others (for one Redis write redis://)"
    )]
    NoCluster(String),
    #[error("the sentinel at {0} knows no primary {1:?}")]
    NoName(String, String),
    #[error("{0} is not the primary that a sentinel takes it for")]
    NoPrimary(String),
}

/// Finds the server to connect to, again whenever the last one is lost.
#[derive(Debug)]
pub(super) struct ServerFinder {
    servers: RedisServers,
    /// The node of a cluster to try next.
    turn: usize,
}

impl ServerFinder {
    /// `host`: hosts with other numbers begin with another node of a cluster.
    pub(super) fn new(servers: RedisServers, host: u32) -> Self {
        Self { servers, turn: host as usize }
    }

    /// Whether another server may be found the next time.
    pub(super) fn has_several(&self) -> bool {
        !matches!(self.servers, RedisServers::One(_))
    }

    /// The server to connect to now: of a cluster the node after the last one, of sentinels the present primary.
    ///
    /// # Errors
    ///
    /// When there is none at the moment.
    pub(super) async fn find(&mut self) -> Result<Client, ServerNotFound> {
        match &self.servers {
            RedisServers::One(info) => open(info),
            RedisServers::Cluster(nodes) => {
                let node = open(&nodes[self.turn % nodes.len()])?;
                self.turn = self.turn.wrapping_add(1);
                briefly(&node, check_cluster(&node)).await?;
                Ok(node)
            }
            RedisServers::Sentinels(sentinels) => sentinels.find().await,
        }
    }
}

fn open(info: &ConnectionInfo) -> Result<Client, ServerNotFound> {
    Client::open(info.clone()).map_err(|error| ServerNotFound::Redis(info.addr().to_string(), error))
}

fn addr(server: &Client) -> ConnectionAddr {
    server.get_connection_info().addr().clone()
}

fn place(server: &Client) -> String {
    server.get_connection_info().addr().to_string()
}

async fn briefly<T>(
    server: &Client,
    answer: impl Future<Output = Result<T, ServerNotFound>>,
) -> Result<T, ServerNotFound> {
    timeout(BRIEFLY, answer).await.unwrap_or_else(|_| Err(ServerNotFound::Silent(place(server))))
}

async fn connect(server: &Client) -> Result<MultiplexedConnection, ServerNotFound> {
    // The client's own limits are shorter.
    let unlimited = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
    let connected = server.get_multiplexed_async_connection_with_config(&unlimited).await;
    connected.map_err(|error| ServerNotFound::Redis(place(server), error))
}

/// Servers that do not know each other would split the hosts without a word.
async fn check_cluster(node: &Client) -> Result<(), ServerNotFound> {
    let mut connection = connect(node).await?;
    match redis::cmd("CLUSTER").arg("INFO").exec_async(&mut connection).await {
        Err(error) if error.to_string().contains("cluster support disabled") => {
            Err(ServerNotFound::NoCluster(place(node)))
        }
        // Where haft may not ask, it is believed.
        Err(error) if is_lost(&error) => Err(ServerNotFound::Redis(place(node), error)),
        _ => Ok(()),
    }
}

fn is_lost(error: &RedisError) -> bool {
    error.is_connection_dropped() || error.is_io_error()
}

impl RedisSentinels {
    /// The primary, as the first sentinel has it that names one that takes itself for it.
    async fn find(&self) -> Result<Client, ServerNotFound> {
        let mut outcome = Err(ServerNotFound::NoName(self.primary.addr().to_string(), self.name.clone()));
        let mut refuted: Option<ConnectionAddr> = None;
        for sentinel in &self.sentinels {
            let sentinel = open(sentinel)?;
            let primary = match briefly(&sentinel, self.ask(&sentinel)).await {
                Ok(primary) if refuted.as_ref() == Some(&addr(&primary)) => continue,
                Ok(primary) => primary,
                Err(error) => {
                    outcome = Err(error);
                    continue;
                }
            };
            match briefly(&primary, check_primary(&primary)).await {
                Ok(()) => return Ok(primary),
                Err(error) => {
                    outcome = Err(error);
                    refuted = Some(addr(&primary));
                }
            }
        }
        outcome
    }

    async fn ask(&self, sentinel: &Client) -> Result<Client, ServerNotFound> {
        let mut connection = connect(sentinel).await?;
        let mut command = redis::cmd("SENTINEL");
        let command = command.arg("GET-MASTER-ADDR-BY-NAME").arg(&self.name);
        let answer: Option<(String, u16)> = command
            .query_async(&mut connection)
            .await
            .map_err(|error| ServerNotFound::Redis(place(sentinel), error))?;
        let (host, port) = answer.ok_or_else(|| ServerNotFound::NoName(place(sentinel), self.name.clone()))?;
        let at = match self.primary.addr() {
            ConnectionAddr::TcpTls { .. } => ConnectionAddr::TcpTls { host, port, insecure: false, tls_params: None },
            _ => ConnectionAddr::Tcp(host, port),
        };
        open(&self.primary.clone().set_addr(at))
    }
}

/// What sentinels name may have become a replica, where nothing that is published arrives at the others.
async fn check_primary(server: &Client) -> Result<(), ServerNotFound> {
    let mut connection = connect(server).await?;
    match redis::cmd("ROLE").query_async::<Vec<Value>>(&mut connection).await {
        Ok(role) if role.first() != Some(&Value::BulkString(b"master".to_vec())) => {
            Err(ServerNotFound::NoPrimary(place(server)))
        }
        Err(error) if is_lost(&error) => Err(ServerNotFound::Redis(place(server), error)),
        // Where haft may not ask, it is believed.
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn addrs(nodes: &[ConnectionInfo]) -> Vec<String> {
        nodes.iter().map(|node| node.addr().to_string()).collect()
    }

    fn refused(url: &str) -> String {
        parse(url).expect_err(url).to_string()
    }

    #[test]
    fn one_redis_has_one_address() {
        for url in ["redis://a", "rediss://me:se@cret@a:1/2", "unix:///run/redis.sock"] {
            assert!(matches!(parse(url), Ok(RedisServers::One(_))), "{url}");
        }
        for url in ["redis://a,b", "redis://a:1,b:2", "sentinel://a,b/c"] {
            assert!(refused(url).contains("one Redis has one address"), "{url}");
        }
        for url in ["http://a", "redis-sentinel://a/b", "redis+other://a", "a", "redis+cluster://a,,b", "x+cluster://a"]
        {
            assert!(refused(url).starts_with("write redis://HOST:PORT"), "{url}: {}", refused(url));
        }
    }

    #[test]
    fn nodes_of_a_cluster_have_one_name_and_password() {
        let Ok(RedisServers::Cluster(nodes)) = parse("rediss+cluster://me:a%2Cb@a,b:7001,[::1]:7002") else {
            panic!("nodes")
        };
        assert_eq!(addrs(&nodes), ["a:6379", "b:7001", "[::1]:7002"].map(|it| it.replace(['[', ']'], "")));
        for node in &nodes {
            let settings = node.redis_settings();
            assert_eq!((settings.username(), settings.password()), (Some("me"), Some("a,b")));
            assert!(matches!(node.addr(), ConnectionAddr::TcpTls { .. }));
        }
    }

    #[test]
    fn sentinels_have_a_password_of_their_own() {
        let read = |url| match parse(url) {
            Ok(RedisServers::Sentinels(it)) => *it,
            other => panic!("{url}: {other:?}"),
        };
        let it = read("redis+sentinel://me:secret@a,b:1/chat/3?sentinel_username=it&sentinel_password=other");
        assert_eq!((addrs(&it.sentinels), it.name.as_str()), (vec!["a:26379".to_owned(), "b:1".to_owned()], "chat"));
        let of = |info: &ConnectionInfo| {
            let settings = info.redis_settings();
            (settings.username().map(str::to_owned), settings.password().map(str::to_owned), settings.db())
        };
        let text = |text: &str| Some(text.to_owned());
        assert_eq!(of(&it.primary), (text("me"), text("secret"), 3));
        assert!(it.sentinels.iter().all(|info| of(info) == (text("it"), text("other"), 0)));
        let plain = read("redis+sentinel://a/chat");
        assert_eq!((of(&plain.primary), of(&plain.sentinels[0])), ((None, None, 0), (None, None, 0)));
        assert!(refused("redis+sentinel://a,b").contains("the name of the primary"));
        let message = refused("redis+sentinel://a/b?password=secret");
        assert!(message.contains("\"password\" is not known") && !message.contains("secret"), "{message}");
    }
}
