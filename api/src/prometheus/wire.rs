//! What remote read and remote write put into their messages.

/// A value and its time as a `Sample`; the bytes that it took of 20.
pub(crate) fn write_sample(out: &mut [u8; 20], time: i64, value: f64) -> usize {
    out[0] = 0x09;
    out[1..9].copy_from_slice(&value.to_bits().to_le_bytes());
    out[9] = 0x10;
    let (mut at, mut rest) = (10, time.cast_unsigned());
    while rest >= 0x80 {
        out[at] = rest as u8 | 0x80;
        rest >>= 7;
        at += 1;
    }
    out[at] = rest as u8;
    at + 1
}

/// A field that has a length: a text or a message.
pub(crate) fn write_field(out: &mut Vec<u8>, number: u8, bytes: &[u8]) {
    out.push(number << 3 | 2);
    write_varint(out, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

/// A field that is a double.
pub(crate) fn write_double(out: &mut Vec<u8>, field: u8, number: f64) {
    out.push(field << 3 | 1);
    out.extend_from_slice(&number.to_le_bytes());
}

/// A field that is a number.
pub(crate) fn write_number(out: &mut Vec<u8>, field: u8, number: u64) {
    out.push(field << 3);
    write_varint(out, number);
}

/// A number of 7 bits a byte.
pub(crate) fn write_varint(out: &mut Vec<u8>, number: u64) {
    let mut rest = number;
    while rest >= 0x80 {
        out.push(rest as u8 | 0x80);
        rest >>= 7;
    }
    out.push(rest as u8);
}
