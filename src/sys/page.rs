//! A page of memory that two processes share by a descriptor, and that neither can make larger or smaller.

use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileExt, MetadataExt};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::descriptors::move_up;
use super::inherit;

/// libuv and others that close what they do not know begin below: see the channel of Node workers.
const HIGH: i32 = 200;

/// A page of memory (memfd_create(2)), read and written by pread(2) and pwrite(2): whatever the other process does to it,
/// nothing here can fault.
#[derive(Debug)]
pub struct Page(File);

impl Page {
    /// A page of zeros of this many bytes. Its descriptor has a high number, which passes through npm and the like.
    ///
    /// # Errors
    ///
    /// Where the kernel has no such pages (ENOSYS before Linux 3.17), a seccomp profile refuses them (EPERM), or there is
    /// no descriptor left.
    pub fn new(len: u64) -> io::Result<Self> {
        let page = memfd_create(c"haft-scoreboard", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let page = File::from(page);
        page.set_len(len)?;
        let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
        fcntl(&page, FcntlArg::F_ADD_SEALS(seals))?;
        Ok(Self(File::from(move_up(OwnedFd::from(page), HIGH)?)))
    }

    /// A page that holds these bytes, and that no process can write to.
    ///
    /// # Errors
    ///
    /// As [`Page::new`].
    pub fn of(bytes: &[u8]) -> io::Result<Self> {
        let page = memfd_create(c"haft-text", MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?;
        let page = File::from(page);
        page.write_all_at(bytes, 0)?;
        fcntl(&page, FcntlArg::F_ADD_SEALS(SealFlag::all()))?;
        Ok(Self(File::from(move_up(OwnedFd::from(page), HIGH)?)))
    }

    /// Takes over the page that [`Page::name`] names in the process that made it, if this process has inherited it.
    /// `None`: it has not, or the number is another file's by now.
    pub fn inherited(name: &str) -> Option<Self> {
        let (number, identity) = name.split_once(':')?;
        let page = Self(File::from(inherit::take_file(number).ok()?));
        (page.identity().ok()? == identity).then_some(page)
    }

    /// The descriptor's number, device and inode, by which a process that inherits it knows that it is this page.
    ///
    /// # Errors
    ///
    /// Those of fstat(2).
    pub fn name(&self) -> io::Result<String> {
        Ok(format!("{}:{}", self.0.as_raw_fd(), self.identity()?))
    }

    /// The same page, by another descriptor.
    ///
    /// # Errors
    ///
    /// If there is no descriptor left.
    pub fn try_clone(&self) -> io::Result<Self> {
        self.0.try_clone().map(Self)
    }

    fn identity(&self) -> io::Result<String> {
        let metadata = self.0.metadata()?;
        Ok(format!("{}:{}", metadata.dev(), metadata.ino()))
    }

    /// Reads the beginning of the page.
    ///
    /// # Errors
    ///
    /// Those of pread(2), or UnexpectedEof for more bytes than the page has.
    pub fn read(&self, bytes: &mut [u8]) -> io::Result<()> {
        self.0.read_exact_at(bytes, 0)
    }

    /// Writes the beginning of the page.
    ///
    /// # Errors
    ///
    /// Those of pwrite(2): EPERM past its end.
    pub fn write(&self, bytes: &[u8]) -> io::Result<()> {
        self.0.write_all_at(bytes, 0)
    }
}

impl AsFd for Page {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_page_keeps_its_size_whatever_its_other_holder_does() {
        let page = Page::new(4096).expect("a page");
        let other = File::from(page.as_fd().try_clone_to_owned().expect("copy"));
        for len in [0, 4095, 4097] {
            assert_eq!(other.set_len(len).expect_err("sealed").raw_os_error(), Some(libc::EPERM), "{len}");
        }
        other.write_all_at(b"told", 0).expect("written");
        assert!(other.write_all_at(b"past its end", 4090).is_err());
        let mut bytes = [0; 4096];
        page.read(&mut bytes).expect("read");
        assert_eq!(&bytes[..5], b"told\0");
        assert!(page.read(&mut [0; 4097]).is_err());
    }

    #[test]
    fn a_page_of_a_text_is_never_written_to() {
        let page = Page::of(b"text").expect("a page");
        let mut bytes = [0; 4];
        page.read(&mut bytes).expect("read");
        assert_eq!(&bytes, b"text");
        assert!(page.read(&mut [0; 5]).is_err());
        for error in [page.write(b"T"), page.0.set_len(5), page.0.set_len(3)] {
            assert_eq!(error.expect_err("sealed").raw_os_error(), Some(libc::EPERM));
        }
    }

    #[test]
    fn what_is_not_that_page_is_not_taken_for_it() {
        let page = Page::new(4096).expect("a page");
        let name = page.name().expect("a name");
        // It is close-on-exec here, so it was not inherited.
        assert!(Page::inherited(&name).is_none());
        for wrong in ["", "x", "200", "0:1:2", "-1:1:2", "9999:1:2"] {
            assert!(Page::inherited(wrong).is_none(), "{wrong}");
        }
    }
}
