//! Reading a manifest as a stream, with proof at the end that nothing was left out or changed.

use std::io::{self, BufRead, BufReader, Read};

use lz4_flex::frame::FrameDecoder;
use sha2::{Digest, Sha256};

use super::types::Line;
use super::{MANIFEST_FORMAT, MAX_CHUNKS_PER_LINE, ManifestEnd, ManifestHeader, ManifestLine, ManifestStop};
use crate::chunk::{CHUNK_BYTES, ChunkContent, ChunkRef, to_hex};
use crate::codec::Whole;

/// The longest line accepted: a gibibyte of chunks with eight page sets each stays below it.
const MAX_LINE_BYTES: u64 = 16 << 20;

/// A manifest that cannot be trusted.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// The bytes cannot be read or unpacked: damaged, cut short, or no manifest.
    #[error("the manifest cannot be read: {0}")]
    Read(#[from] io::Error),
    /// A line is no line of a manifest.
    #[error("line {line} of the manifest is not valid: {reason}")]
    Line {
        /// The line's number, from 1.
        line: u64,
        /// What is wrong with it.
        reason: String,
    },
    /// Written by a newer program.
    #[error("the manifest has format {found}, this program reads format {MANIFEST_FORMAT}")]
    Format {
        /// The format found.
        found: u32,
    },
    /// The lines are not those that were written: the manifest was changed.
    #[error("the manifest was changed after it was written: {0} does not match its last line")]
    Changed(&'static str),
    /// There is no last line: the manifest is not whole.
    #[error("the manifest is not whole: it ends after line {0}")]
    Truncated(u64),
}

/// Reads a manifest: the header at once, then an iterator over its lines.
///
/// Nothing that the iterator yields is proved until it has come to its end without an error; a reader that acts on a line
/// before (a restore writes files as it reads) must be able to declare its work void.
pub struct ManifestReader<R: Read> {
    input: BufReader<FrameDecoder<Whole<R>>>,
    header: ManifestHeader,
    stop: Option<ManifestStop>,
    checksum: Sha256,
    counts: ManifestEnd,
    line_number: u64,
    finished: bool,
    /// The file whose parts are being read: path, tablespace, and the byte that the next part must start at.
    open: Option<(Vec<u8>, Option<u32>, u64)>,
}

impl<R: Read> ManifestReader<R> {
    /// Reads the header.
    ///
    /// # Errors
    /// Not a manifest, or one of another format.
    pub fn new(input: R) -> Result<Self, ManifestError> {
        let mut input = BufReader::new(FrameDecoder::new(Whole(input)));
        let first = read_line(&mut input, 1)?.ok_or(ManifestError::Truncated(0))?;
        // The format is looked at first: a newer program may have changed every other field.
        let format = serde_json::from_slice::<FormatOnly>(&first).map_err(|error| invalid(1, error))?.header.format;
        if format != MANIFEST_FORMAT {
            return Err(ManifestError::Format { found: format });
        }
        let Line::Header(header) = serde_json::from_slice(&first).map_err(|error| invalid(1, error))? else {
            return Err(invalid(1, "it is not the header"));
        };
        if header.pack_sources.first() != Some(&header.id) {
            return Err(invalid(1, "the backup is not the first of its own pack sources"));
        }
        let checksum = Sha256::new_with_prefix(&first);
        let counts = ManifestEnd::default();
        Ok(ManifestReader { input, header, stop: None, checksum, counts, line_number: 1, finished: false, open: None })
    }

    /// The first line.
    #[must_use]
    pub fn header(&self) -> &ManifestHeader {
        &self.header
    }

    /// The stop of the backup; `Some` once the iterator has come to its end without an error.
    #[must_use]
    pub fn stop(&self) -> Option<&ManifestStop> {
        self.stop.as_ref().filter(|_| self.finished)
    }

    /// The counts of the last line; meaningful once the iterator has come to its end without an error.
    #[must_use]
    pub fn counts(&self) -> &ManifestEnd {
        &self.counts
    }

    /// Reads on to the end, for whoever wants the proof or [`ManifestReader::stop`] only.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn verify_to_end(&mut self) -> Result<ManifestStop, ManifestError> {
        for line in self.by_ref() {
            line?;
        }
        self.stop().cloned().ok_or(ManifestError::Truncated(self.line_number))
    }

    fn advance(&mut self) -> Result<Option<ManifestLine>, ManifestError> {
        loop {
            let number = self.line_number + 1;
            let bytes = read_line(&mut self.input, number)?.ok_or(ManifestError::Truncated(self.line_number))?;
            self.line_number = number;
            let line: Line = serde_json::from_slice(&bytes).map_err(|error| invalid(number, error))?;
            if let Line::End(end) = line {
                self.check_end(&end)?;
                self.finished = true;
                return Ok(None);
            }
            if self.stop.is_some() {
                return Err(invalid(number, "it follows the stop line"));
            }
            self.checksum.update(&bytes);
            self.counts.count(&line);
            self.check(&line)?;
            return Ok(Some(match line {
                Line::Directory(line) => ManifestLine::Directory(line),
                Line::Symlink(line) => ManifestLine::Symlink(line),
                Line::File(line) => ManifestLine::File(line),
                Line::Config(line) => ManifestLine::Config(line),
                Line::Stop(stop) => {
                    self.stop = Some(stop);
                    continue;
                }
                Line::Header(_) | Line::End(_) => return Err(invalid(number, "a second header")),
            }));
        }
    }

    /// What one line can be held to: references in range, chunks that make up the file without gaps.
    fn check(&mut self, line: &Line) -> Result<(), ManifestError> {
        let wrong = |reason| Err(invalid(self.line_number, reason));
        if let Some((path, tablespace, at)) = self.open.take() {
            let continues = matches!(line, Line::File(file)
                if file.path.as_bytes() == path && file.tablespace == tablespace && file.from == at);
            if !continues {
                return wrong("the rest of the file before it is missing");
            }
        } else if matches!(line, Line::File(file) if file.from != 0) {
            return wrong("the beginning of the file is missing");
        }
        let (chunks, from, size) = match line {
            Line::File(file) => (&file.chunks, file.from, file.size),
            Line::Config(file) => (&file.chunks, 0, file.size),
            _ => return Ok(()),
        };
        if chunks.len() > MAX_CHUNKS_PER_LINE {
            return wrong("it has too many chunks");
        }
        let mut at = from;
        for chunk in chunks {
            let expected = size.saturating_sub(at).min(CHUNK_BYTES as u64);
            if u64::from(chunk.raw_length) != expected {
                return wrong("a chunk does not have the length that its place calls for");
            }
            if !self.sources_exist(chunk) {
                return wrong("a chunk refers to a pack source that the header does not name");
            }
            at += expected;
        }
        match line {
            Line::File(file) if at < size => {
                if chunks.is_empty() {
                    return wrong("chunks are missing");
                }
                self.open = Some((file.path.as_bytes().to_vec(), file.tablespace, at));
            }
            Line::Config(_) if at < size => return wrong("chunks are missing"),
            _ => {}
        }
        Ok(())
    }

    fn sources_exist(&self, chunk: &ChunkRef) -> bool {
        let exists = |source: u16| usize::from(source) < self.header.pack_sources.len();
        match &chunk.content {
            ChunkContent::Zero => true,
            ChunkContent::Stored { base, sets, .. } => {
                exists(base.source) && sets.iter().all(|set| exists(set.place.source))
            }
        }
    }

    fn check_end(&mut self, end: &ManifestEnd) -> Result<(), ManifestError> {
        let sha256 = to_hex(&std::mem::take(&mut self.checksum).finalize());
        if self.stop.is_none() || self.open.is_some() {
            return Err(ManifestError::Truncated(self.line_number));
        }
        if end.sha256 != sha256 {
            return Err(ManifestError::Changed("the checksum over its lines"));
        }
        self.counts.sha256 = sha256;
        if *end != self.counts {
            return Err(ManifestError::Changed("the number of its lines"));
        }
        // Reading to the end of the frame also proves the frame's own checksum.
        let mut rest = [0];
        if self.input.read(&mut rest)? != 0 || self.input.get_mut().get_mut().0.read(&mut rest)? != 0 {
            return Err(invalid(self.line_number + 1, "it follows the last line"));
        }
        Ok(())
    }
}

