//! The only place with unsafe code and raw system calls: thin, typed, tested.
