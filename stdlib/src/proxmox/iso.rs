//! A NoCloud seed as an ISO 9660 image, made in memory: label `CIDATA`, Rock Ridge and Joliet names.
//!
//! Upload of snippets is not possible through the API, of ISO images it is. The kernel shows Rock Ridge
//! (or Joliet) names, so cloud-init finds `user-data` and `meta-data` in lower case.

const SECTOR: usize = 2048;
/// 2026-01-01 00:00 as years since 1900, month, day, hour, minute, second, zone: the image depends on its files only.
const DATE: [u8; 7] = [126, 1, 1, 0, 0, 0, 0];
const LONG_DATE: &[u8; 17] = b"2026010100000000\0";

/// Sectors before the directories: system area, three descriptors.
const PATH_TABLE: usize = 19;
const ROOT: usize = 23;
const WIDE_ROOT: usize = 24;
const FILES: usize = 25;

/// One file of the image.
#[derive(Debug, Clone)]
pub struct SeedFile<'a> {
    /// Name, lower case.
    pub name: &'a str,
    /// Content.
    pub content: &'a [u8],
}

fn both32(out: &mut Vec<u8>, n: usize) {
    let n = u32::try_from(n).unwrap_or(u32::MAX);
    out.extend(n.to_le_bytes());
    out.extend(n.to_be_bytes());
}

fn both16(out: &mut Vec<u8>, n: u16) {
    out.extend(n.to_le_bytes());
    out.extend(n.to_be_bytes());
}

fn utf16(text: &str) -> Vec<u8> {
    text.encode_utf16().flat_map(u16::to_be_bytes).collect()
}

/// A directory record; `system_use` is the Rock Ridge area.
fn record(name: &[u8], extent: usize, len: usize, directory: bool, system_use: &[u8]) -> Vec<u8> {
    let mut r = vec![0, 0];
    both32(&mut r, extent);
    both32(&mut r, len);
    r.extend(DATE);
    r.extend([if directory { 2 } else { 0 }, 0, 0]);
    both16(&mut r, 1);
    r.push(name.len() as u8);
    r.extend(name);
    if r.len() % 2 == 1 {
        r.push(0);
    }
    r.extend(system_use);
    if r.len() % 2 == 1 {
        r.push(0);
    }
    r[0] = r.len() as u8;
    r
}

/// Rock Ridge: POSIX attributes.
fn px(mode: usize, links: usize) -> Vec<u8> {
    let mut e = b"PX\x24\x01".to_vec();
    for n in [mode, links, 0, 0] {
        both32(&mut e, n);
    }
    e
}

/// Rock Ridge: the real name.
fn nm(name: &str) -> Vec<u8> {
    let mut e = vec![b'N', b'M', (5 + name.len()) as u8, 1, 0];
    e.extend(name.bytes());
    e
}

/// SUSP: this image uses system-use entries, Rock Ridge among them.
fn announce() -> Vec<u8> {
    let mut e = b"SP\x07\x01\xbe\xef\x00".to_vec();
    let (id, text, source) = ("RRIP_1991A", "THE ROCK RIDGE INTERCHANGE PROTOCOL", "SEE PUBLISHER");
    e.extend([b'E', b'R', (8 + id.len() + text.len() + source.len()) as u8, 1]);
    e.extend([id.len() as u8, text.len() as u8, source.len() as u8, 1]);
    e.extend([id, text, source].concat().bytes());
    e
}

/// ISO 9660 level 1 name: unique, upper case.
fn short(name: &str, number: usize) -> Vec<u8> {
    let stem: String =
        name.chars().filter(char::is_ascii_alphanumeric).take(6).collect::<String>().to_ascii_uppercase();
    format!("{stem}{number:02}.;1").into_bytes()
}

fn padded(text: &str, len: usize) -> Vec<u8> {
    let mut out = text.as_bytes().to_vec();
    out.resize(len, b' ');
    out
}

fn padded_wide(text: &str, len: usize) -> Vec<u8> {
    let mut out = utf16(text);
    while out.len() < len {
        out.extend([0, b' ']);
    }
    out.truncate(len);
    out
}

/// A primary (`wide == false`) or Joliet volume descriptor.
fn descriptor(wide: bool, label: &str, sectors: usize) -> Vec<u8> {
    let text = |t: &str, len: usize| if wide { padded_wide(t, len) } else { padded(t, len) };
    let mut d = vec![if wide { 2 } else { 1 }];
    d.extend(b"CD001\x01\0");
    d.extend(text("", 32));
    d.extend(text(label, 32));
    d.extend([0; 8]);
    both32(&mut d, sectors);
    if wide {
        d.extend(b"%/E");
        d.extend([0; 29]);
    } else {
        d.extend([0; 32]);
    }
    both16(&mut d, 1);
    both16(&mut d, 1);
    both16(&mut d, SECTOR as u16);
    both32(&mut d, 10);
    let table = PATH_TABLE + if wide { 2 } else { 0 };
    d.extend((table as u32).to_le_bytes());
    d.extend([0; 4]);
    d.extend((table as u32 + 1).to_be_bytes());
    d.extend([0; 4]);
    d.extend(record(&[0], if wide { WIDE_ROOT } else { ROOT }, SECTOR, true, &[]));
    for len in [128, 128, 128, 128] {
        d.extend(text("", len));
    }
    for len in [37, 37, 37] {
        d.extend(if wide { padded_wide("", len) } else { padded("", len) });
    }
    for _ in 0..2 {
        d.extend(LONG_DATE);
    }
    d.extend(b"0000000000000000\0");
    d.extend(b"0000000000000000\0");
    d.extend([1, 0]);
    d
}

