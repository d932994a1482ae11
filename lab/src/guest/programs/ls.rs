//! `ls`: with owners, groups and links, which the shell library's own cannot know.
use super::date::show;
use super::stat::{changed, inode, letters, links, numbers, reason, sectors};
use super::{Call, Program, now};
use crate::guest::accounts::{group_name, user_name};
use crate::guest::fs::tree::{Kind, Node, normalise};

pub(super) const PROGRAMS: &[Program] = &[now("/usr/bin/ls", ls), now("/usr/bin/dir", ls)];

/// Half a year: files older than that show their year instead of the time of day.
const RECENT: u64 = 31_556_952 / 2;
/// Columns of a terminal.
const WIDTH: usize = 80;

/// One name to show.
struct Entry {
    name: String,
    path: String,
    node: Node,
}

/// What is asked for.
#[derive(Default)]
struct Wish {
    flags: String,
    style: String,
    ignore: Vec<String>,
    paths: Vec<String>,
}

impl Wish {
    fn has(&self, any: &str) -> bool {
        self.flags.chars().any(|f| any.contains(f))
    }

    fn long(&self) -> bool {
        self.has("lngo")
    }

    /// Whether names stand one below the other.
    fn lines(&self, tty: bool) -> bool {
        self.has("1") || !(tty || self.has("Cxm"))
    }
}

const KNOWN: &str = "aAlndh1trSRiFpgoLHscuUfXvCxmqQNbkZ";

/// Long options and the letter that means the same.
const LONG: &[(&str, char)] = &[
    ("all", 'a'),
    ("almost-all", 'A'),
    ("directory", 'd'),
    ("human-readable", 'h'),
    ("inode", 'i'),
    ("numeric-uid-gid", 'n'),
    ("no-group", 'o'),
    ("recursive", 'R'),
    ("reverse", 'r'),
    ("size", 's'),
    ("classify", 'F'),
    ("file-type", 'F'),
    ("dereference", 'L'),
    ("literal", 'N'),
    ("quote-name", 'Q'),
    ("escape", 'b'),
    ("kibibytes", 'k'),
    ("dereference-command-line", 'H'),
    ("context", 'Z'),
];

/// Reads the words; the error is what is not known.
fn read(args: &[String]) -> Result<Wish, String> {
    let mut w = Wish::default();
    let mut it = args.iter();
    while let Some(a) = it.next() {
        if a == "--" {
            w.paths.extend(it.by_ref().cloned());
        } else if let Some(long) = a.strip_prefix("--") {
            let (name, value) = long.split_once('=').map_or((long, None), |(n, v)| (n, Some(v.to_owned())));
            let mut value = || value.clone().or_else(|| it.next().cloned()).unwrap_or_default();
            match name {
                "full-time" => {
                    w.flags.push('l');
                    "full-iso".clone_into(&mut w.style);
                }
                "time-style" => w.style = value(),
                "ignore" | "hide" => w.ignore.push(value()),
                "sort" => w.flags.push(match value().as_str() {
                    "time" => 't',
                    "size" => 'S',
                    "none" => 'U',
                    "extension" => 'X',
                    _ => 'v',
                }),
                "color" | "group-directories-first" | "show-control-chars" => {}
                "quoting-style" | "indicator-style" | "width" | "time" | "format" | "block-size" => drop(value()),
                name => match LONG.iter().find(|(n, _)| *n == name) {
                    Some((_, f)) => w.flags.push(*f),
                    None => return Err(format!("unrecognized option '{a}'")),
                },
            }
        } else if a.len() > 1 && a.starts_with('-') {
            for (i, f) in a.char_indices().skip(1) {
                if matches!(f, 'I' | 'w' | 'T') {
                    let rest = &a[i + 1..];
                    let value = if rest.is_empty() { it.next().cloned().unwrap_or_default() } else { rest.to_owned() };
                    if f == 'I' {
                        w.ignore.push(value);
                    }
                    break;
                }
                if !KNOWN.contains(f) {
                    return Err(format!("invalid option -- '{f}'"));
                }
                w.flags.push(f);
            }
        } else {
            w.paths.push(a.clone());
        }
    }
    if w.paths.is_empty() {
        w.paths.push(".".to_owned());
    }
    Ok(w)
}

