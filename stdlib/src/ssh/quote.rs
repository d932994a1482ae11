//! Quoting for POSIX shells: the only place where text becomes part of a program.

/// `text` as one word of a POSIX shell program. Any text without NUL survives unchanged.
#[must_use]
pub fn quote(text: &str) -> String {
    let plain = !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-./:=@%+,".contains(&b));
    // A leading `=` or `-` is harmless to the shell; tools get `--` or a path where it matters.
    if plain {
        return text.to_owned();
    }
    let mut out = String::with_capacity(text.len() + 2);
    out.push('\'');
    for c in text.chars() {
        if c == '\'' {
            out.push_str("'\\''");
        } else {
            out.push(c);
        }
    }
    out.push('\'');
    out
}

/// Several words, each quoted.
pub fn words<I, S>(list: I) -> String
where
    I: IntoIterator<Item = S>,
    S: AsRef<str>,
{
    list.into_iter().map(|w| quote(w.as_ref())).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::RngExt;

    fn through_sh(text: &str) -> String {
        let out =
            std::process::Command::new("sh").arg("-c").arg(format!("printf %s {}", quote(text))).output().unwrap();
        assert!(out.status.success(), "{text:?}");
        String::from_utf8(out.stdout).unwrap()
    }

    #[test]
    fn random_texts_survive_a_real_shell() {
        let alphabet: Vec<char> = "ab'\"\\$`!*?[]{}()<>|&;~# \t\n=%-é漢\u{1}\u{7f}".chars().collect();
        let mut rng = rand::rng();
        for _ in 0..150 {
            let n = rng.random_range(0..40);
            let text: String = (0..n).map(|_| alphabet[rng.random_range(0..alphabet.len())]).collect();
            assert_eq!(through_sh(&text), text);
        }
    }

    #[test]
    fn nested_quoting_survives_two_shells() {
        for text in ["it's", "a'b'c $(id) `id` \\ \"x\"", "\n\n x \n", "--", "*"] {
            let inner = format!("printf %s {}", quote(text));
            let outer = format!("sh -c {}", quote(&inner));
            let out = std::process::Command::new("sh").arg("-c").arg(&outer).output().unwrap();
            assert_eq!(String::from_utf8(out.stdout).unwrap(), text);
        }
    }
}
