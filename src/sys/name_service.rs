//! How the C library looks up users, groups and hosts where it is a part of this program.

#[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
unsafe extern "C" {
    /// nss.h of glibc: from now on these services are asked, whatever nsswitch.conf(5) names. 0 if they are known.
    fn __nss_configure_lookup(database: *const libc::c_char, services: *const libc::c_char) -> libc::c_int;
}

/// Has a static program look up users and hosts with what it has in itself: the files of `/etc`, and DNS. What
/// nsswitch.conf(5) names beside them (`systemd`, `sss`, `mdns4`) are libraries of the host, which need a C library of
/// their own: loaded into a static program they crash it. Elsewhere it does nothing.
///
/// To be called while there is one thread.
pub fn keep_to_own_services() {
    #[cfg(all(target_env = "gnu", target_feature = "crt-static"))]
    for (database, services) in
        [(c"passwd", c"files"), (c"group", c"files"), (c"initgroups", c"files"), (c"hosts", c"files dns")]
    {
        // SAFETY: two texts that are there for ever, which it copies, and no other thread that looks anything up.
        unsafe { __nss_configure_lookup(database.as_ptr(), services.as_ptr()) };
    }
}
