//! Programs about users and groups: `id`, `getent`, `useradd`, `usermod`, `groupadd`, `passwd` …
use super::{Call, Program, now};
use crate::guest::accounts::{self as acc, NewUser};

pub(super) const PROGRAMS: &[Program] = &[
    now("/usr/bin/id", id),
    now("/usr/bin/whoami", whoami),
    now("/usr/bin/groups", groups),
    now("/usr/bin/logname", whoami),
    now("/usr/bin/getent", getent),
    now("/usr/sbin/useradd", useradd),
    now("/usr/sbin/adduser", adduser),
    now("/usr/sbin/usermod", usermod),
    now("/usr/sbin/userdel", userdel),
    now("/usr/sbin/deluser", userdel),
    now("/usr/sbin/groupadd", groupadd),
    now("/usr/sbin/addgroup", groupadd),
    now("/usr/sbin/groupdel", groupdel),
    now("/usr/bin/gpasswd", gpasswd),
    now("/usr/bin/passwd", passwd),
    now("/usr/bin/chsh", chsh),
    now("/usr/bin/loginctl", loginctl),
];

fn id(c: &mut Call) -> i32 {
    let who = match c.operands(&[]).first() {
        None => c.who.clone(),
        Some(name) => match acc::who(&c.m.files, name) {
            Some(w) => w,
            None => return c.fail(1, &format!("id: '{name}': no such user")),
        },
    };
    let flags = c.letters();
    let flag = |short: char, long: &str| flags.contains(short) || c.has(&[long]);
    let names = flag('n', "--name");
    let f = c.m.files.clone();
    let group = |g: u32| if names { acc::group_name(&f, g) } else { g.to_string() };
    let text = if flag('u', "--user") {
        if names { who.name.clone() } else { who.uid.to_string() }
    } else if flag('g', "--group") {
        group(who.gid)
    } else if flag('G', "--groups") {
        who.groups.iter().map(|g| group(*g)).collect::<Vec<_>>().join(" ")
    } else {
        let all: Vec<String> = who.groups.iter().map(|g| format!("{g}({})", acc::group_name(&f, *g))).collect();
        format!(
            "uid={}({}) gid={}({}) groups={}",
            who.uid,
            who.name,
            who.gid,
            acc::group_name(&f, who.gid),
            all.join(",")
        )
    };
    c.line(&text);
    0
}

fn whoami(c: &mut Call) -> i32 {
    let name = c.who.name.clone();
    c.line(&name);
    0
}

fn groups(c: &mut Call) -> i32 {
    let name = c.operands(&[]).first().cloned();
    let Some(who) = acc::who(&c.m.files, name.as_deref().unwrap_or(&c.who.name)) else {
        return c.fail(1, &format!("groups: '{}': no such user", name.unwrap_or_default()));
    };
    let list = who.groups.iter().map(|g| acc::group_name(&c.m.files, *g)).collect::<Vec<_>>().join(" ");
    c.line(&name.map_or(list.clone(), |n| format!("{n} : {list}")));
    0
}

fn getent(c: &mut Call) -> i32 {
    let ops = c.operands(&["-s"]);
    let Some(db) = ops.first().cloned() else { return c.fail(1, "getent: wrong number of arguments") };
    let file = match db.as_str() {
        "passwd" => "/etc/passwd",
        "group" => "/etc/group",
        "shadow" => "/etc/shadow",
        "hosts" | "ahosts" | "ahostsv4" => return hosts(c, &ops[1..]),
        "services" | "protocols" | "networks" => return 2,
        _ => return c.fail(1, &format!("Unknown database: {db}")),
    };
    if db == "shadow" && c.who.uid != 0 {
        return 2;
    }
    let text = c.m.files.text(file);
    if ops.len() == 1 {
        c.print(&text);
        return 0;
    }
    let mut code = 0;
    for key in &ops[1..] {
        let hit = text.lines().find(|l| {
            let p: Vec<&str> = l.split(':').collect();
            p.first() == Some(&key.as_str()) || (db != "shadow" && p.get(2) == Some(&key.as_str()))
        });
        match hit.map(str::to_owned) {
            Some(l) => c.line(&l),
            None => code = 2,
        }
    }
    code
}

