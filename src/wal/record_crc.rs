//! The checksum of a record: CRC-32C of what follows the header, then of the header up to the checksum itself.
//!
//! A busy server writes short records, a quarter of a million in a segment, and the checksum is most of the work of reading
//! them. The library is made for long input: it takes eight bytes at a time and the rest one by one, and here both body and header
//! have such a rest. So a record in one piece is taken another way ([`record_crc`]), with the processor's instruction where it
//! may be counted on (`.cargo/config.toml`), and by the library elsewhere.

use super::bytes::{u32_at, u64_at};
use super::record::{CRC_OFFSET, HEADER_SIZE};

/// Bodies of more bytes than these are left to the library, which works on three parts of them at a time.
const SHORT_BYTES: usize = 1024;

/// The checksum of a record whose pieces lie apart: `body` is the CRC-32C of what follows the header.
pub(super) fn finish_crc(body: u32, header: &[u8]) -> u32 {
    crc32c::crc32c_append(body, &header[..CRC_OFFSET])
}

/// The checksum of a record in one piece, of at least [`HEADER_SIZE`] bytes.
///
/// What is left of the body behind its last whole word, and the header, go together into one block of four words, filled up with
/// zeros in front. Those change nothing as long as the register is zero, so what it holds after the body's words is added to
/// the first four bytes behind the zeros, which is where the algorithm would add it.
#[inline]
pub(super) fn record_crc(record: &[u8]) -> u32 {
    let (header, body) = record.split_at(HEADER_SIZE);
    let (words, rest) = body.as_chunks::<8>();
    let register = if body.len() > SHORT_BYTES { by_library(!0, words) } else { by_words(!0, words) };
    let last_word = u64_at(record, record.len() - 8).unwrap_or_default() & !(u64::MAX >> (8 * rest.len()));
    let front = u128::from(last_word) << 32 | u128::from(u32_at(header, 0).unwrap_or_default()) << 96;
    let front = front ^ u128::from(register) << (8 * (12 - rest.len()));
    let mut block = [0; 32];
    block[..16].copy_from_slice(&front.to_le_bytes());
    block[16..].copy_from_slice(&header[4..CRC_OFFSET]);
    !by_words(0, block.as_chunks().0)
}

/// What the register holds after these words, by the processor's instruction.
#[cfg(all(target_arch = "x86_64", target_feature = "sse4.2"))]
#[inline]
fn by_words(register: u32, words: &[[u8; 8]]) -> u32 {
    let step = |register, word: &[u8; 8]| safe_arch::crc32_u64(register, u64::from_le_bytes(*word));
    // The instruction keeps the upper half zero.
    #[allow(clippy::cast_possible_truncation)]
    let register = words.iter().fold(u64::from(register), step) as u32;
    register
}

/// What the register holds after these words.
#[cfg(not(all(target_arch = "x86_64", target_feature = "sse4.2")))]
fn by_words(register: u32, words: &[[u8; 8]]) -> u32 {
    by_library(register, words)
}

/// What the register holds after these words. The library takes and returns it inverted.
fn by_library(register: u32, words: &[[u8; 8]]) -> u32 {
    !crc32c::crc32c_append(!register, words.as_flattened())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        /// Both ways agree on every length and content.
        #[test]
        fn the_quick_checksum_is_the_checksum(record in proptest::collection::vec(any::<u8>(), HEADER_SIZE..1200)) {
            let plain = finish_crc(crc32c::crc32c(&record[HEADER_SIZE..]), &record);
            prop_assert_eq!(record_crc(&record), plain);
        }
    }
}
