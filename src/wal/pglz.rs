//! PostgreSQL's own compression, as it is used for page images (`pg_lzcompress.c`): reading only.

/// Unpacks `packed` into `out` and returns how many bytes came out; `None` if it is damaged or does not fit.
///
/// A control byte says of the next eight items, from its lowest bit on, whether each is a byte (0) or a copy of what came
/// out before (1): two bytes with a length of 3 to 17 and a distance of up to 4095; a length of 18 is followed by a byte
/// that is added to it.
pub(super) fn decompress(packed: &[u8], out: &mut [u8]) -> Option<usize> {
    let mut rest = packed.iter().copied();
    let mut at = 0;
    while let Some(control) = rest.next() {
        for bit in 0..8 {
            if control >> bit & 1 == 0 {
                let Some(byte) = rest.next() else { return Some(at) };
                *out.get_mut(at)? = byte;
                at += 1;
                continue;
            }
            let Some(first) = rest.next() else { return Some(at) };
            let distance = usize::from(first & 0xF0) << 4 | usize::from(rest.next()?);
            let mut length = usize::from(first & 0x0F) + 3;
            if length == 18 {
                length += usize::from(rest.next()?);
            }
            if distance == 0 || distance > at || length > out.len() - at {
                return None;
            }
            // The copy may reach into itself: byte by byte.
            for _ in 0..length {
                out[at] = out[at - distance];
                at += 1;
            }
        }
    }
    Some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Bytes, copies that reach into themselves, long copies.
    #[test]
    fn unpacked() {
        let mut out = [0; 64];
        // "ab", then 5 bytes from a distance of 2, then "c".
        assert_eq!(decompress(&[0b100, b'a', b'b', 0x02, 2, b'c'], &mut out), Some(8));
        assert_eq!(&out[..8], b"abababac");
        // "x", then 18 + 10 bytes from a distance of 1.
        assert_eq!(decompress(&[0b10, b'x', 0x0F, 1, 10], &mut out), Some(29));
        assert_eq!(&out[..29], &[b'x'; 29]);
    }

    /// A distance beyond the beginning, none at all, and more than fits.
    #[test]
    fn damaged() {
        let mut out = [0; 16];
        assert_eq!(decompress(&[0b10, b'x', 0x00, 2], &mut out), None);
        assert_eq!(decompress(&[0b10, b'x', 0x00, 0], &mut out), None);
        assert_eq!(decompress(&[0b10, b'x', 0x0F, 1, 10], &mut out), None);
        assert_eq!(decompress(&[0; 20], &mut out), None);
        assert_eq!(decompress(&[0b1, 0x0F, 1], &mut out), None);
    }
}
