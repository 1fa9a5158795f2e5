//! Looks into an image's first and last bytes before anyone uses it: is it what it says, and does it point elsewhere?
//!
//! Pure functions on bytes. A disk image can name other files that a hypervisor would open for it (backing file,
//! external data file: CVE-2015-5163, CVE-2024-32498), so such images are refused here, once, at the door. Layout of
//! the qcow2 header: QEMU's `docs/interop/qcow2.txt`.

/// How many of the first bytes are needed: an ISO 9660 descriptor stands at 32 KiB, qcow2's header in one cluster.
pub const HEAD_BYTES: usize = 64 * 1024;
/// How many of the last bytes: a fixed VHD has only a footer, of one sector (older writers: 511 bytes).
pub const TAIL_BYTES: usize = 512;

/// Disk formats that the image service takes.
pub const DISK_FORMATS: &[&str] = &["raw", "qcow2", "iso"];
/// Container formats that the image service takes.
pub const CONTAINER_FORMATS: &[&str] = &["bare"];

/// qcow2 incompatible features that are harmless: dirty (0), corrupt is not (1), external data is not (2),
/// compression type (3), extended L2 entries (4).
const QCOW2_HARMLESS: u64 = 1 | 1 << 3 | 1 << 4;
/// External data file bit.
const QCOW2_EXTERNAL_DATA: u64 = 1 << 2;
/// Header extension that names the external data file.
const QCOW2_EXTENSION_DATA_FILE: u32 = 0x4441_5441;
/// Header extension that names the backing file's format.
const QCOW2_EXTENSION_BACKING_FORMAT: u32 = 0xE279_2ACA;

/// Why an image is not taken.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FormatRefusal {
    /// The content is of another format.
    #[error("the image was declared as {declared} but its content is {found}")]
    Mismatch {
        /// What the user said.
        declared: String,
        /// What it is.
        found: &'static str,
    },
    /// It would make the hypervisor open another file.
    #[error("the qcow2 image refers to another file ({what}); images must stand alone")]
    PointsElsewhere {
        /// `backing file` or `external data file`.
        what: &'static str,
    },
    /// Made by something newer or stranger than we know.
    #[error("the qcow2 image needs features that are not known here (bits {bits:#x})")]
    UnknownFeatures {
        /// The incompatible feature bits that are not harmless.
        bits: u64,
    },
    /// Cut off or damaged.
    #[error("the {format} header is damaged: {reason}")]
    Damaged {
        /// Which format.
        format: &'static str,
        /// What is wrong.
        reason: &'static str,
    },
    /// A format that this service does not take.
    #[error("disk format {declared} is not supported here; use raw, qcow2 or iso")]
    Unsupported {
        /// What the user said.
        declared: String,
    },
}

/// Checks the content against the declared format; returns the virtual size, the size that a guest sees.
///
/// `head` is the first [`HEAD_BYTES`] (or all), `tail` the last [`TAIL_BYTES`] (or all), `size` the whole length.
pub fn inspect(declared: &str, head: &[u8], tail: &[u8], size: u64) -> Result<u64, FormatRefusal> {
    let found = detect(head, tail);
    match (declared, found) {
        ("raw", "raw") | ("iso", "iso") => Ok(size),
        ("qcow2", "qcow2") => qcow2(head),
        ("raw" | "iso" | "qcow2", found) => Err(FormatRefusal::Mismatch { declared: declared.to_owned(), found }),
        (declared, _) => Err(FormatRefusal::Unsupported { declared: declared.to_owned() }),
    }
}

/// Names the format by its magic numbers; what has none is raw.
pub fn detect(head: &[u8], tail: &[u8]) -> &'static str {
    let starts: &[(&[u8], &str)] = &[
        (b"QFI\xfb", "qcow2"),
        (b"QED\0", "qed"),
        (b"KDMV", "vmdk"),
        (b"COWD", "vmdk"),
        (b"# Disk DescriptorFile", "vmdk"),
        (b"conectix", "vhd"),
        (b"vhdxfile", "vhdx"),
        (b"LUKS\xba\xbe", "luks"),
        (b"WithoutFreeSpace", "parallels"),
        (b"WithouFreSpacExt", "parallels"),
        (b"Bochs Virtual HD Image", "bochs"),
        (b"#!/bin/sh\n#V2.0 Format\n", "cloop"),
    ];
    for (magic, format) in starts {
        if head.starts_with(magic) {
            return format;
        }
    }
    // A vmdk descriptor may stand behind blank lines or other comments.
    let text_start = &head[..head.len().min(512)];
    if contains(text_start, b"# Disk DescriptorFile") || contains(text_start, b"createType=") {
        return "vmdk";
    }
    if head.get(0x40..0x44) == Some(&[0x7f, 0x10, 0xda, 0xbe]) {
        return "vdi";
    }
    if tail.starts_with(b"conectix") || tail.get(1..9) == Some(b"conectix") {
        return "vhd";
    }
    if tail.starts_with(b"koly") {
        return "dmg";
    }
    // Volume descriptors of ISO 9660 (and UDF bridges) start at sector 16.
    if head.get(0x8001..0x8006).is_some_and(|id| matches!(id, b"CD001" | b"BEA01" | b"NSR02" | b"NSR03")) {
        return "iso";
    }
    "raw"
}