fn hosts(c: &mut Call, names: &[String]) -> i32 {
    let mut code = 0;
    for name in names {
        match super::network::lookup(c, name) {
            Some(ip) => c.line(&format!("{ip:<15} {name}")),
            None => code = 2,
        }
    }
    code
}

const VALUES: &[&str] = &[
    "-u",
    "--uid",
    "-g",
    "--gid",
    "-G",
    "--groups",
    "-s",
    "--shell",
    "-c",
    "--comment",
    "-d",
    "--home-dir",
    "-m",
    "-p",
    "--password",
    "-k",
    "--skel",
    "-e",
    "-f",
    "-b",
    "-K",
    "-l",
    "--login",
    "--home",
    "--shell",
    "--gecos",
    "--ingroup",
];

fn new_user(c: &Call, name: &str) -> NewUser {
    NewUser {
        name: name.to_owned(),
        uid: c.value(&["-u", "--uid"]).and_then(|u| u.parse().ok()),
        group: c.value(&["-g", "--gid", "--ingroup"]),
        groups: c.value(&["-G", "--groups"]).unwrap_or_default(),
        shell: c.value(&["-s", "--shell"]).unwrap_or_default(),
        gecos: c.value(&["-c", "--comment", "--gecos"]).unwrap_or_default(),
        home: false,
        home_dir: c.value(&["-d", "--home-dir", "--home"]).unwrap_or_default(),
        system: c.has(&["-r", "--system"]),
    }
}

fn denied(c: &mut Call) -> bool {
    let name = c.name.clone();
    !c.must_be_root(&format!("{name}: Permission denied.\n{name}: cannot lock /etc/passwd; try again later."))
}

fn useradd(c: &mut Call) -> i32 {
    if denied(c) {
        return 1;
    }
    // `-m` takes no value here, unlike in `usermod -d … -m`.
    let values: Vec<&str> = VALUES.iter().copied().filter(|v| *v != "-m").collect();
    let Some(name) = c.operands(&values).pop() else { return c.fail(2, "Usage: useradd [options] LOGIN") };
    if acc::user(&c.m.files, &name).is_some_and(|u| u.name == name) {
        return c.fail(9, &format!("useradd: user '{name}' already exists"));
    }
    let mut new = new_user(c, &name);
    new.home = c.has(&["-m", "--create-home"])
        || c.args.iter().any(|a| a.starts_with('-') && !a.starts_with("--") && a[1..].contains('m') && a.len() <= 4);
    if let Some(g) = new.group.as_ref().filter(|g| acc::group(&c.m.files, g).is_none()) {
        return c.fail(6, &format!("useradd: group '{g}' does not exist"));
    }
    for g in new.groups.split(',').filter(|g| !g.is_empty()) {
        if acc::group(&c.m.files, g).is_none() {
            return c.fail(6, &format!("useradd: group '{g}' does not exist"));
        }
    }
    acc::add_user(&c.m, &new);
    0
}

fn adduser(c: &mut Call) -> i32 {
    if denied(c) {
        return 1;
    }
    let ops = c.operands(VALUES);
    match &ops[..] {
        [name, group] => {
            if acc::group(&c.m.files, group).is_none() {
                return c.fail(1, &format!("adduser: The group `{group}' does not exist."));
            }
            acc::join(&c.m, name, group, true);
            c.line(&format!("Adding user `{name}' to group `{group}' ..."));
            0
        }
        [name] => {
            let mut new = new_user(c, name);
            if new.shell.is_empty() {
                new.shell = if new.system { "/usr/sbin/nologin".into() } else { "/bin/bash".into() };
            }
            new.home = !c.has(&["--no-create-home"]) && !new.system;
            if !acc::add_user(&c.m, &new) {
                return c.fail(1, &format!("adduser: The user `{name}' already exists."));
            }
            c.line(&format!("Adding user `{name}' ..."));
            0
        }
        _ => c.fail(1, "adduser: Only one or two names allowed."),
    }
}

