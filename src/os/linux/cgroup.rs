//! Control groups, v1 and v2: bounds on a whole process tree, where the host lets us set them.
//!
//! We stay below the group we were started in and never touch the rest of the tree. On v2 that
//! needs delegation (`Delegate=yes`, marked by an extended attribute); on v1 it needs write access.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// What of a tree can be bounded here.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Controller {
    Cpu,
    Memory,
    Pids,
}

impl Controller {
    pub(crate) const ALL: [Controller; 3] = [Controller::Cpu, Controller::Memory, Controller::Pids];

    /// The kernel's name.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Controller::Cpu => "cpu",
            Controller::Memory => "memory",
            Controller::Pids => "pids",
        }
    }
}

/// The bounds of one group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Bounds {
    pub(crate) milli_cpus: u32,
    pub(crate) memory_bytes: u64,
    pub(crate) pids: u32,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Version {
    V1,
    V2,
}

/// A place in one hierarchy below which we may make groups.
#[derive(Debug, Clone)]
struct Place {
    version: Version,
    folder: PathBuf,
    controllers: Vec<Controller>,
}

/// The places this process may make groups in, found once.
#[derive(Debug, Clone, Default)]
pub(crate) struct Cgroups {
    places: Vec<Place>,
}

impl Cgroups {
    /// Finds them from /proc/self/{cgroup,mountinfo}. What cannot be used is simply not among them.
    pub(crate) fn discover() -> Self {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap_or_default();
        let own = fs::read_to_string("/proc/self/cgroup").unwrap_or_default();
        let places = own.lines().filter_map(|line| place(line, &mounts)).collect();
        Cgroups { places }
    }

    /// The controllers that can be used.
    pub(crate) fn controllers(&self) -> Vec<Controller> {
        Controller::ALL.into_iter().filter(|c| self.places.iter().any(|p| p.controllers.contains(c))).collect()
    }

    /// Makes a group of this name with these bounds, for the controllers there are.
    ///
    /// # Errors
    /// Where a group cannot be made or bounded although its controller is here.
    pub(crate) fn create(&self, name: &str, bounds: Bounds) -> io::Result<Group> {
        let mut group = Group { folders: Vec::with_capacity(self.places.len()) };
        for place in &self.places {
            let folder = place.folder.join(name);
            match fs::create_dir(&folder) {
                // A group of our name and pid is left over from a process that died; it must be empty to go.
                Err(e) if e.kind() == io::ErrorKind::AlreadyExists => {
                    fs::remove_dir(&folder)?;
                    fs::create_dir(&folder)?;
                }
                made => made?,
            }
            group.folders.push((place.version, folder));
        }
        self.bound(&group, bounds)?;
        Ok(group)
    }

    /// Changes the bounds of a group.
    pub(crate) fn bound(&self, group: &Group, bounds: Bounds) -> io::Result<()> {
        for (place, (_, folder)) in self.places.iter().zip(&group.folders) {
            for controller in &place.controllers {
                bound(place.version, *controller, folder, bounds)?;
            }
        }
        Ok(())
    }

    /// Removes groups that launchers which are no more have left: `<prefix><pid>-<number>`.
    pub(crate) fn sweep(&self, prefix: &str) {
        for place in &self.places {
            for item in fs::read_dir(&place.folder).into_iter().flatten().flatten() {
                let name = item.file_name();
                let pid = name.to_str().and_then(|n| n.strip_prefix(prefix)?.split('-').next()?.parse::<u32>().ok());
                if pid.is_some_and(|pid| !Path::new("/proc").join(pid.to_string()).exists()) {
                    // One that still holds processes does not go, which is right.
                    let _ = fs::remove_dir(item.path());
                }
            }
        }
    }
}

/// One sandbox's group in each hierarchy; removed when dropped.
#[derive(Debug)]
pub(crate) struct Group {
    folders: Vec<(Version, PathBuf)>,
}

impl Group {
    /// Moves a process in, before it has started anything.
    pub(crate) fn admit(&self, pid: i32) -> io::Result<()> {
        for (_, folder) in &self.folders {
            fs::write(folder.join("cgroup.procs"), pid.to_string())?;
        }
        Ok(())
    }

    /// Stops everything here or lets it go on, where the kernel can (v2, kernel 5.2); says whether it can.
    pub(crate) fn freeze(&self, frozen: bool) -> bool {
        let word = if frozen { "1" } else { "0" };
        self.unified().any(|folder| fs::write(folder.join("cgroup.freeze"), word).is_ok())
    }

    /// Kills everything here at once, where the kernel can (v2, kernel 5.14); says whether it can.
    pub(crate) fn kill(&self) -> bool {
        self.unified().any(|folder| fs::write(folder.join("cgroup.kill"), "1").is_ok())
    }

