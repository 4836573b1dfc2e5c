//! Other processes that listen at the same address.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, BufRead, BufReader};
use std::os::fd::AsFd;

use nix::sys::stat::fstat;

/// The state of a socket that listens (TCP_LISTEN).
const LISTENS: &str = "0A";

/// All listening TCP sockets of the host: where, and the socket's inode.
#[derive(Debug)]
pub struct ListeningSockets(Vec<(String, u64)>);

impl ListeningSockets {
    /// Those that listen now.
    ///
    /// From `/proc/thread-self/net/tcp` and `tcp6` (proc_net_tcp in the kernel's documentation), in which they come
    /// first: the others, which may be very many, are not read.
    pub fn now() -> io::Result<Self> {
        let mut all = Vec::new();
        for table in ["tcp", "tcp6"] {
            match File::open(format!("/proc/thread-self/net/{table}")) {
                Ok(file) => read(BufReader::new(file), table, &mut all)?,
                // A kernel without IPv6.
                Err(error) if error.kind() == io::ErrorKind::NotFound && table == "tcp6" => {}
                Err(error) => return Err(error),
            }
        }
        Ok(Self(all))
    }

    /// How many that are none of `ours` listen at an address at which one of ours does.
    pub fn strangers(&self, ours: impl IntoIterator<Item = impl AsFd>) -> io::Result<usize> {
        let ours = ours.into_iter().map(|socket| Ok(fstat(socket)?.st_ino)).collect::<nix::Result<BTreeSet<u64>>>()?;
        Ok(self.beside(&ours))
    }

    fn beside(&self, ours: &BTreeSet<u64>) -> usize {
        let at: BTreeSet<&str> =
            self.0.iter().filter(|(_, inode)| ours.contains(inode)).map(|(at, _)| at.as_str()).collect();
        self.0.iter().filter(|(address, inode)| at.contains(address.as_str()) && !ours.contains(inode)).count()
    }
}

/// Adds listening sockets. The two tables' addresses differ in their length.
fn read(table: impl BufRead, name: &str, all: &mut Vec<(String, u64)>) -> io::Result<()> {
    for line in table.lines().skip(1) {
        let line = line?;
        match socket(&line) {
            Some((address, LISTENS, inode)) => all.push((address.to_owned(), inode)),
            Some(_) => break,
            None => return Err(io::Error::other(format!("/proc/thread-self/net/{name} has an unknown form"))),
        }
    }
    Ok(())
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

    fn listening(table: &str) -> io::Result<ListeningSockets> {
        let mut all = Vec::new();
        read(table.as_bytes(), "tcp", &mut all).map(|()| ListeningSockets(all))
    }

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
            let listening = listening(&table).expect("a table");
            assert_eq!(listening.beside(&ours.iter().copied().collect()), strangers, "{ours:?}");
        }
        assert!(listening("head\nwhat?\n").is_err(), "what is not understood is not taken for an empty list");
    }
}