fn contains(bytes: &[u8], wanted: &[u8]) -> bool {
    bytes.windows(wanted.len()).any(|window| window == wanted)
}

/// Reads the qcow2 header; returns the virtual size.
fn qcow2(head: &[u8]) -> Result<u64, FormatRefusal> {
    let damaged = |reason| FormatRefusal::Damaged { format: "qcow2", reason };
    let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    let long = |at: usize| head.get(at..at + 8).and_then(|b| b.try_into().ok()).map(u64::from_be_bytes);
    let short = || damaged("it is cut off");

    let version = word(4).ok_or_else(short)?;
    if !matches!(version, 2 | 3) {
        return Err(damaged("its version is neither 2 nor 3"));
    }
    let backing_offset = long(8).ok_or_else(short)?;
    let backing_length = word(16).ok_or_else(short)?;
    if backing_offset != 0 || backing_length != 0 {
        return Err(FormatRefusal::PointsElsewhere { what: "backing file" });
    }
    let cluster_bits = word(20).ok_or_else(short)?;
    if !(9..=21).contains(&cluster_bits) {
        return Err(damaged("its cluster size is out of bounds"));
    }
    let virtual_size = long(24).ok_or_else(short)?;
    if virtual_size > i64::MAX as u64 {
        return Err(damaged("its virtual size is out of bounds"));
    }
    if word(32).ok_or_else(short)? != 0 {
        return Err(damaged("it is encrypted, which is not supported"));
    }
    // Version 2 has a header of 72 bytes and no feature bits.
    let header_length = if version == 2 { 72 } else { word(100).ok_or_else(short)? as usize };
    if version == 3 {
        let features = long(72).ok_or_else(short)?;
        if features & QCOW2_EXTERNAL_DATA != 0 {
            return Err(FormatRefusal::PointsElsewhere { what: "external data file" });
        }
        if features & !QCOW2_HARMLESS != 0 {
            return Err(FormatRefusal::UnknownFeatures { bits: features & !QCOW2_HARMLESS });
        }
        if !(104..=1 << cluster_bits).contains(&header_length) || header_length % 8 != 0 {
            return Err(damaged("its header length is out of bounds"));
        }
    }
    qcow2_extensions(head, header_length)?;
    Ok(virtual_size)
}

