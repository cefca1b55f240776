//! A disk in memory that knows what was synced, and what a power cut may leave of it.
//!
//! The rules are those that programs may rely on, not those of one file system: what a file holds
//! is safe once the file was synced; a name is safe once its folder was; syncing a new file does
//! not sync its name. Of everything else any part may be there after a crash: appended bytes up to
//! any place, or zeros in their stead, and any choice of names. A rename happens or does not.

use super::Random;
use super::recorder::Change;
use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

/// What of all that was not synced is there after a crash.
pub enum Survivors {
    /// Everything.
    All,
    /// Nothing.
    Synced,
    /// Some of it.
    Some(Random),
}

#[derive(Clone)]
struct Content {
    bytes: Vec<u8>,
    mode: u32,
    modified: Option<SystemTime>,
}

#[derive(Clone)]
enum Edit {
    Append(Vec<u8>),
    Length(u64),
    Attributes(u32, SystemTime),
}

#[derive(Clone)]
struct Naming {
    /// Equal for both sides of a rename.
    change: usize,
    name: String,
    node: Option<usize>,
}

#[derive(Clone)]
enum Node {
    File {
        synced: Content,
        pending: Vec<Edit>,
    },
    Folder {
        now: BTreeMap<String, usize>,
        synced: BTreeMap<String, usize>,
        pending: Vec<Naming>,
    },
    Link(PathBuf),
}

/// A disk of which everything that happened since it was empty is known.
#[derive(Clone)]
pub struct Disk {
    nodes: Vec<Node>,
    n_changes: usize,
}

impl Content {
    fn apply(&mut self, edit: &Edit) {
        match edit {
            Edit::Append(bytes) => self.bytes.extend_from_slice(bytes),
            Edit::Length(size) => {
                let size = usize::try_from(*size).expect("a size");
                self.bytes.resize(size, 0);
            }
            Edit::Attributes(mode, modified) => {
                self.mode = *mode;
                self.modified = Some(*modified);
            }
        }
    }
}

impl Node {
    fn file(edits: Vec<Edit>) -> Self {
        let synced = Content {
            bytes: Vec::new(),
            mode: 0o644,
            modified: None,
        };
        Node::File {
            synced,
            pending: edits,
        }
    }

    fn folder() -> Self {
        Node::Folder {
            now: BTreeMap::new(),
            synced: BTreeMap::new(),
            pending: Vec::new(),
        }
    }
}

impl Disk {
    pub fn empty() -> Self {
        Self {
            nodes: vec![Node::folder()],
            n_changes: 0,
        }
    }

    /// Whether there is something at `path`, relative to the disk's root.
    pub fn knows(&self, path: &Path) -> bool {
        self.find(path).is_some()
    }

    fn find(&self, path: &Path) -> Option<usize> {
        path.components().try_fold(0, |at, name| {
            let Node::Folder { now, .. } = &self.nodes[at] else {
                return None;
            };
            now.get(&*name.as_os_str().to_string_lossy()).copied()
        })
    }

    /// Returns what of the file at `path` is sure to survive.
    pub fn synced(&self, path: &Path) -> Option<&[u8]> {
        match &self.nodes[self.find(path)?] {
            Node::File { synced, .. } => Some(&synced.bytes),
            _ => None,
        }
    }

