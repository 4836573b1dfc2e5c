//! What the workers are: what to start for each, what is spoken with it, and where clients connect.

use std::collections::BTreeSet;
use std::env;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::Duration;

use super::MasterError;
use crate::addr::ListenAddr;
use crate::builtin::process;
use crate::config::{self, Config, DialectChoice, DispatchBy, NodeStyle, Program};
use crate::ids::WorkerId;
use crate::node::preload::Preload;
use crate::node::primary::NodePlan;
use crate::node::wire::ConnectionMessage;
use crate::process::crew::LaunchOrder;
use crate::process::env_file;
use crate::process::program::channel::NodeChannel;
use crate::process::program::{self, Dialect, LaunchContext};
use crate::route::{Slot, TagKey};
use crate::sys::own_program;
use crate::sys::page::Page;
use crate::sys::process::{Inherited, Passed};

/// A server of Node's has one listener, and so cannot have those of several addresses.
const ONE_LISTENER: &str = "with --dispatch kernel a Node program accepts by itself, and each of its servers has one \
    listener: the connections of this further address are handed over. To have the kernel assign them, too, let the \
    address name another server of the program (--listen ADDR=PORT)";

/// Node opens its channel in the first process that is Node.
const WITHOUT_PRELOAD: &str = "with --no-preload the first process of Node that it starts keeps the channel: if that is \
    not the server itself (npm, npx, yarn and nodemon are Node, too), give haft the command that they run \
    (haft -- node FILE), or leave --no-preload out";

/// A program that only the flags call Node's.
const SEEMS_NOT_NODE: &str = "haft sees no Node in the command, and takes it for something that starts one; if it speaks \
    Node's protocol itself (--dialect node), say --no-preload, too: then it finds its channel in NODE_CHANNEL_FD";

/// What haft does for programs of Node's by its preload, which others do not run.
const NOT_ON_NODE: &str = "haft gives its preload to Node alone: sessions get no tags here (with --affinity session they \
    are spread by load and not found again: use --affinity ip), and behind a proxy the program sees the proxy's address";

