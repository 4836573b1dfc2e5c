//! Tests over the whole of the dialect.