    pub fn apply(&mut self, change: &Change) {
        self.n_changes += 1;
        match change {
            Change::CreateFolder(path) => self.place(path, Node::folder()),
            Change::CreateFile(path) => match self.find(path) {
                Some(_) => self.edit(path, Edit::Length(0)),
                None => self.place(path, Node::file(Vec::new())),
            },
            Change::Appear(path, bytes, mode) => {
                let edits = vec![
                    Edit::Append(bytes.clone()),
                    Edit::Attributes(*mode, SystemTime::now()),
                ];
                self.place(path, Node::file(edits));
            }
            Change::Append(path, bytes) => self.edit(path, Edit::Append(bytes.clone())),
            Change::SetLength(path, size) => self.edit(path, Edit::Length(*size)),
            Change::SetAttributes(path, mode, at) => self.edit(path, Edit::Attributes(*mode, *at)),
            Change::SyncFile(path) => self.sync_file(path),
            Change::SyncFolder(path) => self.sync_folder(path),
            Change::Rename(from, to) => {
                let node = self.known(from);
                self.name(from, None);
                self.name(to, Some(node));
            }
            Change::Link(from, to) => {
                let node = self.known(from);
                self.name(to, Some(node));
            }
            Change::Copy(from, to) => {
                let content = self.content(self.known(from));
                self.place(to, Node::file(vec![Edit::Append(content.bytes)]));
            }
            Change::Symlink(target, path) => self.place(path, Node::Link(target.clone())),
            Change::Remove(path) => self.remove(path),
        }
    }

    fn known(&self, path: &Path) -> usize {
        self.find(path)
            .unwrap_or_else(|| panic!("nothing is known of {}", path.display()))
    }

    fn place(&mut self, path: &Path, node: Node) {
        self.nodes.push(node);
        self.name(path, Some(self.nodes.len() - 1));
    }

    fn name(&mut self, path: &Path, node: Option<usize>) {
        let parent = self.parent(path);
        let name = path.file_name().expect("a name").to_string_lossy();
        let change = self.n_changes;
        let Node::Folder { now, pending, .. } = &mut self.nodes[parent] else {
            panic!("{} is in a file", path.display());
        };
        match node {
            Some(node) => now.insert(name.to_string(), node),
            None => now.remove(&*name),
        };
        pending.push(Naming {
            change,
            name: name.to_string(),
            node,
        });
    }

    /// Finds the folder of `path`; steps make folders that nobody saw.
    fn parent(&mut self, path: &Path) -> usize {
        let parent = path.parent().expect("a parent").to_owned();
        if self.find(&parent).is_none() {
            self.place(&parent, Node::folder());
        }
        self.known(&parent)
    }

    fn edit(&mut self, path: &Path, edit: Edit) {
        let node = self.known(path);
        if let Node::File { pending, .. } = &mut self.nodes[node] {
            pending.push(edit);
        }
    }

    fn content(&self, node: usize) -> Content {
        let Node::File { synced, pending } = &self.nodes[node] else {
            panic!("only files are copied");
        };
        let mut content = synced.clone();
        pending.iter().for_each(|edit| content.apply(edit));
        content
    }

    fn sync_file(&mut self, path: &Path) {
        let node = self.known(path);
        if let Node::File { synced, pending } = &mut self.nodes[node] {
            pending.drain(..).for_each(|edit| synced.apply(&edit));
        }
    }

    fn sync_folder(&mut self, path: &Path) {
        let folder = self.known(path);
        let Node::Folder { pending, .. } = &self.nodes[folder] else {
            panic!("{} is no folder", path.display());
        };
        let safe: BTreeSet<usize> = pending.iter().map(|naming| naming.change).collect();
        for (at, node) in self.nodes.iter_mut().enumerate() {
            let Node::Folder {
                synced, pending, ..
            } = node
            else {
                continue;
            };
            // In another folder, only the other side of a rename, which supersedes what was before.
            let is_safe = |naming: &Naming| at == folder || safe.contains(&naming.change);
            for naming in pending.iter().filter(|naming| is_safe(naming)) {
                name_in(synced, naming);
            }
            let last_safe: BTreeMap<String, usize> = pending
                .iter()
                .filter(|naming| is_safe(naming))
                .map(|naming| (naming.name.clone(), naming.change))
                .collect();
            pending.retain(|naming| {
                last_safe
                    .get(&naming.name)
                    .is_none_or(|last| naming.change > *last)
            });
        }
    }

    fn remove(&mut self, path: &Path) {
        let Some(node) = self.find(path) else { return };
        if let Node::Folder { now, .. } = &self.nodes[node] {
            let names: Vec<String> = now.keys().cloned().collect();
            for name in names {
                self.remove(&path.join(name));
                self.n_changes += 1;
            }
        }
        self.name(path, None);
    }