fn usermod(c: &mut Call) -> i32 {
    if denied(c) {
        return 1;
    }
    let Some(name) = c.operands(VALUES).pop() else { return c.fail(2, "Usage: usermod [options] LOGIN") };
    if acc::user(&c.m.files, &name).is_none() {
        return c.fail(6, &format!("usermod: user '{name}' does not exist"));
    }
    let append =
        c.args.iter().any(|a| a == "--append" || (a.starts_with('-') && !a.starts_with("--") && a.contains('a')));
    let list = c.value(&["-G", "--groups", "-aG"]);
    if let Some(list) = list {
        let missing = list.split(',').find(|g| acc::group(&c.m.files, g).is_none()).map(str::to_owned);
        if let Some(g) = missing {
            return c.fail(6, &format!("usermod: group '{g}' does not exist"));
        }
        acc::join(&c.m, &name, &list, append);
    }
    let (shell, home, uid, comment) = (
        c.value(&["-s", "--shell"]),
        c.value(&["-d", "--home"]),
        c.value(&["-u", "--uid"]).and_then(|u| u.parse().ok()),
        c.value(&["-c", "--comment"]),
    );
    acc::change_user(&c.m, &name, |u| {
        u.shell = shell.unwrap_or_else(|| u.shell.clone());
        u.home = home.unwrap_or_else(|| u.home.clone());
        u.uid = uid.unwrap_or(u.uid);
        u.gecos = comment.unwrap_or_else(|| u.gecos.clone());
    });
    0
}

fn userdel(c: &mut Call) -> i32 {
    if denied(c) {
        return 1;
    }
    let Some(name) = c.operands(&[]).pop() else { return c.fail(2, "Usage: userdel [options] LOGIN") };
    let home = c.has(&["-r", "--remove", "-rf", "--remove-home"]);
    if acc::remove_user(&c.m, &name, home) { 0 } else { c.fail(6, &format!("userdel: user '{name}' does not exist")) }
}

fn groupadd(c: &mut Call) -> i32 {
    if denied(c) {
        return 1;
    }
    let Some(name) = c.operands(&["-g", "--gid", "-K", "-p"]).pop() else {
        return c.fail(2, "Usage: groupadd [options] GROUP");
    };
    let gid = c.value(&["-g", "--gid"]).and_then(|g| g.parse().ok());
    if acc::add_group(&c.m, &name, gid, c.has(&["-r", "--system"])) || c.has(&["-f", "--force"]) {
        0
    } else {
        c.fail(9, &format!("groupadd: group '{name}' already exists"))
    }
}

fn groupdel(c: &mut Call) -> i32 {
    if denied(c) {
        return 1;
    }
    let Some(name) = c.operands(&[]).pop() else { return c.fail(2, "Usage: groupdel [options] GROUP") };
    if acc::remove_group(&c.m, &name) { 0 } else { c.fail(6, &format!("groupdel: group '{name}' does not exist")) }
}

fn gpasswd(c: &mut Call) -> i32 {
    if denied(c) {
        return 1;
    }
    let (user, group) = (c.value(&["-a"]), c.operands(&["-a", "-d"]).pop().unwrap_or_default());
    match user {
        Some(u) => {
            c.line(&format!("Adding user {u} to group {group}"));
            i32::from(!acc::join(&c.m, &u, &group, true).is_empty())
        }
        None => c.unsimulated("without -a"),
    }
}

fn passwd(c: &mut Call) -> i32 {
    if c.has(&["-l", "--lock", "-d", "-u", "--unlock", "-S", "--status", "-e"]) {
        return 0;
    }
    c.unsimulated("(interactive)")
}

fn chsh(c: &mut Call) -> i32 {
    let (name, shell) = (c.operands(&["-s"]).pop().unwrap_or_else(|| c.who.name.clone()), c.value(&["-s"]));
    match shell {
        Some(s) if acc::change_user(&c.m, &name, |u| u.shell.clone_from(&s)) => 0,
        _ => c.fail(1, &format!("chsh: user '{name}' does not exist")),
    }
}

fn loginctl(c: &mut Call) -> i32 {
    if c.args.first().is_some_and(|a| a == "enable-linger") { 0 } else { c.unsimulated("(sessions)") }
}