fn ls(c: &mut Call) -> i32 {
    let w = match read(&c.args) {
        Ok(w) => w,
        Err(e) => return c.fail(2, &format!("ls: {e}\nTry 'ls --help' for more information.")),
    };
    let (mut alone, mut folders, mut code) = (Vec::new(), Vec::new(), 0);
    for p in &w.paths {
        let path = c.path(p);
        // A link on the command line is followed unless it is shown as one.
        let follow = w.has("LH") || !(w.long() || w.has("dF"));
        let node = c.m.files.stat(&c.who, &path, follow).or_else(|_| c.m.files.stat(&c.who, &path, false));
        match node {
            Ok(node) => {
                let e = Entry { name: p.clone(), path, node };
                if e.node.is_dir() && !w.has("d") { folders.push(e) } else { alone.push(e) }
            }
            Err(e) => code = c.fail(2, &format!("ls: cannot access '{p}': {}", reason(&e))),
        }
    }
    order(c, &w, &mut alone);
    order(c, &w, &mut folders);
    let mut said = !alone.is_empty();
    if said {
        print(c, &w, &alone);
    }
    let headed = w.paths.len() > 1 || w.has("R");
    while !folders.is_empty() {
        let folder = folders.remove(0);
        if headed {
            c.print(&format!("{}{}:\n", if said { "\n" } else { "" }, folder.name));
        }
        said = true;
        match inside(c, &w, &folder) {
            Ok(list) => {
                if w.long() || w.has("s") {
                    let half: u64 = list.iter().map(|e| sectors(&e.node)).sum();
                    let total = if w.has("h") { human(half * 512) } else { (half / 2).to_string() };
                    c.line(&format!("total {total}"));
                }
                print(c, &w, &list);
                if w.has("R") {
                    let below = list.into_iter().filter(|e| e.node.is_dir() && e.name != "." && e.name != "..");
                    let named =
                        |e: Entry| Entry { name: format!("{}/{}", folder.name.trim_end_matches('/'), e.name), ..e };
                    folders.splice(..0, below.map(named));
                }
            }
            Err(text) => code = c.fail(2, &text),
        }
    }
    code
}

/// What is in a directory, in order.
fn inside(c: &Call, w: &Wish, folder: &Entry) -> Result<Vec<Entry>, String> {
    let here = c.m.files.resolve(&folder.path, true).unwrap_or_else(|_| folder.path.clone());
    let listed = c.m.files.list(&c.who, &here);
    let listed = listed.map_err(|e| format!("ls: cannot open directory '{}': {}", folder.name, reason(&e)))?;
    let hidden = w.has("aAf");
    let ignored = |n: &str| w.ignore.iter().any(|p| n == p || p.strip_prefix('*').is_some_and(|end| n.ends_with(end)));
    let mut all: Vec<Entry> = listed
        .into_iter()
        .filter(|(name, _)| (hidden || !name.starts_with('.')) && !ignored(name))
        .map(|(name, node)| {
            let path = normalise(&format!("{here}/{name}"));
            let target = || c.m.files.stat(&c.who, &path, true).ok();
            let node = if w.has("L") { target().unwrap_or(node) } else { node };
            Entry { name, path, node }
        })
        .collect();
    if w.has("af") {
        let above = normalise(&format!("{here}/.."));
        for (name, path) in [(".", here), ("..", above)] {
            let node = c.m.files.stat(&c.who, &path, true);
            all.extend(node.ok().map(|node| Entry { name: name.to_owned(), path, node }));
        }
    }
    order(c, w, &mut all);
    Ok(all)
}

fn order(c: &Call, w: &Wish, list: &mut [Entry]) {
    if w.has("Uf") {
        return;
    }
    list.sort_by(|a, b| a.name.cmp(&b.name));
    match w.flags.chars().rfind(|f| "tSX".contains(*f)) {
        Some('t') => list.sort_by_key(|e| std::cmp::Reverse(changed(c, &e.path, &e.node))),
        Some('S') => list.sort_by_key(|e| std::cmp::Reverse(e.node.size())),
        Some('X') => list.sort_by_key(|e| e.name.rsplit_once('.').map(|p| p.1.to_owned())),
        _ => {}
    }
    if w.has("r") {
        list.reverse();
    }
}

/// As `ls -h` writes sizes: rounded up, one decimal below ten.
fn human(bytes: u64) -> String {
    if bytes < 1024 {
        return bytes.to_string();
    }
    let mut unit = 0;
    while bytes >> (10 * (unit + 1)) > 0 && unit < 5 {
        unit += 1;
    }
    let one = 1_u64 << (10 * unit);
    let tenths = (u128::from(bytes) * 10).div_ceil(u128::from(one));
    let letter = ["", "K", "M", "G", "T", "P"][unit];
    if tenths < 100 {
        format!("{}.{}{letter}", tenths / 10, tenths % 10)
    } else {
        format!("{}{letter}", tenths.div_ceil(10))
    }
}

fn time_of(c: &Call, w: &Wish, e: &Entry) -> String {
    let (at, now) = (changed(c, &e.path, &e.node), c.m.lab.clock().now_ms() / 1000);
    let recent = at <= now && now - at < RECENT;
    let format = match w.style.trim_start_matches("posix-") {
        "full-iso" => "%F %T.%N +0000",
        "long-iso" => "%F %R",
        "iso" if recent => "%m-%d %R",
        "iso" => "%F ",
        own if own.starts_with('+') => &own[1..],
        _ if recent => "%b %e %R",
        _ => "%b %e  %Y",
    };
    show(format, at, 0)
}

