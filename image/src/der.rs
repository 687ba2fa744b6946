//! The little of DER that a signature is written in (X.690).

/// SEQUENCE.
pub const SEQUENCE: u8 = 0x30;
/// SET.
pub const SET: u8 = 0x31;
/// OCTET STRING.
pub const OCTETS: u8 = 0x04;

/// One value: tag, length, content.
pub fn tlv(tag: u8, parts: &[&[u8]]) -> Vec<u8> {
    let content = parts.concat();
    let mut out = vec![tag];
    match content.len() {
        short @ ..0x80 => out.push(short as u8),
        long => {
            let length = long.to_be_bytes();
            let length = &length[length.iter().take_while(|b| **b == 0).count()..];
            out.push(0x80 | length.len() as u8);
            out.extend(length);
        }
    }
    out.extend(content);
    out
}

/// A context's own constructed tag.
pub const fn context(number: u8) -> u8 {
    0xa0 | number
}

/// The value at the beginning: all of it, its content, and what follows. None if it is cut short or not DER.
pub fn split(bytes: &[u8]) -> Option<(&[u8], &[u8], &[u8])> {
    let (first, rest) = (*bytes.get(1)?, bytes.get(2..)?);
    let (length, rest) = match first {
        short @ ..=0x7f => (usize::from(short), rest),
        long @ 0x81..=0x83 => {
            let (length, rest) = rest.split_at_checked(usize::from(long & 0x7f))?;
            (length.iter().fold(0, |n, b| n << 8 | usize::from(*b)), rest)
        }
        _ => return None,
    };
    let (content, after) = rest.split_at_checked(length)?;
    (tlv(bytes[0], &[content]) == bytes[..bytes.len() - after.len()]).then_some((&bytes[..bytes.len() - after.len()], content, after))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_reads_back_in_its_one_encoding() {
        for len in [0, 1, 127, 128, 255, 256, 70_000] {
            let value = tlv(OCTETS, &[&vec![7; len], b""]);
            let more = [&value[..], b"more"].concat();
            assert_eq!(split(&more), Some((&value[..], &vec![7; len][..], &b"more"[..])));
            assert_eq!(split(&value[..value.len() - 1]), None, "{len}");
        }
        assert_eq!(split(&[4, 0x81, 1, 9]), None, "a length longer than it need be");
        assert_eq!(split(&[4, 0x80, 0, 0]), None, "a length that is not said");
    }
}
