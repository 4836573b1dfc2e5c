//! The script that haft has unmodified Node programs run before their own: a file, since Node takes it from nowhere
//! else.

use std::fs::{self, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use crate::sys::folder::{self, PrivateFolder};
use crate::sys::page::Page;

/// The script that runs inside unmodified programs ([`Preload`]): it shows them the addresses of
/// [`Session::connection`], tags the sessions of their Engine.IO, sends [`PreloadMessage::Tags`],
/// [`PreloadMessage::Sessions`] and [`PreloadMessage::Idle`], ends sessions one by one after [`Session::disconnect`],
/// and keeps connections when the master has died. Files of their own, so that they can be read as what they are; a
/// test puts them together as this does.
///
/// [`Session::connection`]: super::wire::Session::connection
/// [`Session::disconnect`]: super::wire::Session::disconnect
/// [`PreloadMessage::Tags`]: super::wire::PreloadMessage::Tags
/// [`PreloadMessage::Sessions`]: super::wire::PreloadMessage::Sessions
/// [`PreloadMessage::Idle`]: super::wire::PreloadMessage::Idle
pub const PRELOAD: &str = concat!(
    include_str!("preload/main.cjs"),
    "\n",
    include_str!("preload/tags.cjs"),
    "\n",
    include_str!("preload/engines.cjs"),
    "\n",
    include_str!("preload/goodbyes.cjs"),
    "\n",
    include_str!("preload/orphan.cjs"),
    "\n",
    include_str!("preload/signals.cjs"),
    "\n",
    include_str!("preload/recovery.cjs"),
    "\n",
    include_str!("preload/rooms-link.cjs"),
    "\n",
    include_str!("preload/rooms.cjs"),
    "\n",
    include_str!("preload/rooms-heard.cjs"),
    "\n",
    include_str!("preload/rooms-emitted.cjs"),
    "\n",
    include_str!("preload/handlers.cjs"),
    "\n",
    include_str!("preload/troubles.cjs"),
    "\n",
    include_str!("preload/lane.cjs"),
    "\n",
    include_str!("preload/figures.cjs"),
    "\n",
    include_str!("preload/paths.cjs"),
    "\n",
    include_str!("preload/inspect.cjs"),
    "\n",
    include_str!("preload/channel.cjs"),
    "\n",
    include_str!("preload/start.cjs"),
);

/// What puts the permission model of Node 20 into force, under which `--require` may not read the script. From Node 22 on
/// it may.
const PERMISSION: &str = "--experimental-permission";

/// What Node imports instead of the file, with its path, number and identity put in: the script as this process has
/// inherited it. Node's permission model does not apply to descriptors, and no file system is in the way. Neither a quotation
/// mark nor a backslash may stand here (see [`quoted`]), and blanks are escaped.
const IMPORTED: &str = "data:text/javascript,/*haft*/import{fstatSync,readSync}from'fs';import{Module}from'module';\
    let text;try{const{dev,ino,size}=fstatSync(NUMBER);if(dev+':'+ino=='IDENTITY')\
    readSync(NUMBER,text=Buffer.alloc(size),0,size,0)}catch{}\
    if(text){const path=PATH,script=new Module(path);script.filename=path;script._compile(String(text),path)}\
    else process.stderr.write('haft: this process gets no connections: what started it has closed the descriptors that it \
    did not know. Give haft the command that this starts (haft -- node FILE)'+String.fromCharCode(10))";

/// The script in a folder of its own, as long as this lives. That must be as long as any worker lives: Node reads the
/// script again for each thread (`worker_threads`) that the program starts.
///
/// Only this user and root can write there or replace it: the whole way to it is checked. A process that
/// knows the name may read it, so that workers may run as another user (`gosu`, `setpriv --reuid`): it holds no secret,
/// and Node ends at once where it cannot read it.
///
/// It cannot be a file without a name (a memfd at `/proc/self/fd/N`): Node resolves the real path of each file that it
/// requires, and this one has none.
#[derive(Debug)]
pub struct Preload {
    file: PathBuf,
    /// The file's device and inode: what has another is not ours.
    identity: (u64, u64),
    /// The script without a name, once a worker could not read the file.
    page: Option<Page>,
    /// Workers take it by neither.
    is_refused: bool,
    /// Removed after the file.
    _folder: PrivateFolder,
}

/// Workers cannot be given the script.
#[derive(Debug, thiserror::Error)]
pub enum PreloadError {
    /// It can be written nowhere.
    #[error(
        "the preload that Node programs need for --affinity session and behind a proxy cannot be written: {0}; set \
         XDG_RUNTIME_DIR or TMPDIR to a folder that haft may write to and that only haft's user and root can change, or do \
         without it (--no-preload: sessions get no tags then, and a proxy's address is taken for its clients')"
    )]
    Unwritable(String),
    /// Workers could not read its file, and their Node takes it in no other way.
    #[error(
        "the workers cannot read haft's preload ({}), and their Node is too old to take it by a descriptor. It is needed for \
         --affinity session, behind a proxy and below a wrapper such as npm or a shell: use Node 18.18 or later, or let the \
         workers read that file", .0.display()
    )]
    Refused(PathBuf),
}

