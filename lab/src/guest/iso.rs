//! Reads the files of a small ISO 9660 image, for NoCloud seeds: plain names, Rock Ridge names, Joliet names.
use std::collections::BTreeMap;

const SECTOR: usize = 2048;

/// An image that could be read.
#[derive(Debug, Default, Clone, PartialEq, Eq)]
pub struct Iso {
    /// Volume label.
    pub label: String,
    /// Files of the root directory by lower-case name.
    pub files: BTreeMap<String, Vec<u8>>,
}

fn u32le(b: &[u8], at: usize) -> usize {
    b.get(at..at + 4).and_then(|x| x.try_into().ok()).map_or(0, |x| u32::from_le_bytes(x) as usize)
}

fn sector(b: &[u8], n: usize) -> Option<&[u8]> {
    b.get(n * SECTOR..(n + 1) * SECTOR)
}

/// Reads an image; `None` when it is none.
#[must_use]
pub fn read(image: &[u8]) -> Option<Iso> {
    let mut primary = None;
    let mut joliet = None;
    for n in 16..48 {
        let d = sector(image, n)?;
        if d.get(1..6)? != b"CD001" {
            return None;
        }
        match d[0] {
            1 => primary = Some(d),
            2 if matches!(d.get(88..91), Some(b"%/@" | b"%/C" | b"%/E")) => joliet = Some(d),
            255 => break,
            _ => {}
        }
    }
    let primary = primary?;
    let label = String::from_utf8_lossy(&primary[40..72]).trim_end().to_owned();
    let mut files = directory(image, &primary[156..190], false);
    if let Some(j) = joliet {
        files.extend(directory(image, &j[156..190], true));
    }
    Some(Iso { label, files })
}

fn directory(image: &[u8], record: &[u8], wide: bool) -> BTreeMap<String, Vec<u8>> {
    let (start, len) = (u32le(record, 2) * SECTOR, u32le(record, 10));
    let mut files = BTreeMap::new();
    let Some(dir) = image.get(start..start + len) else { return files };
    let mut at = 0;
    while at < dir.len() {
        let size = usize::from(dir[at]);
        if size == 0 {
            at = (at / SECTOR + 1) * SECTOR;
            continue;
        }
        let Some(r) = dir.get(at..at + size) else { break };
        at += size;
        let Some(name) = entry_name(r, wide) else { continue };
        let (from, len) = (u32le(r, 2) * SECTOR, u32le(r, 10));
        if r[25] & 2 == 0
            && let Some(bytes) = image.get(from..from + len)
        {
            files.insert(name, bytes.to_vec());
        }
    }
    files
}

fn entry_name(r: &[u8], wide: bool) -> Option<String> {
    let len = usize::from(*r.get(32)?);
    let raw = r.get(33..33 + len)?;
    if raw == [0] || raw == [1] {
        return None;
    }
    let plain = if wide {
        let units: Vec<u16> = raw.chunks_exact(2).map(|c| u16::from_be_bytes([c[0], c[1]])).collect();
        String::from_utf16_lossy(&units)
    } else {
        rock_ridge(r.get(33 + len + (1 - len % 2)..)?).unwrap_or_else(|| String::from_utf8_lossy(raw).into_owned())
    };
    let plain = plain.split(';').next().unwrap_or_default().trim_end_matches('.').to_lowercase();
    Some(plain)
}

/// The name in a Rock Ridge `NM` entry.
fn rock_ridge(mut area: &[u8]) -> Option<String> {
    while area.len() > 5 {
        let len = usize::from(area[2]);
        if len < 4 || len > area.len() {
            return None;
        }
        if &area[..2] == b"NM" {
            return Some(String::from_utf8_lossy(&area[5..len]).into_owned());
        }
        area = &area[len..];
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(name: &[u8], extent: u32, len: u32, dir: bool) -> Vec<u8> {
        let mut r = vec![0u8; 33];
        r[2..6].copy_from_slice(&extent.to_le_bytes());
        r[10..14].copy_from_slice(&len.to_le_bytes());
        r[25] = if dir { 2 } else { 0 };
        r[32] = name.len() as u8;
        r.extend_from_slice(name);
        if r.len() % 2 == 1 {
            r.push(0);
        }
        r[0] = r.len() as u8;
        r
    }

    #[test]
    fn a_level_1_image_gives_its_files() {
        let text = b"#cloud-config\nhostname: a\n";
        let mut image = vec![0u8; SECTOR * 21];
        image[16 * SECTOR] = 1;
        image[16 * SECTOR + 1..16 * SECTOR + 6].copy_from_slice(b"CD001");
        image[16 * SECTOR + 40..16 * SECTOR + 72].copy_from_slice(format!("{:<32}", "CIDATA").as_bytes());
        let root = record(&[0], 18, SECTOR as u32, true);
        image[16 * SECTOR + 156..16 * SECTOR + 156 + root.len()].copy_from_slice(&root);
        image[17 * SECTOR] = 255;
        image[17 * SECTOR + 1..17 * SECTOR + 6].copy_from_slice(b"CD001");
        let mut dir = root.clone();
        dir.extend(record(&[1], 18, SECTOR as u32, true));
        dir.extend(record(b"USER-DATA;1", 19, text.len() as u32, false));
        dir.extend(record(b"META_DAT.;1", 20, 3, false));
        image[18 * SECTOR..18 * SECTOR + dir.len()].copy_from_slice(&dir);
        image[19 * SECTOR..19 * SECTOR + text.len()].copy_from_slice(text);
        image[20 * SECTOR..20 * SECTOR + 3].copy_from_slice(b"x: ");
        let iso = read(&image).unwrap();
        assert_eq!(iso.label, "CIDATA");
        assert_eq!(iso.files["user-data"], text);
        assert_eq!(iso.files["meta_dat"], b"x: ");
        assert!(read(b"nothing").is_none());
    }
}
