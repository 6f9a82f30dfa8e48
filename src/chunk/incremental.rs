//! The files that a server of PostgreSQL 17 and later sends for relations in an incremental backup: `INCREMENTAL.<name>`.
//!
//! ```text
//! magic 0xd3ae1f0d | number of blocks | truncation block length | block numbers … | zero bytes up to a block | blocks …
//! ```
//!
//! All numbers are 32 bits in the server's byte order, little-endian on everything that runs today (`basebackup_incremental.h`,
//! `sendFile` in `basebackup.c`). The file that is meant is as long as the truncation block length, or reaches to its highest block here,
//! whichever is more; a block that is not here is the earlier backup's, and zero bytes where that had none (`reconstruct.c` of
//! pg_combinebackup).

use super::CHUNK_BYTES;

/// Begins the name of such a file.
pub const PREFIX: &[u8] = b"INCREMENTAL.";

const MAGIC: u32 = 0xd3ae_1f0d;
/// Blocks of the largest file: 1 GiB of blocks of 1 KiB, and room for clusters with larger segments.
const MOST_BLOCKS: u32 = 1 << 24;

/// What the file begins with.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Header {
    /// The blocks that follow, ascending.
    pub blocks: Vec<u32>,
    /// Bytes of the file that is meant.
    pub size: u64,
}

/// A file that is not what servers send.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IncrementalError {
    /// It does not begin as such a file does.
    #[error("it does not begin as an incremental file does")]
    Magic,
    /// Numbers that make no sense.
    #[error("its header makes no sense: {0}")]
    Header(&'static str),
    /// More or fewer bytes than its header says.
    #[error("it has another length than its header says")]
    Length,
}

/// Blocks that replace those of one chunk of the earlier backup's file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ChangedChunk {
    /// Where the chunk begins in the file.
    pub offset: u64,
    /// Bytes of the chunk, 1 to [`CHUNK_BYTES`].
    pub raw_length: u32,
    /// Where in the chunk each block belongs.
    pub places: Vec<u32>,
    /// The blocks, one after the other.
    pub bytes: Vec<u8>,
}

/// Reads such a file as it streams in.
#[derive(Debug)]
pub struct IncrementalReader {
    block_size: usize,
    buffer: Vec<u8>,
    header: Option<Header>,
    /// Bytes of filling before the first block that are still to come.
    filling: usize,
    /// Blocks that have come.
    at: usize,
    /// The chunk that is being gathered.
    next: u64,
    chunk: Option<ChangedChunk>,
}

impl IncrementalReader {
    /// A reader for a cluster of this block size, in bytes.
    #[must_use]
    pub fn new(block_size: u32) -> Self {
        let (buffer, header, chunk) = (Vec::new(), None, None);
        IncrementalReader { block_size: block_size as usize, buffer, header, filling: 0, at: 0, next: 0, chunk }
    }

    /// The header, once it has come.
    #[must_use]
    pub fn header(&self) -> Option<&Header> {
        self.header.as_ref()
    }

