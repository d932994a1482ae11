//! Users and groups of a guest, kept where Debian keeps them: `/etc/passwd`, `/etc/group`, `/etc/shadow`.
use super::fs::{Files, Who};
use super::live::Machine;

/// A line of `/etc/passwd`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    /// Name.
    pub name: String,
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Comment.
    pub gecos: String,
    /// Home.
    pub home: String,
    /// Shell.
    pub shell: String,
}

/// A line of `/etc/group`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// Name.
    pub name: String,
    /// Group id.
    pub gid: u32,
    /// Members.
    pub members: Vec<String>,
}

/// A user to make.
#[derive(Debug, Clone, Default)]
pub struct NewUser {
    /// Name.
    pub name: String,
    /// User id; the next free one when `None`.
    pub uid: Option<u32>,
    /// Primary group by name or id; one of the user's name when `None`.
    pub group: Option<String>,
    /// Further groups, comma separated.
    pub groups: String,
    /// Shell.
    pub shell: String,
    /// Comment.
    pub gecos: String,
    /// Whether the home directory is made.
    pub home: bool,
    /// Home directory; below `/home` when empty.
    pub home_dir: String,
    /// A system user: id below 1000.
    pub system: bool,
}

/// All users.
#[must_use]
pub fn users(f: &Files) -> Vec<User> {
    let line = |l: &str| {
        let p: Vec<&str> = l.split(':').collect();
        let [name, _, uid, gid, gecos, home, shell] = p[..] else { return None };
        let text = |s: &str| s.to_owned();
        Some(User {
            name: text(name),
            uid: uid.parse().ok()?,
            gid: gid.parse().ok()?,
            gecos: text(gecos),
            home: text(home),
            shell: text(shell),
        })
    };
    f.text("/etc/passwd").lines().filter_map(line).collect()
}

/// All groups.
#[must_use]
pub fn groups(f: &Files) -> Vec<Group> {
    let line = |l: &str| {
        let p: Vec<&str> = l.split(':').collect();
        let [name, _, gid, members] = p[..] else { return None };
        let members = members.split(',').filter(|m| !m.is_empty()).map(str::to_owned).collect();
        Some(Group { name: name.to_owned(), gid: gid.parse().ok()?, members })
    };
    f.text("/etc/group").lines().filter_map(line).collect()
}

fn save_users(f: &Files, all: &[User]) {
    let text: String =
        all.iter().map(|u| format!("{}:x:{}:{}:{}:{}:{}\n", u.name, u.uid, u.gid, u.gecos, u.home, u.shell)).collect();
    f.place_file("/etc/passwd", text.as_bytes(), 0o644);
}

fn save_groups(f: &Files, all: &[Group]) {
    let text: String = all.iter().map(|g| format!("{}:x:{}:{}\n", g.name, g.gid, g.members.join(","))).collect();
    f.place_file("/etc/group", text.as_bytes(), 0o644);
}

/// A user by name or numeric id.
#[must_use]
pub fn user(f: &Files, name: &str) -> Option<User> {
    users(f).into_iter().find(|u| u.name == name || name.parse() == Ok(u.uid))
}

/// A group by name or numeric id.
#[must_use]
pub fn group(f: &Files, name: &str) -> Option<Group> {
    groups(f).into_iter().find(|g| g.name == name || name.parse() == Ok(g.gid))
}

/// The identity a user's processes have.
#[must_use]
pub fn who(f: &Files, name: &str) -> Option<Who> {
    let u = user(f, name)?;
    let groups =
        groups(f).into_iter().filter(|g| g.gid == u.gid || g.members.contains(&u.name)).map(|g| g.gid).collect();
    Some(Who { uid: u.uid, gid: u.gid, groups, name: u.name, home: u.home, shell: u.shell })
}

/// Makes a group; false when it exists.
pub fn add_group(m: &Machine, name: &str, gid: Option<u32>, system: bool) -> bool {
    let mut all = groups(&m.files);
    if all.iter().any(|g| g.name == name || Some(g.gid) == gid) {
        return false;
    }
    let free = if system {
        (100..999).rev().find(|i| all.iter().all(|g| g.gid != *i))
    } else {
        (1000..60000).find(|i| all.iter().all(|g| g.gid != *i))
    };
    all.push(Group { name: name.to_owned(), gid: gid.or(free).unwrap_or(60000), members: Vec::new() });
    save_groups(&m.files, &all);
    true
}

/// Removes a group; false when there is none.
pub fn remove_group(m: &Machine, name: &str) -> bool {
    let mut all = groups(&m.files);
    let before = all.len();
    all.retain(|g| g.name != name);
    save_groups(&m.files, &all);
    all.len() < before
}

/// Makes a user with its group and home; false when it exists.
pub fn add_user(m: &Machine, new: &NewUser) -> bool {
    if user(&m.files, &new.name).is_some() {
        join(m, &new.name, &new.groups, true);
        return false;
    }
    let mut all = users(&m.files);
    let free = |i: &u32| all.iter().all(|u| u.uid != *i);
    let uid = new.uid.unwrap_or_else(|| {
        if new.system { (100..999).rev().find(free) } else { (1000..60000).find(free) }.unwrap_or(60000)
    });
    let gid = match new.group.as_ref().and_then(|g| group(&m.files, g)) {
        Some(g) => g.gid,
        None => {
            add_group(m, &new.name, group(&m.files, &uid.to_string()).is_none().then_some(uid), new.system);
            group(&m.files, &new.name).map_or(uid, |g| g.gid)
        }
    };
    let home = if new.home_dir.is_empty() { format!("/home/{}", new.name) } else { new.home_dir.clone() };
    let shell = if new.shell.is_empty() { "/bin/sh" } else { &new.shell };
    all.push(User {
        name: new.name.clone(),
        uid,
        gid,
        gecos: new.gecos.clone(),
        home: home.clone(),
        shell: shell.to_owned(),
    });
    save_users(&m.files, &all);
    let shadow = format!("{}{}:!:20300:0:99999:7:::\n", m.files.text("/etc/shadow"), new.name);
    m.files.place_file("/etc/shadow", shadow.as_bytes(), 0o640);
    join(m, &new.name, &new.groups, true);
    if new.home && !m.files.exists(&home) {
        let root = Who::root();
        let _ = m.files.mkdir(&root, &home, true, 0o700);
        for f in [".bashrc", ".profile"] {
            m.files.place_file(&format!("{home}/{f}"), m.files.text(&format!("/etc/skel/{f}")).as_bytes(), 0o644);
        }
        own_tree(m, &home, uid, gid);
    }
    true
}