/// Walks the header extensions: none may name another file.
fn qcow2_extensions(head: &[u8], mut at: usize) -> Result<(), FormatRefusal> {
    let word = |at: usize| head.get(at..at + 4).and_then(|b| b.try_into().ok()).map(u32::from_be_bytes);
    loop {
        // The list may end with the bytes; what is beyond 64 KiB is beyond any real header.
        let Some(kind) = word(at) else { return Ok(()) };
        match kind {
            0 => return Ok(()),
            QCOW2_EXTENSION_DATA_FILE => {
                return Err(FormatRefusal::PointsElsewhere { what: "external data file" });
            }
            QCOW2_EXTENSION_BACKING_FORMAT => {
                return Err(FormatRefusal::PointsElsewhere { what: "backing file" });
            }
            _ => {}
        }
        let Some(length) = word(at + 4) else { return Ok(()) };
        at = at.saturating_add(8).saturating_add((length as usize).saturating_add(7) & !7);
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// A minimal qcow2 version 3 header of one megabyte.
    pub(crate) fn qcow2_header() -> Vec<u8> {
        let mut header = vec![0u8; 512];
        header[..4].copy_from_slice(b"QFI\xfb");
        header[4..8].copy_from_slice(&3u32.to_be_bytes());
        header[20..24].copy_from_slice(&16u32.to_be_bytes());
        header[24..32].copy_from_slice(&(1u64 << 20).to_be_bytes());
        header[100..104].copy_from_slice(&104u32.to_be_bytes());
        header
    }

    fn check(declared: &str, bytes: &[u8]) -> Result<u64, FormatRefusal> {
        let head = &bytes[..bytes.len().min(HEAD_BYTES)];
        let tail = &bytes[bytes.len().saturating_sub(TAIL_BYTES)..];
        inspect(declared, head, tail, bytes.len() as u64)
    }

    #[test]
    fn plain_images_pass_with_their_virtual_size() {
        assert_eq!(check("raw", &[0; 4096]), Ok(4096));
        assert_eq!(check("raw", b""), Ok(0));
        assert_eq!(check("qcow2", &qcow2_header()), Ok(1 << 20));
    }

    #[test]
    fn qcow2_that_points_elsewhere_is_refused() {
        let mut backing = qcow2_header();
        backing[8..16].copy_from_slice(&112u64.to_be_bytes());
        backing[16..20].copy_from_slice(&11u32.to_be_bytes());
        assert_eq!(check("qcow2", &backing), Err(FormatRefusal::PointsElsewhere { what: "backing file" }));

        let mut external = qcow2_header();
        external[72..80].copy_from_slice(&4u64.to_be_bytes());
        assert_eq!(check("qcow2", &external), Err(FormatRefusal::PointsElsewhere { what: "external data file" }));

        let mut extension = qcow2_header();
        extension[104..108].copy_from_slice(&QCOW2_EXTENSION_DATA_FILE.to_be_bytes());
        assert_eq!(check("qcow2", &extension), Err(FormatRefusal::PointsElsewhere { what: "external data file" }));

        // Behind another extension, whose length is padded to 8.
        let mut second = qcow2_header();
        second[104..108].copy_from_slice(&0x6803_f857u32.to_be_bytes());
        second[108..112].copy_from_slice(&5u32.to_be_bytes());
        second[120..124].copy_from_slice(&QCOW2_EXTENSION_DATA_FILE.to_be_bytes());
        assert_eq!(check("qcow2", &second), Err(FormatRefusal::PointsElsewhere { what: "external data file" }));
    }

    #[test]
    fn unknown_incompatible_bits_and_damage_are_refused() {
        let mut unknown = qcow2_header();
        unknown[72..80].copy_from_slice(&(1u64 << 40).to_be_bytes());
        assert_eq!(check("qcow2", &unknown), Err(FormatRefusal::UnknownFeatures { bits: 1 << 40 }));
        assert!(matches!(check("qcow2", &qcow2_header()[..90]), Err(FormatRefusal::Damaged { .. })));
        let mut version = qcow2_header();
        version[7] = 9;
        assert!(matches!(check("qcow2", &version), Err(FormatRefusal::Damaged { .. })));
    }

    #[test]
    fn content_of_another_format_is_refused() {
        let mut vdi = vec![0u8; 512];
        vdi[0x40..0x44].copy_from_slice(&[0x7f, 0x10, 0xda, 0xbe]);
        let mut iso = vec![0u8; 0x9000];
        iso[0x8001..0x8006].copy_from_slice(b"CD001");
        let mut vhd = vec![0u8; 2048];
        vhd[1536..1544].copy_from_slice(b"conectix");
        let vmdk = b"KDMV\x01\0\0\0".to_vec();
        let descriptor = b"\n# Disk DescriptorFile\nversion=1\n".to_vec();
        let cases: &[(&str, &[u8])] = &[
            ("qcow2", &qcow2_header()),
            ("vdi", &vdi),
            ("iso", &iso),
            ("vhd", &vhd),
            ("vmdk", &vmdk),
            ("vmdk", &descriptor),
            ("qed", b"QED\0"),
        ];
        for (found, bytes) in cases {
            assert_eq!(check("raw", bytes), Err(FormatRefusal::Mismatch { declared: "raw".into(), found }), "{found}");
        }
        assert!(check("qcow2", &[0; 512]).is_err());
        assert_eq!(check("iso", &iso), Ok(0x9000));
        assert!(matches!(check("vmdk", &vmdk), Err(FormatRefusal::Unsupported { .. })));
    }

    proptest::proptest! {
        #[test]
        fn no_bytes_make_it_panic(mut bytes in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..600)) {
            let _ = check("qcow2", &bytes);
            if bytes.len() > 8 {
                bytes[..4].copy_from_slice(b"QFI\xfb");
                bytes[4..8].copy_from_slice(&3u32.to_be_bytes());
                let _ = check("qcow2", &bytes);
            }
        }
    }
}
