//! Writing a manifest as a stream.

use std::io::{self, Write};

use lz4_flex::frame::{FrameEncoder, FrameInfo};
use sha2::{Digest, Sha256};

use super::types::Line;
use super::{ManifestEnd, ManifestHeader, ManifestLine, ManifestStop};
use crate::chunk::to_hex;

/// Writes a manifest line by line to `W`, compressed.
pub struct ManifestWriter<W: Write> {
    encoder: FrameEncoder<W>,
    checksum: Sha256,
    end: ManifestEnd,
    line: Vec<u8>,
}

impl<W: Write> ManifestWriter<W> {
    /// Begins a manifest.
    ///
    /// # Errors
    /// What `output` reports.
    pub fn new(output: W, header: ManifestHeader) -> io::Result<Self> {
        let info = FrameInfo::new().content_checksum(true);
        let encoder = FrameEncoder::with_frame_info(info, output);
        let mut writer =
            ManifestWriter { encoder, checksum: Sha256::new(), end: ManifestEnd::default(), line: Vec::new() };
        writer.put(&Line::Header(header))?;
        Ok(writer)
    }

    /// Adds a line.
    ///
    /// # Errors
    /// What the output reports.
    pub fn write(&mut self, line: ManifestLine) -> io::Result<()> {
        self.put(&match line {
            ManifestLine::Directory(line) => Line::Directory(line),
            ManifestLine::Symlink(line) => Line::Symlink(line),
            ManifestLine::File(line) => Line::File(line),
            ManifestLine::Config(line) => Line::Config(line),
        })
    }

    /// Ends the manifest; what comes back still has to be published. Also tells the counts that were written.
    ///
    /// # Errors
    /// What the output reports.
    pub fn finish(mut self, stop: ManifestStop) -> io::Result<(W, ManifestEnd)> {
        self.put(&Line::Stop(stop))?;
        let sha256 = to_hex(&std::mem::take(&mut self.checksum).finalize());
        let end = ManifestEnd { sha256, ..std::mem::take(&mut self.end) };
        self.put(&Line::End(end.clone()))?;
        Ok((self.encoder.finish()?, end))
    }

    fn put(&mut self, line: &Line) -> io::Result<()> {
        self.line.clear();
        serde_json::to_writer(&mut self.line, line)?;
        self.line.push(b'\n');
        self.checksum.update(&self.line);
        self.end.count(line);
        self.encoder.write_all(&self.line)
    }
}