fn path_table(root: usize, big: bool) -> Vec<u8> {
    let root = root as u32;
    let mut t = vec![1, 0];
    t.extend(if big { root.to_be_bytes() } else { root.to_le_bytes() });
    t.extend(if big { 1u16.to_be_bytes() } else { 1u16.to_le_bytes() });
    t.extend([0, 0]);
    t
}

fn root(wide: bool, files: &[(SeedFile<'_>, usize)]) -> Vec<u8> {
    let at = if wide { WIDE_ROOT } else { ROOT };
    let own = |extra: Vec<u8>| if wide { Vec::new() } else { [extra, px(0o040_555, 2)].concat() };
    let mut d = record(&[0], at, SECTOR, true, &own(announce()));
    d.extend(record(&[1], at, SECTOR, true, &own(Vec::new())));
    let mut sorted: Vec<(Vec<u8>, &SeedFile<'_>, usize)> = files
        .iter()
        .enumerate()
        .map(|(i, (f, sector))| (if wide { utf16(f.name) } else { short(f.name, i) }, f, *sector))
        .collect();
    sorted.sort_by(|a, b| a.0.cmp(&b.0));
    for (name, f, sector) in sorted {
        let extra = if wide { Vec::new() } else { [px(0o100_444, 1), nm(f.name)].concat() };
        d.extend(record(&name, sector, f.content.len(), false, &extra));
    }
    d
}

/// Builds the image. At most a handful of files: the root directory is one sector.
#[must_use]
pub fn build(label: &str, files: &[SeedFile<'_>]) -> Vec<u8> {
    let mut next = FILES;
    let mut placed = Vec::new();
    for f in files {
        placed.push((f.clone(), next));
        next += f.content.len().div_ceil(SECTOR).max(1);
    }
    let mut image = vec![0u8; next * SECTOR];
    let mut put = |sector: usize, bytes: &[u8]| {
        let at = sector * SECTOR;
        image[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(16, &descriptor(false, label, next));
    put(17, &descriptor(true, label, next));
    put(18, b"\xffCD001\x01");
    put(PATH_TABLE, &path_table(ROOT, false));
    put(PATH_TABLE + 1, &path_table(ROOT, true));
    put(PATH_TABLE + 2, &path_table(WIDE_ROOT, false));
    put(PATH_TABLE + 3, &path_table(WIDE_ROOT, true));
    put(ROOT, &root(false, &placed));
    put(WIDE_ROOT, &root(true, &placed));
    for (f, sector) in &placed {
        put(*sector, f.content);
    }
    image
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Vec<u8> {
        build(
            "CIDATA",
            &[
                SeedFile { name: "user-data", content: b"#cloud-config\n" },
                SeedFile { name: "meta-data", content: b"instance-id: a\n" },
                SeedFile { name: "network-config", content: &[b'x'; 5000] },
            ],
        )
    }

    #[test]
    fn descriptors_say_what_readers_look_for() {
        let image = sample();
        assert_eq!(image.len() % SECTOR, 0);
        assert_eq!(&image[16 * SECTOR..16 * SECTOR + 6], b"\x01CD001");
        assert_eq!(&image[16 * SECTOR + 40..16 * SECTOR + 46], b"CIDATA");
        assert_eq!(&image[17 * SECTOR + 88..17 * SECTOR + 91], b"%/E");
        assert_eq!(image[18 * SECTOR], 255);
        let sectors = u32::from_le_bytes(image[16 * SECTOR + 80..16 * SECTOR + 84].try_into().unwrap());
        assert_eq!(sectors as usize * SECTOR, image.len());
        assert_eq!(image[16 * SECTOR + 881], 1, "file structure version");
        assert_eq!(image, sample(), "the same files give the same image");
    }

    #[test]
    fn both_directories_point_at_the_files() {
        let image = sample();
        for (sector, wide) in [(ROOT, false), (WIDE_ROOT, true)] {
            let dir = &image[sector * SECTOR..(sector + 1) * SECTOR];
            let (mut at, mut found) = (0, Vec::new());
            while dir[at] != 0 {
                let r = &dir[at..at + usize::from(dir[at])];
                at += r.len();
                if r[25] & 2 == 0 {
                    let from = u32::from_le_bytes(r[2..6].try_into().unwrap()) as usize * SECTOR;
                    let len = u32::from_le_bytes(r[10..14].try_into().unwrap()) as usize;
                    found.push(image[from..from + len].to_vec());
                }
            }
            assert_eq!(found.len(), 3);
            assert!(found.contains(&b"#cloud-config\n".to_vec()), "{wide}");
            assert!(found.iter().any(|f| f.len() == 5000));
        }
        let text = String::from_utf8_lossy(&image);
        assert!(text.contains("network-config"), "Rock Ridge name");
    }
}
