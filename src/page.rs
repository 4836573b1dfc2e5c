//! What haft's two pages for browsers have in common: the built-in worker's chat and the admin page.

/// Their Content-Security-Policy: nothing but what a page brings itself (WebSockets to its own host are `'self'` too), and no
/// other page may frame it.
pub const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The module of their scripts that makes elements.
pub const MAKE: &[u8] = include_bytes!("builtin/assets/make.js");

/// Their icon, in SVG.
pub const ICON: &[u8] = include_bytes!("builtin/assets/icon.svg");