impl Preload {
    /// Writes the script to a new folder in `$XDG_RUNTIME_DIR`, or where that is of no use in the folder for temporary
    /// files. What exists is neither followed nor touched.
    ///
    /// # Errors
    ///
    /// When it can be written to neither, with the reason for each.
    pub fn write() -> Result<Self, PreloadError> {
        let mut reasons = Vec::new();
        for place in folder::places() {
            match Self::write_below(&place) {
                Ok(preload) => return Ok(preload),
                Err(error) => reasons.push(format!("{}: {error}", place.display())),
            }
        }
        Err(PreloadError::Unwritable(reasons.join("; ")))
    }

    fn write_below(place: &Path) -> io::Result<Self> {
        // Node gives the script its own path without links, and the script must find itself in NODE_OPTIONS.
        if place.canonicalize()?.to_str().is_none() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "a path that is no UTF-8"));
        }
        let folder = PrivateFolder::below(place)?;
        // From here on the file is removed again, also after an error.
        let mut preload = Self {
            file: folder.path().join(folder::PRELOAD),
            identity: (0, 0),
            page: None,
            is_refused: false,
            _folder: folder,
        };
        let mut opened = OpenOptions::new().write(true).create_new(true).mode(0o444).open(&preload.file)?;
        // Whatever the umask is: workers may be another user's.
        opened.set_permissions(Permissions::from_mode(0o444))?;
        opened.write_all(PRELOAD.as_bytes())?;
        let metadata = opened.metadata()?;
        preload.identity = (metadata.dev(), metadata.ino());
        Ok(preload)
    }

    /// Writes the script again, to another place, if it was removed: by what cleans the folder for temporary files,
    /// or the end of the login that `$XDG_RUNTIME_DIR` belongs to. Workers that start without it would end at once, so
    /// this is for every start.
    ///
    /// # Errors
    ///
    /// As [`Preload::write`]. The next worker cannot be started then.
    pub fn ensure(&mut self) -> Result<(), PreloadError> {
        let is_there = fs::symlink_metadata(&self.file)
            .is_ok_and(|metadata| (metadata.dev(), metadata.ino()) == self.identity && metadata.is_file());
        if !is_there {
            let (page, is_refused) = (self.page.take(), self.is_refused);
            *self = Self::write()?;
            (self.page, self.is_refused) = (page, is_refused);
        }
        Ok(())
    }

    /// From now on workers are given the script by a descriptor, which costs each of them a few milliseconds more. For
    /// programs that may not read the file: under Node's permission model, or where another part of the file system is
    /// seen.
    ///
    /// # Errors
    ///
    /// Those of [`Page::of`].
    pub fn pass_by_descriptor(&mut self) -> io::Result<()> {
        if self.page.is_none() {
            self.page = Some(Page::of(PRELOAD.as_bytes())?);
        }
        Ok(())
    }

    /// A worker's Node takes the script by a descriptor no more than by its file.
    pub fn refuse(&mut self) {
        self.is_refused = true;
    }

    /// Whether workers can be given the script at all.
    pub fn can_be_passed(&self) -> bool {
        !self.is_refused
    }

    /// What a worker inherits to find the script.
    pub fn page(&self) -> Option<&Page> {
        self.page.as_ref()
    }

    /// What Node writes to standard error, among other things, when it ends since it cannot read the file, or since it is
    /// too old to take the script by a descriptor. (In a stack the path has no quotation mark.)
    pub fn unreadable(&self) -> String {
        match self.page {
            None => format!("{}'", self.file.display()),
            Some(_) => "--import is not allowed in NODE_OPTIONS".to_owned(),
        }
    }

    /// Whether a command, a text or options of Node keep the file from being read.
    pub fn is_kept_out_by(text: &str) -> bool {
        text.contains(PERMISSION)
    }

    /// Where the script is: an absolute path without links.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// The `NODE_OPTIONS` of a worker: the script first, so that it sees what all others load, then what haft
    /// inherited.
    ///
    /// A worker takes the script out of them again, so that what the program starts is not given it.
    pub fn node_options(&self, inherited: Option<&str>) -> String {
        // Its folder's path was found to be UTF-8.
        let path = self.file.to_string_lossy();
        let name = self.page.as_ref().and_then(|page| page.name().ok());
        let options = match name.as_deref().and_then(|name| name.split_once(':')) {
            Some((number, identity)) => {
                let script = IMPORTED.replace("NUMBER", number).replace("IDENTITY", identity);
                format!("--import {}", script.replace("PATH", &literal(&path)).replace(' ', "%20"))
            }
            None => format!("--require {}", quoted(&path)),
        };
        match inherited.map(str::trim).filter(|inherited| !inherited.is_empty()) {
            Some(inherited) => format!("{options} {inherited}"),
            None => options,
        }
    }
}