    /// Takes bytes off the front of `data`; gives each chunk of the file that is meant in its order, those without a changed block too, as
    /// soon as its blocks have come. Call it until `data` is empty and it gives nothing any more.
    ///
    /// # Errors
    /// [`IncrementalError`]
    pub fn push(&mut self, data: &mut &[u8]) -> Result<Option<ChangedChunk>, IncrementalError> {
        if self.header.is_none() {
            self.read_header(data)?;
        }
        let Some(header) = &self.header else { return Ok(None) };
        let skipped = self.filling.min(data.len());
        self.filling -= skipped;
        *data = &data[skipped..];
        loop {
            let in_chunk =
                |number: u32| u64::from(number) * self.block_size as u64 / CHUNK_BYTES as u64 * CHUNK_BYTES as u64;
            if self.chunk.is_none() && self.next < header.size {
                let left = header.size - self.next;
                let raw_length = left.min(CHUNK_BYTES as u64) as u32;
                let (places, bytes) = (Vec::new(), Vec::new());
                self.chunk = Some(ChangedChunk { offset: self.next, raw_length, places, bytes });
            }
            let wanted = header.blocks.get(self.at).copied();
            if let Some(chunk) =
                self.chunk.take_if(|chunk| wanted.is_none_or(|number| in_chunk(number) != chunk.offset))
            {
                self.next = chunk.offset + u64::from(chunk.raw_length);
                return Ok(Some(chunk));
            }
            if data.is_empty() {
                return Ok(None);
            }
            let (Some(number), Some(chunk)) = (wanted, &mut self.chunk) else { return Err(IncrementalError::Length) };
            let (taken, rest) = data.split_at(data.len().min(self.block_size - self.buffer.len()));
            self.buffer.extend_from_slice(taken);
            *data = rest;
            if self.buffer.len() == self.block_size {
                chunk.places.push((u64::from(number) * self.block_size as u64 - chunk.offset) as u32);
                chunk.bytes.append(&mut self.buffer);
                self.at += 1;
            }
        }
    }

    /// After the last byte.
    ///
    /// # Errors
    /// [`IncrementalError::Length`]
    pub fn finish(&self) -> Result<(), IncrementalError> {
        let whole =
            self.header.as_ref().is_some_and(|header| self.at == header.blocks.len() && self.next == header.size);
        if whole && self.filling == 0 && self.buffer.is_empty() { Ok(()) } else { Err(IncrementalError::Length) }
    }

    fn read_header(&mut self, data: &mut &[u8]) -> Result<(), IncrementalError> {
        self.fill(data, 12);
        let Some(fixed) = self.buffer.first_chunk::<12>() else { return Ok(()) };
        let number = |at: usize| u32::from_le_bytes([fixed[at], fixed[at + 1], fixed[at + 2], fixed[at + 3]]);
        let (magic, count, length) = (number(0), number(4), number(8));
        if magic != MAGIC {
            return Err(IncrementalError::Magic);
        }
        if count > MOST_BLOCKS || length > MOST_BLOCKS {
            return Err(IncrementalError::Header("too many blocks"));
        }
        let bytes = 12 + count as usize * 4;
        self.fill(data, bytes);
        if self.buffer.len() < bytes {
            return Ok(());
        }
        let blocks: Vec<u32> =
            self.buffer[12..].as_chunks::<4>().0.iter().map(|number| u32::from_le_bytes(*number)).collect();
        if !blocks.windows(2).all(|two| two[0] < two[1]) || blocks.last().is_some_and(|last| *last >= MOST_BLOCKS) {
            return Err(IncrementalError::Header("the block numbers are not ascending, or too high"));
        }
        self.filling = if count > 0 { bytes.next_multiple_of(self.block_size) - bytes } else { 0 };
        let highest = blocks.last().map_or(0, |last| last + 1);
        let size = u64::from(length.max(highest)) * self.block_size as u64;
        self.buffer.clear();
        self.header = Some(Header { blocks, size });
        Ok(())
    }

    fn fill(&mut self, data: &mut &[u8], bytes: usize) {
        let (taken, rest) = data.split_at(data.len().min(bytes.saturating_sub(self.buffer.len())));
        self.buffer.extend_from_slice(taken);
        *data = rest;
    }
}

impl ChangedChunk {
    /// The chunk, laid over what the earlier backup had at its place.
    #[must_use]
    pub fn over(&self, mut earlier: Vec<u8>) -> Vec<u8> {
        earlier.resize(self.raw_length as usize, 0);
        if !self.places.is_empty() {
            let block = self.bytes.len() / self.places.len();
            for (place, bytes) in self.places.iter().zip(self.bytes.chunks(block)) {
                earlier[*place as usize..][..block].copy_from_slice(bytes);
            }
        }
        earlier
    }
}

