//! Pure routing: a key and a number of slots in, an order of slots out. No clock, no system call.
