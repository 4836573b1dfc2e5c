//! Who listens at the same address besides ourselves.

use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// The state of a socket that listens (TCP_LISTEN).
const LISTENS: &str = "0A";

/// How many TCP sockets that are none of `ours` listen at an address at which one of them does, whoever has them.
///
/// From `/proc/thread-self/net/tcp` and `tcp6` (proc_net_tcp in the kernel's documentation), in which those that listen
/// come first.
pub fn strangers(ours: impl IntoIterator<Item = impl AsFd>) -> io::Result<usize> {
    let inodes = ours.into_iter().map(|socket| Ok(fstat(socket)?.st_ino)).collect::<nix::Result<BTreeSet<u64>>>()?;
    let mut count = 0;
    for table in ["tcp", "tcp6"] {
        match fs::read_to_string(format!("/proc/thread-self/net/{table}")) {
            Ok(table) => count += strangers_in(&table, &inodes),
            // A kernel without IPv6.
            Err(error) if error.kind() == io::ErrorKind::NotFound && table == "tcp6" => {}
            Err(error) => return Err(error),
        }
    }
    Ok(count)
}

fn strangers_in(table: &str, ours: &BTreeSet<u64>) -> usize {
    let sockets = || table.lines().skip(1).filter_map(socket).take_while(|(_, state, _)| *state == LISTENS);
    let addresses: BTreeSet<&str> =
        sockets().filter(|(.., inode)| ours.contains(inode)).map(|(address, ..)| address).collect();
    sockets().filter(|(address, _, inode)| addresses.contains(address) && !ours.contains(inode)).count()
}

/// Address, state and inode of a line.
fn socket(line: &str) -> Option<(&str, &str, u64)> {
    let mut fields = line.split_ascii_whitespace();
    let (address, state) = (fields.nth(1)?, fields.nth(1)?);
    Some((address, state, fields.nth(5)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEAD: &str =
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n";

    fn line(address: &str, state: &str, inode: u64) -> String {
        format!(
            "   0: {address} 00000000:0000 {state} 00000000:00000000 00:00000000 00000000     0        0 {inode} 1 x\n"
        )
    }

    #[test]
    fn only_those_who_listen_at_the_very_address_are_strangers() {
        let table = [
            HEAD.to_owned(),
            line("0100007F:0BB8", LISTENS, 11),
            line("0100007F:0BB8", LISTENS, 12),
            line("0100007F:0BB8", LISTENS, 13),
            line("0200007F:0BB8", LISTENS, 14),
            line("0100007F:0BB9", LISTENS, 15),
            line("0100007F:0BB8", "01", 16),
        ]
        .concat();
        for (ours, strangers) in [(&[11, 12][..], 1), (&[11], 2), (&[11, 12, 13], 0), (&[14], 0), (&[99], 0), (&[], 0)]
        {
            assert_eq!(strangers_in(&table, &ours.iter().copied().collect()), strangers, "{ours:?}");
        }
    }
}