/// Removes a user; false when there is none.
pub fn remove_user(m: &Machine, name: &str, with_home: bool) -> bool {
    let Some(u) = user(&m.files, name) else { return false };
    let rest: Vec<User> = users(&m.files).into_iter().filter(|x| x.name != name).collect();
    save_users(&m.files, &rest);
    let mut all = groups(&m.files);
    all.retain(|g| g.name != name);
    for g in &mut all {
        g.members.retain(|x| x != name);
    }
    save_groups(&m.files, &all);
    if with_home {
        let _ = m.files.remove(&Who::root(), &u.home, true);
    }
    true
}

/// Puts a user into groups (comma separated); those that do not exist are left out and returned.
pub fn join(m: &Machine, name: &str, list: &str, append: bool) -> Vec<String> {
    let mut all = groups(&m.files);
    let wanted: Vec<&str> = list.split(',').map(str::trim).filter(|g| !g.is_empty()).collect();
    for g in &mut all {
        if wanted.contains(&g.name.as_str()) {
            if !g.members.iter().any(|x| x == name) {
                g.members.push(name.to_owned());
            }
        } else if !append {
            g.members.retain(|x| x != name);
        }
    }
    let missing = wanted.iter().filter(|w| all.iter().all(|g| g.name != **w)).map(|s| (*s).to_owned()).collect();
    save_groups(&m.files, &all);
    missing
}

/// Changes a user in place; false when there is none.
pub fn change_user(m: &Machine, name: &str, f: impl FnOnce(&mut User)) -> bool {
    let mut all = users(&m.files);
    let Some(u) = all.iter_mut().find(|u| u.name == name) else { return false };
    f(u);
    save_users(&m.files, &all);
    true
}

/// Adds public keys to a user's `authorized_keys`.
pub fn authorize(m: &Machine, name: &str, keys: &[String]) {
    let Some(u) = user(&m.files, name) else { return };
    let dir = format!("{}/.ssh", u.home);
    let path = format!("{dir}/authorized_keys");
    let mut lines: Vec<String> = m.files.text(&path).lines().map(str::to_owned).collect();
    for k in keys.iter().map(|k| k.trim()).filter(|k| !k.is_empty()) {
        if !lines.iter().any(|l| l == k) {
            lines.push(k.to_owned());
        }
    }
    if lines.is_empty() {
        return;
    }
    m.files.place_file(&path, format!("{}\n", lines.join("\n")).as_bytes(), 0o600);
    let _ = m.files.change(&Who::root(), &dir, true, |n| n.mode = 0o700);
    own_tree(m, &dir, u.uid, u.gid);
}

fn own_tree(m: &Machine, path: &str, uid: u32, gid: u32) {
    let root = Who::root();
    let set = |p: &str| {
        let _ = m.files.change(&root, p, false, |n| {
            n.uid = uid;
            n.gid = gid;
        });
    };
    set(path);
    for (name, node) in m.files.list(&root, path).unwrap_or_default() {
        let at = format!("{path}/{name}");
        if node.is_dir() {
            own_tree(m, &at, uid, gid);
        } else {
            set(&at);
        }
    }
}

/// Parses `owner[:group]` into ids; an unknown name is the error.
///
/// # Errors
/// The text that names what is unknown.
pub fn parse_owner(f: &Files, text: &str) -> Result<(Option<u32>, Option<u32>), String> {
    let (owner, grp) = text.split_once([':', '.']).map_or((text, None), |(o, g)| (o, Some(g)));
    let found = (!owner.is_empty()).then(|| user(f, owner));
    let uid = match found.as_ref() {
        None => None,
        Some(Some(u)) => Some(u.uid),
        Some(None) => Some(owner.parse().map_err(|_| format!("invalid user: '{text}'"))?),
    };
    let gid = match grp {
        None => None,
        Some("") => found.flatten().map(|u| u.gid),
        Some(g) => Some(match group(f, g) {
            Some(g) => g.gid,
            None => g.parse().map_err(|_| format!("invalid group: '{text}'"))?,
        }),
    };
    Ok((uid, gid))
}

/// Gives a file to `owner[:group]`.
pub fn chown(m: &Machine, path: &str, owner: &str) {
    if let Ok((uid, gid)) = parse_owner(&m.files, owner) {
        let _ = m.files.change(&Who::root(), path, true, |n| {
            n.uid = uid.unwrap_or(n.uid);
            n.gid = gid.unwrap_or(n.gid);
        });
    }
}

/// Name of a user id.
#[must_use]
pub fn user_name(f: &Files, uid: u32) -> String {
    users(f).into_iter().find(|u| u.uid == uid).map_or_else(|| uid.to_string(), |u| u.name)
}

/// Name of a group id.
#[must_use]
pub fn group_name(f: &Files, gid: u32) -> String {
    groups(f).into_iter().find(|g| g.gid == gid).map_or_else(|| gid.to_string(), |g| g.name)
}
