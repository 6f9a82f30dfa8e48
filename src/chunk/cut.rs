//! Cuts the content of a file into chunks as it streams in.

use super::CHUNK_BYTES;

/// Raw bytes of one chunk, and where in its file they belong.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Piece {
    /// The first byte's place in the file; a multiple of [`CHUNK_BYTES`].
    pub offset: u64,
    /// The bytes: [`CHUNK_BYTES`] of them, fewer only at the end of the file.
    pub raw: Vec<u8>,
}

/// Collects the content of one file after the other into chunks.
#[derive(Debug, Default)]
pub struct Cutter {
    offset: u64,
    buffer: Vec<u8>,
}

impl Cutter {
    /// Takes bytes off the front of `data`; gives a chunk back as soon as it is full. Call it until `data` is empty.
    pub fn push(&mut self, data: &mut &[u8]) -> Option<Piece> {
        let (taken, rest) = data.split_at(data.len().min(CHUNK_BYTES - self.buffer.len()));
        *data = rest;
        if self.buffer.len() + taken.len() > self.buffer.capacity() {
            // Small files keep small buffers; what is not small will most likely fill a chunk.
            let room = if self.buffer.is_empty() && taken.len() < CHUNK_BYTES / 32 { taken.len() } else { CHUNK_BYTES };
            self.buffer.reserve_exact(room - self.buffer.len());
        }
        self.buffer.extend_from_slice(taken);
        (self.buffer.len() == CHUNK_BYTES).then(|| self.take())
    }

    /// Ends the file: its last, short chunk, if there is one. The next byte pushed begins another file.
    pub fn finish(&mut self) -> Option<Piece> {
        let last = (!self.buffer.is_empty()).then(|| self.take());
        self.offset = 0;
        last
    }

    fn take(&mut self) -> Piece {
        let raw = std::mem::take(&mut self.buffer);
        let offset = self.offset;
        self.offset += raw.len() as u64;
        Piece { offset, raw }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same boundaries come out however the content arrives: that is what makes chunks of two backups comparable.
    #[test]
    fn boundaries_are_fixed() {
        let file: Vec<u8> = (0..CHUNK_BYTES * 2 + 777).map(|i| (i % 251) as u8).collect();
        for message in [1000, 8192, 32_768, CHUNK_BYTES, CHUNK_BYTES * 4] {
            let mut cutter = Cutter::default();
            for length in [file.len(), CHUNK_BYTES, 5, 0] {
                let mut pieces = Vec::new();
                for mut data in file[..length].chunks(message) {
                    while !data.is_empty() {
                        pieces.extend(cutter.push(&mut data));
                    }
                }
                pieces.extend(cutter.finish());
                let offsets: Vec<u64> = pieces.iter().map(|piece| piece.offset).collect();
                let expected: Vec<u64> = (0..length as u64).step_by(CHUNK_BYTES).collect();
                assert_eq!(offsets, expected);
                assert_eq!(pieces.into_iter().flat_map(|piece| piece.raw).collect::<Vec<_>>(), file[..length]);
            }
        }
    }
}