/// What the workers are.
#[derive(Debug)]
pub struct Plan {
    command: Vec<String>,
    /// What the workers run, in words for the log.
    pub shown: String,
    environment: Vec<(&'static str, String)>,
    /// What a file adds to it (`--worker-env`).
    variables: Vec<(String, String)>,
    drain_timeout: Duration,
    dialect: Dialect,
    rooms: bool,
    wait_ready: bool,
    /// NODE_OPTIONS that the command itself sets.
    node_options: Option<String>,
    /// The process that is started may not be the one that serves.
    is_wrapped: bool,
    /// Where else options of Node may stand than in the command's own words.
    texts: Vec<String>,
    /// Set if the workers are Node's.
    pub node: Option<NodePlan>,
    /// Whether they are to be given the preload.
    pub preload: bool,
    /// Whether they would not do without it what was asked for.
    pub needs_preload: bool,
    /// The workers' soft limit on descriptors, if it is not the one that haft was started with.
    pub descriptors: Option<u64>,
    /// Where clients connect; nothing if the program is to say.
    pub listen: Vec<ListenAddr>,
    /// Where the workers are Node's and accept by themselves: so many of those addresses have a listener for each slot.
    by_kernel: usize,
}

/// Other programs have no servers that haft could distinguish.
const ONLY_NODE: &str = "--listen ADDR=PORT names a server of a Node program, and this is none: leave out =PORT, or say \
    --dialect node";

/// How a worker is reached. What it inherits it has under the same numbers.
#[derive(Debug, Clone, Copy)]
pub enum ChannelKind<'a> {
    /// By a channel; these are its own listeners, if it has any, and its link to the other workers.
    Channel(BorrowedFd<'a>, &'a [BorrowedFd<'a>], Option<BorrowedFd<'a>>),
    /// By Node's channel.
    Node(&'a NodeChannel),
    /// Not at all: it may say how it is at the socket of this name.
    Notify(&'a str),
}

/// What to start for one worker.
#[derive(Debug)]
pub struct Start {
    /// Program and arguments; never empty.
    pub command: Vec<String>,
    /// Added to haft's own environment.
    pub environment: Vec<(&'static str, String)>,
    variables: Vec<(String, String)>,
    sought: Option<String>,
}

impl Start {
    /// The same as an order. `descriptors`: the soft limit on them, if it is not the one that haft was started with.
    pub fn order<'a>(
        &'a self,
        descriptors: Option<u64>,
        inherited: Inherited<'a>,
        outlives_master: bool,
    ) -> LaunchOrder<'a> {
        let Self { command, environment, variables, sought } = self;
        let sought = sought.as_deref();
        LaunchOrder { command, environment, variables, descriptors, inherited, outlives_master, sought }
    }
}

impl Plan {
    /// Looks at what is configured (`tag_key`: what sessions are tagged with), and at package.json where a package
    /// manager is to run a script.
    pub fn new(config: &Config, tag_key: &TagKey) -> Result<Self, MasterError> {
        let sticks = config.affinity.has_sessions();
        let tags = sticks.then(|| ("HAFT_TAG_KEY", tag_key.to_hex()));
        let host = config.sessions.host_id.map(|host| ("HAFT_HOST_ID", host.to_string()));
        let variables = config.worker_env.as_deref().map(env_file::read).transpose()?.unwrap_or_default();
        let plan = |command, environment: Vec<_>| Self {
            command,
            variables: variables.clone(),
            shown: "the built-in Socket.IO worker".to_owned(),
            environment: environment.into_iter().chain(tags.clone()).chain(host.clone()).collect(),
            drain_timeout: config.drain_timeout,
            dialect: Dialect::Haft,
            rooms: config.rooms.shared == config::SharedRooms::Auto,
            wait_ready: false,
            node_options: None,
            is_wrapped: false,
            texts: Vec::new(),
            node: None,
            preload: false,
            needs_preload: false,
            descriptors: config.worker_nofile,
            listen: config.listen_or_default(),
            by_kernel: 0,
        };
        let command = match &config.program {
            // This program itself, whatever has become of its file meanwhile.
            Program::BuiltIn(engine) => {
                return Ok(plan(vec![own_program::OWN.to_owned()], process::orders(engine, config)));
            }
            Program::Command(command) => command,
        };
        let asked = match command.dialect {
            DialectChoice::Auto => None,
            DialectChoice::Haft => Some(Dialect::Haft),
            DialectChoice::Node => Some(Dialect::Node),
            DialectChoice::ListenFds => Some(Dialect::ListenFds),
        };
        let place =
            LaunchContext::here().map_err(|source| MasterError::System { doing: "looking where haft is", source })?;
        let recognised = program::recognise(&command.argv, &place, asked)?;
        recognised.warnings.iter().for_each(|line| tracing::warn!("{line}"));
        let mut plan = Self { shown: recognised.shown, ..plan(recognised.command, Vec::new()) };
        (plan.dialect, plan.wait_ready) = (recognised.dialect, command.node.wait_ready);
        if recognised.dialect == Dialect::Node {
            plan.node_options = recognised.node_options;
            plan.texts = program::texts(&plan.command, &place);
            plan.be_node(&command.node, config, (recognised.is_wrapped, recognised.runs_on_node))?;
            if plan.preload && !recognised.seems_node {
                tracing::warn!("{}: {SEEMS_NOT_NODE}", plan.command[0]);
            }
        }
        plan.check(config)?;
        plan.put_further_addresses_last(config);
        Ok(plan)
    }

    /// The workers are programs of Node's. `is_wrapped`: something else is started first.
    /// `on_node`: it runs on Node itself.
    fn be_node(
        &mut self,
        options: &config::NodeOptions,
        config: &Config,
        (is_wrapped, on_node): (bool, bool),
    ) -> Result<(), MasterError> {
        let node = node_plan(options, config)?;
        // Without --listen the program chooses the address; one that takes its connections by message never does.
        if config.listen.is_none() && node.message.is_none() {
            self.listen.clear();
        }
        self.preload = options.preload && on_node;
        self.node = Some(NodePlan { tells_ports: self.preload, rooms: node.rooms && self.preload, ..node });
        if !on_node && config.peeks() {
            tracing::warn!("{}: {NOT_ON_NODE}", self.command[0]);
        }
        self.is_wrapped = is_wrapped && self.preload;
        self.needs_preload = self.preload && (config.peeks() || self.is_wrapped);
        if is_wrapped && !self.preload && on_node {
            tracing::warn!("{}: {WITHOUT_PRELOAD}", self.command[0]);
        }
        Ok(())
    }

    /// Whether the listeners fit the program.
    fn check(&self, config: &Config) -> Result<(), MasterError> {
        if self.node.is_none() && config.listen.iter().flatten().any(|listen| listen.server_port.is_some()) {
            return Err(MasterError::Unfit(ONLY_NODE));
        }
        Ok(())
    }

    /// Puts the first address of each server before the further ones, whose connections are handed over, where workers
    /// accept by themselves.
    fn put_further_addresses_last(&mut self, config: &Config) {
        let Some(node) = self.node.as_mut().filter(|_| config.dispatch == DispatchBy::Kernel) else { return };
        let mut servers = BTreeSet::new();
        let server_ports = std::mem::take(&mut node.server_ports).into_iter().chain(std::iter::repeat(None));
        let listeners = std::mem::take(&mut self.listen).into_iter().zip(server_ports);
        let (first, further): (Vec<_>, Vec<_>) = listeners.partition(|(_, server_port)| servers.insert(*server_port));
        for (addr, _) in &further {
            tracing::warn!("--listen {addr}: {ONE_LISTENER}");
        }
        self.by_kernel = first.len();
        (self.listen, node.server_ports) = first.into_iter().chain(further).unzip();
    }

    /// So many of the addresses, the first ones, have a listener for each slot.
    pub fn listened_by_kernel(&self, config: &Config) -> usize {
        match (config.dispatch, &self.node) {
            (DispatchBy::Handover, _) => 0,
            (DispatchBy::Kernel, Some(_)) => self.by_kernel,
            (DispatchBy::Kernel, None) => self.listen.len(),
        }
    }

    /// Whether the workers get a link to each other when they are started.
    pub fn shares_rooms(&self) -> bool {
        self.dialect == Dialect::Haft && self.rooms
    }

    /// What is spoken with the workers.
    pub fn dialect(&self) -> Dialect {
        self.dialect
    }

    /// Whether the workers take listeners over under fixed numbers.
    pub fn passes_listeners(&self) -> bool {
        self.dialect == Dialect::ListenFds
    }

    /// Whether a worker is ready only when its program announces it.
    pub fn waits_for_ready(&self) -> bool {
        self.wait_ready
    }

    /// Listeners as a program takes them over, by their order in `--listen`.
    pub fn passed<'a>(&self, listeners: &[BorrowedFd<'a>]) -> Vec<Passed<'a>> {
        let name = |(number, listener): (usize, &BorrowedFd<'a>)| Passed {
            listener: *listener,
            name: format!("haft{number}"),
        };
        listeners.iter().enumerate().map(name).collect()
    }

    /// What to start for the worker of a slot that is to be reached so. `number`: its own number, its generation, and
    /// how many slots there are. `preload`: what Node programs run before their own.
    pub fn start(
        &self,
        slot: Slot,
        number: (WorkerId, u32, usize),
        (reach, page): (ChannelKind<'_>, Option<&Page>),
        preload: Option<&Preload>,
    ) -> Start {
        let (worker, generation, slots) = number;
        let mut environment = self.environment.clone();
        environment.extend([
            ("HAFT_SLOT", slot.to_string()),
            ("HAFT_WORKERS", slots.to_string()),
            ("HAFT_GENERATION", generation.to_string()),
            ("HAFT_WORKER", worker.0.to_string()),
            // As pm2 sets it: a value inherited from pm2 would be the same in all workers.
            ("NODE_APP_INSTANCE", slot.to_string()),
        ]);
        // A page without a name is one that no worker would take for its own.
        environment.extend(page.and_then(|page| Some(("HAFT_SCOREBOARD", page.name().ok()?))));
        let (channel, listeners) = match reach {
            ChannelKind::Channel(channel, listeners, others) => {
                environment.extend(others.map(|others| ("HAFT_ROOMS_FD", others.as_raw_fd().to_string())));
                (channel.as_raw_fd().to_string(), listeners)
            }
            ChannelKind::Node(channel) => return self.start_node(slot, worker, channel, environment, preload),
            ChannelKind::Notify(name) => {
                environment.push(("NOTIFY_SOCKET", name.to_owned()));
                return self.without_preload(environment);
            }
        };
        if !listeners.is_empty() {
            let numbers = listeners.iter().map(|listener| listener.as_raw_fd().to_string()).collect::<Vec<_>>();
            environment.push(("HAFT_LISTEN_FDS", numbers.join(",")));
        }
        environment.push(("HAFT_CHANNEL_FD", channel));
        environment.push(("HAFT_DRAIN_TIMEOUT", self.drain_timeout.as_millis().to_string()));
        self.without_preload(environment)
    }

    /// Whether the process that serves is another than the one that is started, or may be.
    pub fn is_wrapped(&self) -> bool {
        self.is_wrapped
    }

    fn start_node(
        &self,
        slot: Slot,
        worker: WorkerId,
        channel: &NodeChannel,
        mut environment: Vec<(&'static str, String)>,
        preload: Option<&Preload>,
    ) -> Start {
        let inherited = self.node_options.clone().or_else(|| env::var("NODE_OPTIONS").ok());
        let inspects = self.is_wrapped && self.texts.iter().any(|text| text.contains("--inspect"));
        let own = program::inspect::for_slot(&self.command, inherited.as_deref(), slot.0, inspects);
        let serialization = self.node.as_ref().map_or("json", |node| node.serialization.name());
        // A program that waits for messages does so from the beginning.
        let at_start = self.node.as_ref().is_some_and(|node| node.message.is_some() || node.relay_messages);
        environment.extend(channel.environment(worker.0, serialization, at_start || self.wait_ready));
        let options = match preload {
            Some(preload) => {
                environment.push(("HAFT_DRAIN_TIMEOUT", self.drain_timeout.as_millis().to_string()));
                if self.node.as_ref().is_some_and(|node| node.rooms) {
                    environment.push(("HAFT_ROOMS_LINK", "1".to_owned()));
                }
                Some(preload.node_options(own.node_options.as_deref()))
            }
            None => own.node_options,
        };
        environment.extend(options.map(|options| ("NODE_OPTIONS", options)));
        let sought = preload.map(Preload::unreadable);
        Start { command: own.command, sought, ..self.without_preload(environment) }
    }

    fn without_preload(&self, environment: Vec<(&'static str, String)>) -> Start {
        Start { command: self.command.clone(), environment, variables: self.variables.clone(), sought: None }
    }

    /// Whether something in the command, or in what it runs, keeps the preload's file from being read.
    pub fn keeps_preload_out(&self) -> bool {
        let inherited = self.node_options.clone().or_else(|| env::var("NODE_OPTIONS").ok());
        let mut texts = self.command.iter().chain(&self.texts).chain(&inherited);
        texts.any(|text| Preload::is_kept_out_by(text))
    }
}

fn node_plan(options: &config::NodeOptions, config: &Config) -> Result<NodePlan, MasterError> {
    Ok(NodePlan {
        serialization: options.serialization,
        names_sessions: config.affinity.has_sessions() && options.style == NodeStyle::SocketIoSticky,
        message: options.style.message().map(ConnectionMessage::from_json).transpose()?,
        // Both listen on port 0 of localhost, after they have begun to wait for messages. The workers of
        // sticky-session, sticky-listen and @socket.io/sticky never listen.
        listens: matches!(options.style, NodeStyle::Classic | NodeStyle::StickyCluster),
        wait_ready: options.wait_ready,
        relay_messages: options.relay_messages,
        redis: config.rooms.redis.clone(),
        rooms: config.rooms.shared == config::SharedRooms::Auto,
        start_timeout: config.start_timeout,
        server_ports: config.listen.iter().flatten().map(|listen| listen.server_port).collect(),
        backlog: config.backlog,
        tells_ports: false,
    })
}
