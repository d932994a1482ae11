//! Long lines on a narrow terminal: broken between words, the rest below what it belongs to.

/// What of a line is seen: its width without the codes for colours.
fn seen(text: &str) -> usize {
    plain(text).chars().count()
}

/// The text without the codes for colours.
fn plain(text: &str) -> String {
    let mut out = String::new();
    let mut code = false;
    for c in text.chars() {
        match (code, c) {
            (false, '\u{1b}') => code = true,
            (true, 'm') => code = false,
            (true, _) => {}
            (false, c) => out.push(c),
        }
    }
    out
}

/// `text` with every line at most `width` wide, where there are spaces to break at.
#[must_use]
pub fn fold(text: &str, width: usize) -> String {
    text.split('\n').map(|l| line(l, width)).collect::<Vec<_>>().join("\n")
}

/// A line of a listing has its caret below it: it is left alone.
fn is_listing(body: &str) -> bool {
    let rest = body.trim_start().trim_start_matches(|c: char| c.is_ascii_digit()).trim_start();
    rest.starts_with('|') || rest.starts_with("-->")
}

/// Where the second column of a table begins.
fn column(body: &str) -> Option<usize> {
    let rest = body.trim_start_matches(' ');
    let i = rest.find("  ")?;
    let gap = rest[i..].chars().take_while(|c| *c == ' ').count();
    Some(body.chars().count() - rest[i..].chars().count() + gap)
}

/// Column at which the continuation of `body` begins.
fn hang(body: &str, width: usize) -> usize {
    let indent = body.chars().take_while(|c| *c == ' ').count();
    let rest: String = body.chars().skip(indent).collect();
    // `= hint:  text`, `hint: text`.
    let label = rest.strip_prefix("= ").unwrap_or(&rest);
    if let Some((word, text)) = label.split_once(": ")
        && ["hint", "cause", "last", "in", "step", "rerun", "next", "note", "warning"].contains(&word)
    {
        return body.chars().count() - text.trim_start().chars().count();
    }
    column(body).filter(|c| *c <= width / 2).unwrap_or(indent + 4)
}

fn line(text: &str, width: usize) -> String {
    if width < 40 || seen(text) <= width || is_listing(&plain(text)) {
        return text.to_owned();
    }
    // The mark of the lab stands before every line of it.
    let tag = if plain(text).starts_with("[LAB] ") { text.find(' ').map_or(0, |i| i + 1) } else { 0 };
    let (tag, body) = text.split_at(tag);
    let room = width - seen(tag);
    // A first column that leaves too little room stands alone.
    if plain(body) == body && column(body).is_some_and(|c| c > room / 2 && c < body.chars().count()) {
        let at = column(body).and_then(|c| body.char_indices().nth(c)).map_or(0, |(i, _)| i);
        let margin = " ".repeat(body.chars().take_while(|c| *c == ' ').count() + 4);
        let rest = line(&format!("{tag}{margin}{}", &body[at..]), width);
        return format!("{tag}{}\n{rest}", body[..at].trim_end());
    }
    let indent = " ".repeat(hang(&plain(body), room));
    let mut lines: Vec<String> = Vec::new();
    let mut now: String = body.chars().take_while(|c| *c == ' ').collect();
    let mut empty = true;
    for word in body.trim_start_matches(' ').split(' ') {
        if !empty && seen(&now) + 1 + seen(word) > room {
            lines.push(format!("{tag}{}", now.trim_end()));
            now.clone_from(&indent);
            empty = true;
        }
        if !empty {
            now.push(' ');
        }
        now.push_str(word);
        empty = empty && word.is_empty();
    }
    lines.push(format!("{tag}{now}"));
    lines.join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words_and_hang() {
        let long = "[LAB]     changed proxmox.ensure_vm nfs1: + machine VM 221 on pve1, cloned from a template (1s)";
        let out = fold(long, 60);
        assert_eq!(
            out,
            "[LAB]     changed proxmox.ensure_vm nfs1: + machine VM 221\n[LAB]         on pve1, cloned from a template (1s)"
        );
        assert!(out.lines().all(|l| l.len() <= 60));
        let hint = "   = hint:  declare it with `let`, or pass it in; functions see no outer variables";
        assert_eq!(fold(hint, 60).lines().nth(1), Some("            see no outer variables"));
        let table = "  one   aaaa bbbb cccc dddd eeee ffff gggg hhhh";
        assert_eq!(fold(table, 40), "  one   aaaa bbbb cccc dddd eeee ffff\n        gggg hhhh");
        let wide = "  a.function(of: many, words: here) -> x  Says what it does.";
        assert_eq!(fold(wide, 44), "  a.function(of: many, words: here) -> x\n      Says what it does.");
    }

    #[test]
    fn what_fits_listings_and_colours() {
        assert_eq!(fold("short\n  two", 40), "short\n  two");
        let listing = format!("12 | {}", "let x = 1; ".repeat(20));
        assert_eq!(fold(&listing, 60), listing);
        let red = format!("\u{1b}[31m{}\u{1b}[0m end", "x".repeat(38));
        assert_eq!(fold(&red, 42), red, "codes take no room");
    }
}
