//! The events of a channel, whatever its dialect: what blocks sending, and what its worker reports.

/// What stands in the way of sending more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Blocked {
    /// Nothing: all was sent, or the worker has no room and will say when it has.
    None,
    /// The channel is full: wait until it is writable.
    ChannelFull,
    /// Too many descriptors are in flight on this host: try again after a while.
    TooManyInFlight,
    /// The worker gave connections back: it gets no more for a while, since it would give those back too.
    Resting,
}

/// An event from a worker, as far as other modules need it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WorkerEvent {
    /// It is ready.
    Ready,
    /// It finishes of its own will.
    Leaving,
    /// It closed its end of the channel.
    Left,
    /// It lingered, and has no session left.
    Idle,
}
