//! Small texts that logs of the server share.

/// `2026-11-25 12:34:56` in UTC.
#[must_use]
pub fn clock(ms: u64) -> String {
    let (y, month, d, h, min, s, ..) = crate::guest::journal::civil(ms / 1000);
    format!("{y:04}-{month:02}-{d:02} {h:02}:{min:02}:{s:02}")
}

/// `2026_11_25-12_34_56`, as in names of backups.
#[must_use]
pub fn stamp(ms: u64) -> String {
    clock(ms).replace(['-', ':'], "_").replace(' ', "-")
}

/// What `qemu-img` says when it makes an image file.
#[must_use]
pub fn formatting(path: &str, format: &str, size: u64, backing: Option<(&str, &str)>) -> String {
    match (format, backing) {
        ("raw", _) => format!("Formatting '{path}', fmt=raw size={size} preallocation=off"),
        (_, None) => format!(
            "Formatting '{path}', fmt=qcow2 cluster_size=65536 extended_l2=off preallocation=metadata \
             compression_type=zlib size={size} lazy_refcounts=off refcount_bits=16"
        ),
        (_, Some((file, fmt))) => format!(
            "Formatting '{path}', fmt=qcow2 cluster_size=131072 extended_l2=on preallocation=metadata \
             compression_type=zlib size={size} backing_file={file} backing_fmt={fmt} lazy_refcounts=off \
             refcount_bits=16"
        ),
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn dates() {
        assert_eq!(super::clock(1_795_342_598_000), "2026-11-22 10:16:38");
        assert_eq!(super::stamp(1_795_342_598_000), "2026_11_22-10_16_38");
        assert_eq!(super::clock(951_782_400_000), "2000-02-29 00:00:00");
    }
}