impl<R: Read> Iterator for ManifestReader<R> {
    type Item = Result<ManifestLine, ManifestError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.finished {
            return None;
        }
        let line = self.advance().transpose();
        if matches!(line, Some(Err(_))) {
            // After an error there is no next line, and no stop either.
            self.stop = None;
            self.finished = true;
        }
        line
    }
}

#[derive(serde::Deserialize)]
struct FormatOnly {
    header: Format,
}

#[derive(serde::Deserialize)]
struct Format {
    format: u32,
}

fn invalid(line: u64, reason: impl ToString) -> ManifestError {
    ManifestError::Line { line, reason: reason.to_string() }
}

/// One line with its line feed; `None` at the end of the input.
fn read_line(input: &mut impl BufRead, number: u64) -> Result<Option<Vec<u8>>, ManifestError> {
    let mut line = Vec::new();
    input.take(MAX_LINE_BYTES).read_until(b'\n', &mut line)?;
    match line.last() {
        None => Ok(None),
        Some(b'\n') => Ok(Some(line)),
        Some(_) if line.len() as u64 == MAX_LINE_BYTES => Err(invalid(number, "it is too long")),
        Some(_) => Err(ManifestError::Truncated(number)),
    }
}

/// Entry point for fuzzing: any bytes are read to the end or refused, without panic and with bounded memory.
pub fn fuzz(bytes: &[u8]) {
    if let Ok(mut reader) = ManifestReader::new(bytes) {
        let proved = reader.verify_to_end().is_ok();
        assert_eq!(reader.stop().is_some(), proved, "a manifest without a good end must have no stop");
    }
}