impl Drop for Preload {
    fn drop(&mut self) {
        // The error can go nowhere, and what is left is a few kilobytes, which the next haft removes.
        fs::remove_file(&self.file).ok();
    }
}

/// A word as Node reads it from `NODE_OPTIONS` (`ParseNodeOptionsEnvVar` in `src/node_options.cc`): a blank ends it but
/// within quotation marks, where a backslash stands before what is meant literally.
fn quoted(word: &str) -> String {
    if !word.contains([' ', '"']) {
        return word.to_owned();
    }
    format!("\"{}\"", word.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A text as JavaScript that stands within a URL, whatever is in it.
fn literal(text: &str) -> String {
    let units = text.encode_utf16().map(|unit| unit.to_string()).collect::<Vec<_>>();
    format!("String.fromCharCode({})", units.join(","))
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::unix::fs::{DirBuilderExt, chown, symlink};
    use std::process::Command;

    use nix::fcntl::{FcntlArg, FdFlag, fcntl};

    use super::*;

    fn mode(path: &Path) -> u32 {
        fs::symlink_metadata(path).expect("metadata").permissions().mode() & 0o7777
    }

    #[test]
    fn it_is_written_for_this_user_alone_and_is_gone_afterwards() {
        let place = tempfile::tempdir().expect("folder");
        let preload = Preload::write_below(place.path()).expect("written");
        assert_eq!(fs::read_to_string(preload.file()).expect("read"), PRELOAD);
        let folder = preload.file().parent().expect("a folder").to_owned();
        assert_eq!((mode(&folder), mode(preload.file())), (0o711, 0o444));
        assert!(File::open(&folder).expect("folder").try_lock().is_err(), "locked");
        let another = Preload::write_below(place.path()).expect("written");
        assert_ne!(another.file(), preload.file());
        drop(preload);
        assert!(!folder.exists());
        assert!(another.file().exists());
        drop(another);
        assert_eq!(fs::read_dir(place.path()).expect("read").count(), 0);
    }

    #[test]
    fn nothing_is_left_where_nothing_can_be_written() {
        let place = tempfile::tempdir().expect("folder");
        assert!(Preload::write_below(&place.path().join("none")).is_err());
        let file = place.path().join("file");
        fs::write(&file, "").expect("file");
        assert!(Preload::write_below(&file).is_err());
        assert_eq!(fs::read_dir(place.path()).expect("read").count(), 1);
    }

    /// A script there would run in root's workers.
    #[test]
    fn what_another_user_can_change_is_no_place() {
        let place = tempfile::tempdir().expect("folder");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o777)).expect("mode");
        let refused = Preload::write_below(place.path()).expect_err("all may write there").to_string();
        assert!(refused.contains("chmod go-w"), "{refused}");
        fs::set_permissions(place.path(), fs::Permissions::from_mode(0o755)).expect("mode");
        if nix::unistd::geteuid().is_root() {
            chown(place.path(), Some(65_533), None).expect("chown");
            let refused = Preload::write_below(place.path()).expect_err("another user's").to_string();
            assert!(refused.contains("belongs to user 65533"), "{refused}");
        }
        assert_eq!(fs::read_dir(place.path()).expect("read").count(), 0);
    }

    #[test]
    fn what_was_removed_or_replaced_is_written_again_elsewhere() {
        let mut preload = Preload::write().expect("written");
        let first = preload.file().to_owned();
        preload.ensure().expect("there");
        assert_eq!(preload.file(), first);
        fs::remove_file(&first).expect("removed");
        symlink("/dev/null", &first).expect("link");
        preload.ensure().expect("written again");
        assert_ne!(preload.file(), first);
        assert_eq!(fs::read_to_string(preload.file()).expect("read"), PRELOAD);
        let second = preload.file().to_owned();
        fs::remove_dir_all(second.parent().expect("a folder")).expect("removed");
        preload.ensure().expect("written again");
        assert!(preload.file().exists());
    }

    #[test]
    fn what_was_inherited_follows() {
        let place = tempfile::tempdir().expect("folder");
        let preload = Preload::write_below(place.path()).expect("written");
        let file = preload.file().display();
        assert_eq!(preload.node_options(None), format!("--require {file}"));
        assert_eq!(preload.node_options(Some("  ")), format!("--require {file}"));
        let inherited = "--max-old-space-size=100 -r \"/a b/c.js\"";
        assert_eq!(preload.node_options(Some(inherited)), format!("--require {file} {inherited}"));
    }

    /// Node finds the script whatever its path is, and the script finds itself, as a file and by a descriptor.
    #[test]
    fn node_reads_the_options_as_they_are_meant() {
        for name in ["plain", "with blanks", "quotes\"\"'", "back\\slash", "all \\ of\" them\\", "\u{e9}\u{65e5}"] {
            let place = tempfile::tempdir().expect("folder");
            let place = place.path().join(name);
            // Other tests set the umask to 0 for a moment.
            fs::DirBuilder::new().mode(0o700).create(&place).expect("folder");
            let mut preload = Preload::write_below(&place).expect("written");
            let inherited = "--title=\"a b\" --stack-trace-limit=7";
            let required = vec![preload.file().to_owned()];
            for expected in [required, vec![]] {
                assert_eq!(run_node(&preload, None), (None, expected.clone()), "{name}");
                let kept = Some(inherited.to_owned());
                assert_eq!(run_node(&preload, Some(inherited)), (kept, expected), "{name}");
                preload.pass_by_descriptor().expect("a page");
            }
        }
    }

    /// NODE_OPTIONS as the program finds it, and what Node has required.
    fn run_node(preload: &Preload, inherited: Option<&str>) -> (Option<String>, Vec<PathBuf>) {
        let script = "console.log(JSON.stringify([process.env.NODE_OPTIONS, Object.keys(require.cache)]))";
        if let Some(page) = preload.page() {
            fcntl(page, FcntlArg::F_SETFD(FdFlag::empty())).expect("to be inherited");
        }
        let mut node = Command::new("node");
        let node = node.args(["-e", script]).env("NODE_OPTIONS", preload.node_options(inherited));
        let output = node.output().expect("these tests need Node.js: `node` on the PATH");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "");
        let printed = String::from_utf8_lossy(&output.stdout).into_owned();
        serde_json::from_str(&printed).expect(&printed)
    }
}