    fn unified(&self) -> impl Iterator<Item = &PathBuf> {
        self.folders.iter().filter(|(version, _)| *version == Version::V2).map(|(_, folder)| folder)
    }

    /// Whether the kernel killed something here for want of memory.
    pub(crate) fn ran_out_of_memory(&self) -> bool {
        self.folders.iter().any(|(version, folder)| {
            let file = if *version == Version::V1 { "memory.oom_control" } else { "memory.events" };
            counted(&folder.join(file), "oom_kill ") > 0
        })
    }

    /// How often the kernel refused a process here because there were as many as may be.
    pub(crate) fn refused_processes(&self) -> u64 {
        let files = self.folders.iter().map(|(_, folder)| folder.join("pids.events"));
        files.map(|file| counted(&file, "max ")).max().unwrap_or(0)
    }
}

/// The same for the group that a container's own view of the control groups begins at.
pub(crate) fn refused_processes_of_container() -> u64 {
    let files = ["/sys/fs/cgroup/pids.events", "/sys/fs/cgroup/pids/pids.events"];
    files.iter().map(|file| counted(Path::new(file), "max ")).max().unwrap_or(0)
}

/// How often the kernel has killed something for want of memory in the group that a container's own view of the control
/// groups begins at, in either version; 0 where it shows none.
pub(crate) fn oom_kills_of_container() -> u64 {
    let files = ["/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control"];
    files.iter().map(|file| counted(Path::new(file), "oom_kill ")).max().unwrap_or(0)
}

/// A counter by its name in a file of them; 0 where there is none.
fn counted(file: &Path, name: &str) -> u64 {
    let text = fs::read_to_string(file).unwrap_or_default();
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok()).unwrap_or(0)
}

impl Drop for Group {
    fn drop(&mut self) {
        for (_, folder) in &self.folders {
            // By now the whole tree is dead; a group that will not go is left to the next start's cleaning.
            let _ = fs::remove_dir(folder);
        }
    }
}

fn bound(version: Version, controller: Controller, folder: &Path, bounds: Bounds) -> io::Result<()> {
    const PERIOD_US: u64 = 100_000;
    let quota_us = u64::from(bounds.milli_cpus) * PERIOD_US / 1000;
    let write = |file: &str, value: String| fs::write(folder.join(file), value);
    let where_it_is = |file: &str, value: String| match write(file, value) {
        Err(e) if e.kind() == io::ErrorKind::NotFound || e.kind() == io::ErrorKind::PermissionDenied => Ok(()),
        done => done,
    };
    match (version, controller) {
        (Version::V1, Controller::Cpu) => write("cpu.cfs_quota_us", quota_us.max(1000).to_string()),
        (Version::V1, Controller::Memory) => {
            // The limit with swap is never below the one without: it is lifted first, so that both can move.
            let _ = write("memory.memsw.limit_in_bytes", "-1".into());
            write("memory.limit_in_bytes", bounds.memory_bytes.to_string())?;
            // What lies in internet sockets is not among it, and is bounded for the whole host alone. It has a bound of its
            // own here, and is counted only once that is set.
            where_it_is("memory.kmem.tcp.limit_in_bytes", bounds.memory_bytes.to_string())?;
            // Only where swap accounting is on; without it the limit above is all there is.
            where_it_is("memory.memsw.limit_in_bytes", bounds.memory_bytes.to_string())
        }
        (Version::V2, Controller::Cpu) => write("cpu.max", format!("{} {PERIOD_US}", quota_us.max(1000))),
        (Version::V2, Controller::Memory) => {
            write("memory.max", bounds.memory_bytes.to_string())?;
            write("memory.oom.group", "1".into())?;
            where_it_is("memory.swap.max", "0".into())
        }
        // One more for the launcher's own init inside the pid namespace.
        (_, Controller::Pids) => write("pids.max", (u64::from(bounds.pids) + 1).to_string()),
    }
}

/// Reads one line of /proc/self/cgroup (`id:controllers:path`) and finds its folder.
fn place(line: &str, mounts: &str) -> Option<Place> {
    let mut parts = line.splitn(3, ':');
    let (id, names, path) = (parts.next()?, parts.next()?, parts.next()?);
    let version = if id == "0" { Version::V2 } else { Version::V1 };
    let wanted: Vec<Controller> = match version {
        Version::V1 => Controller::ALL.into_iter().filter(|c| names.split(',').any(|n| n == c.name())).collect(),
        Version::V2 => Controller::ALL.to_vec(),
    };
    if wanted.is_empty() {
        return None;
    }
    let folder = mount_point(version, names, mounts)?.join(path.trim_start_matches('/'));
    let controllers = match version {
        Version::V1 => wanted,
        Version::V2 => delegate(&folder)?,
    };
    let usable = rustix::fs::access(&folder, rustix::fs::Access::WRITE_OK).is_ok();
    (usable && !controllers.is_empty()).then_some(Place { version, folder, controllers })
}