/// A name with what the options put behind it.
fn shown(c: &Call, w: &Wish, e: &Entry) -> String {
    let name = if w.has("Q") {
        format!("\"{}\"", e.name)
    } else if c.tty && !w.has("N") && e.name.contains([' ', '$', '*', '(', '"', ';', '&']) {
        format!("'{}'", e.name)
    } else {
        e.name.clone()
    };
    let mark = match &e.node.kind {
        Kind::Dir if w.has("Fp") => "/",
        Kind::Link(_) if w.has("F") && !w.long() => "@",
        Kind::Fifo if w.has("F") => "|",
        Kind::File(_) if w.has("F") && e.node.mode & 0o111 != 0 => "*",
        _ => "",
    };
    match &e.node.kind {
        Kind::Link(to) if w.long() => format!("{name} -> {to}"),
        _ => format!("{name}{mark}"),
    }
}

fn print(c: &mut Call, w: &Wish, list: &[Entry]) {
    let mut rows: Vec<(Vec<String>, String)> = Vec::new();
    for e in list {
        let mut cells = Vec::new();
        if w.has("i") {
            cells.push(inode(&e.path).to_string());
        }
        if w.has("s") {
            let half = sectors(&e.node);
            cells.push(if w.has("h") { human(half * 512) } else { (half / 2).to_string() });
        }
        if w.long() {
            cells.extend(details(c, w, e));
        }
        rows.push((cells, shown(c, w, e)));
    }
    let count = rows.first().map_or(0, |r| r.0.len());
    let widths: Vec<usize> = (0..count).map(|i| rows.iter().map(|r| r.0[i].len()).max().unwrap_or(0)).collect();
    // Behind inode and blocks: mode, links, owner and group (the only ones on the left), size, time.
    let first = usize::from(w.has("i")) + usize::from(w.has("s"));
    let names = 2 - usize::from(w.has("g")) - usize::from(w.has("o"));
    let left = |i: usize| w.long() && i >= first + 2 && i < first + 2 + names;
    let lines: Vec<String> = rows
        .iter()
        .map(|(cells, name)| {
            let mut line = String::new();
            for (i, text) in cells.iter().enumerate() {
                let wide = widths[i];
                line += &if left(i) { format!("{text:<wide$} ") } else { format!("{text:>wide$} ") };
            }
            line + name.as_str()
        })
        .collect();
    if w.long() || w.lines(c.tty) {
        for l in lines {
            c.line(&l);
        }
    } else if w.has("m") {
        c.line(&lines.join(", "));
    } else {
        columns(c, &lines);
    }
}

fn details(c: &Call, w: &Wish, e: &Entry) -> Vec<String> {
    let mut cells = vec![letters(&e.node), links(c, &e.path, &e.node).to_string()];
    if !w.has("g") {
        cells.push(if w.has("n") { e.node.uid.to_string() } else { user_name(&c.m.files, e.node.uid) });
    }
    if !w.has("o") {
        cells.push(if w.has("n") { e.node.gid.to_string() } else { group_name(&c.m.files, e.node.gid) });
    }
    cells.push(match numbers(&e.path, &e.node) {
        Some((major, minor)) => format!("{major}, {minor:>3}"),
        None if w.has("h") => human(e.node.size()),
        None => e.node.size().to_string(),
    });
    cells.push(time_of(c, w, e));
    cells
}

/// As many columns as fit a terminal, filled downwards.
fn columns(c: &mut Call, names: &[String]) {
    let widths: Vec<usize> = names.iter().map(|n| n.chars().count()).collect();
    let of =
        |rows: usize| -> Vec<usize> { widths.chunks(rows).map(|col| col.iter().max().map_or(0, |w| w + 2)).collect() };
    let fits = |rows: &usize| of(*rows).iter().sum::<usize>() <= WIDTH + 2;
    let rows = (1..=names.len()).find(fits).unwrap_or(names.len()).max(1);
    let wide = of(rows);
    for r in 0..rows.min(names.len()) {
        let line: String = names
            .iter()
            .skip(r)
            .step_by(rows)
            .zip(&wide)
            .map(|(n, w)| format!("{n}{}", " ".repeat(w - n.chars().count())))
            .collect();
        c.line(line.trim_end());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_rounded_up_as_ls_does() {
        for (bytes, text) in [
            (0, "0"),
            (1023, "1023"),
            (1024, "1.0K"),
            (1025, "1.1K"),
            (10_240, "10K"),
            (10_241, "11K"),
            (1 << 20, "1.0M"),
            (100 << 30, "100G"),
        ] {
            assert_eq!(human(bytes), text);
        }
    }

    #[test]
    fn words_are_read() {
        let words = |t: &str| t.split(' ').map(str::to_owned).collect::<Vec<_>>();
        let w = read(&words("-lah --time-style=long-iso -I *.bak /a /b")).unwrap();
        assert_eq!((w.flags.as_str(), w.style.as_str(), w.paths.len(), w.ignore.len()), ("lah", "long-iso", 2, 1));
        assert_eq!(read(&words("-ly")).err().as_deref(), Some("invalid option -- 'y'"));
        assert_eq!(read(&words("--nope")).err().as_deref(), Some("unrecognized option '--nope'"));
        assert_eq!(read(&[]).unwrap().paths, ["."]);
    }
}