    /// Writes what a power cut leaves into `target`, an empty folder.
    pub fn crash_into(&self, target: &Path, mut survivors: Survivors) {
        let likely = match &mut survivors {
            Survivors::Some(random) => [10, 50, 90][random.below(3)],
            _ => 0,
        };
        let names = self.surviving_names(&mut survivors, likely);
        let mut written = BTreeMap::new();
        self.write(0, target, &names, &mut survivors, &mut written);
    }

    fn surviving_names(&self, survivors: &mut Survivors, likely: usize) -> BTreeSet<usize> {
        let pending = self.nodes.iter().filter_map(|node| match node {
            Node::Folder { pending, .. } => Some(pending.iter().map(|naming| naming.change)),
            _ => None,
        });
        let all: BTreeSet<usize> = pending.flatten().collect();
        match survivors {
            Survivors::All => all,
            Survivors::Synced => BTreeSet::new(),
            Survivors::Some(random) => all.into_iter().filter(|_| random.chance(likely)).collect(),
        }
    }

    fn write(
        &self,
        node: usize,
        path: &Path,
        names: &BTreeSet<usize>,
        survivors: &mut Survivors,
        written: &mut BTreeMap<usize, PathBuf>,
    ) {
        match &self.nodes[node] {
            Node::Link(target) => std::os::unix::fs::symlink(target, path).expect("a link"),
            Node::File { synced, pending } => match written.get(&node) {
                Some(first) => fs::hard_link(first, path).expect("a second name"),
                None => {
                    write_file(path, &after_crash(synced, pending, survivors));
                    written.insert(node, path.to_owned());
                }
            },
            Node::Folder {
                synced, pending, ..
            } => {
                let mut left = synced.clone();
                for naming in pending.iter().filter(|n| names.contains(&n.change)) {
                    name_in(&mut left, naming);
                }
                fs::create_dir_all(path).expect("a folder");
                for (name, node) in left {
                    self.write(node, &path.join(name), names, survivors, written);
                }
            }
        }
    }
}

fn name_in(names: &mut BTreeMap<String, usize>, naming: &Naming) {
    match naming.node {
        Some(node) => names.insert(naming.name.clone(), node),
        None => names.remove(&naming.name),
    };
}

fn after_crash(synced: &Content, pending: &[Edit], survivors: &mut Survivors) -> Content {
    let mut content = synced.clone();
    match survivors {
        Survivors::Synced => {}
        Survivors::All => pending.iter().for_each(|edit| content.apply(edit)),
        Survivors::Some(random) => {
            let n_left = random.below(pending.len() + 1);
            let zeros = random.chance(30);
            for (i, edit) in pending.iter().enumerate() {
                let left = survives(edit, i < n_left, i == n_left, zeros, random);
                left.iter().for_each(|edit| content.apply(edit));
            }
        }
    }
    content
}

/// What is left of one edit: of bytes all, some, zeros or nothing; attributes come and go as they
/// like, since they lie elsewhere.
fn survives(
    edit: &Edit,
    whole: bool,
    torn: bool,
    zeros: bool,
    random: &mut Random,
) -> Option<Edit> {
    match edit {
        Edit::Attributes(..) => random.chance(50).then(|| edit.clone()),
        Edit::Append(bytes) if zeros && random.chance(70) => {
            Some(Edit::Append(vec![0; bytes.len()]))
        }
        Edit::Append(bytes) if torn => Some(Edit::Append(
            bytes[..random.below(bytes.len() + 1)].to_vec(),
        )),
        _ => whole.then(|| edit.clone()),
    }
}

fn write_file(path: &Path, content: &Content) {
    fs::write(path, &content.bytes).expect("a file");
    if let Some(modified) = content.modified {
        fs::File::open(path)
            .and_then(|file| file.set_modified(modified))
            .expect("a time");
    }
    fs::set_permissions(path, fs::Permissions::from_mode(content.mode)).expect("permissions");
}