/// Where a hierarchy is mounted (proc_pid_mountinfo(5)): fields 4 and after the dash.
fn mount_point(version: Version, names: &str, mounts: &str) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        let (left, right) = line.split_once(" - ")?;
        let mut right = right.split(' ');
        let (kind, _, options) = (right.next()?, right.next()?, right.next()?);
        let here = match version {
            Version::V2 => kind == "cgroup2",
            Version::V1 => kind == "cgroup" && names.split(',').all(|n| options.split(',').any(|o| o == n)),
        };
        let mut left = left.split(' ').skip(3);
        // The mount must show the hierarchy from its root, else the path does not lead there.
        (here && left.next()? == "/").then(|| left.next().map(PathBuf::from))?
    })
}

/// On v2: makes a leaf for ourselves and turns the controllers on below, if this group was given to us.
fn delegate(folder: &Path) -> Option<Vec<Controller>> {
    let marked = ["user.delegate", "trusted.delegate"].iter().any(|name| {
        let mut value = [0u8; 8];
        matches!(rustix::fs::getxattr(folder, *name, &mut value[..]), Ok(1) if value[0] == b'1')
    });
    if !marked {
        return None;
    }
    let present = fs::read_to_string(folder.join("cgroup.controllers")).ok()?;
    let controllers: Vec<_> =
        Controller::ALL.into_iter().filter(|c| present.split_whitespace().any(|n| n == c.name())).collect();
    // No process may stay in a group that hands controllers down (cgroups(7), "no internal processes").
    let leaf = folder.join("vambrace-runner");
    fs::create_dir(&leaf).or_else(|e| if e.kind() == io::ErrorKind::AlreadyExists { Ok(()) } else { Err(e) }).ok()?;
    fs::write(leaf.join("cgroup.procs"), "0").ok()?;
    let on: Vec<String> = controllers.iter().map(|c| format!("+{}", c.name())).collect();
    fs::write(folder.join("cgroup.subtree_control"), on.join(" ")).ok()?;
    Some(controllers)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTS: &str = "\
30 24 0:26 / /sys/fs/cgroup/memory rw,relatime shared:9 - cgroup cgroup rw,memory
31 24 0:27 / /sys/fs/cgroup/cpu,cpuacct rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuacct
32 24 0:28 / /sys/fs/cgroup/unified rw,relatime shared:9 - cgroup2 cgroup2 rw
33 24 0:29 /inner /sys/fs/cgroup/pids rw,relatime shared:9 - cgroup cgroup rw,pids";

    /// A real group of the unified hierarchy, which every systemd of today mounts; root only.
    #[test]
    fn a_group_of_the_unified_hierarchy_is_frozen_and_killed_at_once() {
        let mounts = fs::read_to_string("/proc/self/mountinfo").unwrap();
        let root = mount_point(Version::V2, "", &mounts).expect("mount the unified hierarchy (cgroup2) for this test");
        let folder = root.join(format!("vambrace-test-{}", std::process::id()));
        fs::create_dir(&folder).expect("run this test as root");
        let group = Group { folders: vec![(Version::V2, folder.clone())] };
        let (reading, writing) = std::io::pipe().unwrap();
        #[allow(clippy::disallowed_methods, reason = "something to freeze")]
        let mut child =
            std::process::Command::new("cat").stdin(reading).stdout(std::process::Stdio::null()).spawn().unwrap();
        group.admit(child.id() as i32).unwrap();

        assert!(group.freeze(true));
        let says = |word: &str| fs::read_to_string(folder.join("cgroup.events")).unwrap().contains(word);
        while !says("frozen 1") {
            std::thread::yield_now();
        }
        // A frozen group is killed all the same.
        assert!(group.kill());
        use std::os::unix::process::ExitStatusExt;
        assert_eq!(child.wait().unwrap().signal(), Some(libc::SIGKILL));
        drop(writing);
        drop(group);
        assert!(!folder.exists());
    }

    #[test]
    fn a_hierarchy_is_found_by_its_controllers_and_only_from_its_root() {
        let find = |version, names| mount_point(version, names, MOUNTS);
        assert_eq!(find(Version::V1, "memory"), Some("/sys/fs/cgroup/memory".into()));
        assert_eq!(find(Version::V1, "cpu,cpuacct"), Some("/sys/fs/cgroup/cpu,cpuacct".into()));
        assert_eq!(find(Version::V2, ""), Some("/sys/fs/cgroup/unified".into()));
        assert_eq!(find(Version::V1, "pids"), None);
    }
}