/// Entry point for fuzzing: any bytes in pieces of any size are read or refused, without panic and within bounded memory.
pub fn fuzz(bytes: &[u8]) {
    let piece = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    let mut reader = IncrementalReader::new(1024);
    let mut given = 0_u64;
    for part in bytes.get(1..).unwrap_or_default().chunks(piece) {
        let mut data = part;
        loop {
            match reader.push(&mut data) {
                Ok(Some(chunk)) => {
                    assert_eq!(chunk.offset, given);
                    given += u64::from(chunk.raw_length);
                    // Of the others there may be very many.
                    if !chunk.places.is_empty() {
                        assert_eq!(chunk.over(Vec::new()).len(), chunk.raw_length as usize);
                    }
                }
                Ok(None) if data.is_empty() => break,
                Ok(None) => {}
                Err(_) => return,
            }
        }
    }
    if reader.finish().is_ok() {
        assert_eq!(reader.header().map(|header| header.size), Some(given));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const BLOCK: usize = 8192;

    /// As a server writes it.
    fn file(blocks: &[u32], length: u32) -> Vec<u8> {
        let mut bytes: Vec<u8> = [MAGIC, blocks.len() as u32, length].iter().flat_map(|n| n.to_le_bytes()).collect();
        bytes.extend(blocks.iter().flat_map(|number| number.to_le_bytes()));
        if !blocks.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(BLOCK), 0);
        }
        blocks.iter().for_each(|number| bytes.extend([*number as u8 + 1; BLOCK]));
        bytes
    }

    fn rebuilt(bytes: &[u8], piece: usize, earlier: &[u8]) -> Result<Vec<u8>, IncrementalError> {
        let mut reader = IncrementalReader::new(BLOCK as u32);
        let mut found = Vec::new();
        for part in bytes.chunks(piece) {
            let mut data = part;
            loop {
                match reader.push(&mut data)? {
                    Some(chunk) => {
                        assert_eq!(chunk.offset as usize, found.len());
                        let from = earlier.len().min(chunk.offset as usize);
                        let to = earlier.len().min(from + CHUNK_BYTES);
                        found.extend(chunk.over(earlier[from..to].to_vec()));
                    }
                    None if data.is_empty() => break,
                    None => {}
                }
            }
        }
        reader.finish()?;
        Ok(found)
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(64))]

        /// Each block comes from where pg_combinebackup takes it, however the stream is cut.
        #[test]
        fn every_block_from_the_right_place(
            blocks in prop::collection::btree_set(0_u32..200, 0..40),
            length in 0_u32..220,
            before in 0_usize..220,
            piece in 1_usize..20_000,
        ) {
            let blocks: Vec<u32> = blocks.into_iter().collect();
            let earlier = vec![255; before * BLOCK];
            let found = rebuilt(&file(&blocks, length), piece, &earlier).expect("a good file");
            let size = (length.max(blocks.last().map_or(0, |last| last + 1))) as usize;
            prop_assert_eq!(found.len(), size * BLOCK);
            for (number, block) in found.chunks(BLOCK).enumerate() {
                let expected = match blocks.binary_search(&(number as u32)) {
                    Ok(_) => number as u8 + 1,
                    Err(_) if number < before => 255,
                    Err(_) => 0,
                };
                prop_assert!(block.iter().all(|byte| *byte == expected), "block {}", number);
            }
        }
    }

    /// What is not whole, or not such a file, is refused.
    #[test]
    fn damage_is_refused() {
        let good = file(&[3, 70], 100);
        for length in (0..100).chain((100..good.len()).step_by(997)) {
            assert!(rebuilt(&good[..length], 4096, &[]).is_err(), "cut to {length}");
        }
        assert!(rebuilt(&[&good[..], b"x"].concat(), 4096, &[]).is_err());
        assert_eq!(rebuilt(&[0; 12], 4096, &[]), Err(IncrementalError::Magic));
        assert!(rebuilt(&file(&[5, 5], 9), 4096, &[]).is_err());
        fuzz(&[&[200], &good[..]].concat());
    }
}
