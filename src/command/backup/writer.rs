//! The end of the pipeline: chunks in the order of the stream into packs, files into manifest lines.

use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::sync::mpsc::{Receiver, SyncSender};

use super::BackupError;
use super::check::Arrived;
use super::own_manifest::OwnManifest;
use super::worker::{self, Content, Done, Frame};
use crate::catalog::{PackId, WalRange};
use crate::chunk::cut::{Cutter, Piece};
use crate::chunk::pack::{PackEntry, PackIndex};
use crate::chunk::{CHUNK_BYTES, ChunkContent, ChunkRef, EntryPath, PageSet, Place};
use crate::codec::Compression;
use crate::manifest::server::ServerFile;
use crate::manifest::server_merge::{ManifestMerge, MergedFile};
use crate::manifest::{
    BadPages, ConfigFile, Directory, FileEntry, MAX_CHUNKS_PER_LINE, ManifestLine, ManifestWriter, Symlink,
};
use crate::repository::ServerRepository;
use crate::storage::NewObject;

/// A pack is closed when it holds this much. Large enough that a request or an fsync for each is nothing, small enough that
/// one can be held in memory by whoever must.
const PACK_BYTES: u64 = 64 << 20;
/// A pack of very many small chunks is closed when its index holds this much.
const INDEX_BYTES: usize = 4 << 20;
/// Files with bad pages, and blocks of each, that are kept to be named.
const BAD_KEPT: usize = 1000;

/// What comes down the pipeline, in the order of the server's stream.
pub(super) enum Item {
    /// A directory.
    Directory(Directory),
    /// A tablespace's link.
    Symlink(Symlink),
    /// A file begins.
    Begin(FileKind),
    /// The file's next chunk, once a worker is done with it.
    Chunk(Receiver<Result<Done, BackupError>>),
    /// The file's next chunks, which the earlier backup has.
    Unchanged(Vec<ChunkRef>),
    /// The file is complete. What came in its place, if it is another one than the server sent.
    End(Option<Sent>),
    /// A line of the server's manifest, which has to be made that of the whole files.
    ManifestLine(Vec<u8>),
    /// The server's manifest tells of these files.
    Claims(Vec<ServerFile>),
    /// The server's manifest has told all.
    ClaimsEnd,
    /// All files have been written; the manifest that is made of them needs this WAL.
    OwnManifest(Vec<WalRange>),
    /// Says when all before it has been read and passed on.
    Reached(SyncSender<()>),
    /// Everything has been sent. A stream without this end has failed, and nothing more need be written.
    Finish,
}

/// A file as the server sent it, which stands for another one.
#[derive(Clone, Debug)]
pub(super) struct Sent {
    pub(super) path: EntryPath,
    pub(super) size: u64,
    pub(super) crc32c: u32,
}

impl Sent {
    /// Takes in the next bytes.
    pub(super) fn take(&mut self, bytes: &[u8]) {
        self.size += bytes.len() as u64;
        self.crc32c = crc32c::crc32c_append(self.crc32c, bytes);
    }
}

/// A file, and what is to be done with it.
pub(super) enum FileKind {
    /// Part of the data directory or a tablespace; the server's manifest must know it.
    Data(FileMeta),
    /// The server's manifest itself. Its size shows only at its end.
    ServerManifest,
    /// From outside the data directory: its path on the server, and why it is missing, if it is.
    Config(String, Option<String>),
}

/// What the stream says of a file before its content.
#[derive(Clone, Debug)]
pub(super) struct FileMeta {
    pub(super) path: EntryPath,
    pub(super) tablespace: Option<u32>,
    pub(super) mode: u32,
    pub(super) size: u64,
    pub(super) modified_at: i64,
}

/// A pack on its way to being durable.
pub(super) type Publish = (PackId, Box<dyn NewObject>);

/// What the writer leaves.
pub(super) struct Written {
    /// The manifest, without its end.
    pub(super) manifest: ManifestWriter<Box<dyn NewObject>>,
    /// Packs written.
    pub(super) packs: u32,
    /// Their bytes.
    pub(super) stored_bytes: u64,
    /// Bytes of frames in earlier backups' packs that chunks refer to, counted for each.
    pub(super) referenced_bytes: u64,
    /// The packs of earlier backups that chunks refer to: source and number.
    pub(super) referenced: BTreeSet<(u16, u32)>,
    /// Pages that look damaged.
    pub(super) suspects: Vec<BadPages>,
}

/// The writer's state between items.
pub(super) struct Writer<'a> {
    repository: &'a ServerRepository,
    publisher: SyncSender<Publish>,
    manifest: ManifestWriter<Box<dyn NewObject>>,
    arrived: Arrived,
    pack: Option<OpenPack>,
    next_pack: PackId,
    stored_bytes: u64,
    referenced_bytes: u64,
    referenced: BTreeSet<(u16, u32)>,
    file: Option<OpenFile>,
    suspects: Vec<BadPages>,
    compression: Compression,
    /// What files of an incremental backup have become, by the paths that the server's manifest has; the manifest's lines, rewritten;
    /// and what of them does not fill a chunk yet.
    merged: HashMap<String, MergedFile>,
    merge: ManifestMerge,
    cutter: Cutter,
    /// `backup_manifest`, where no server sends one.
    own: Option<OwnManifest>,
}

struct OpenPack {
    id: PackId,
    object: Box<dyn NewObject>,
    bytes: u64,
    index: PackIndex,
}

struct OpenFile {
    kind: FileKind,
    chunks: Vec<ChunkRef>,
    /// Where in the file the first of `chunks` belongs.
    from: u64,
    /// Bytes that have come.
    size: u64,
    crc32c: u32,
    bad_blocks: Vec<u32>,
}

impl<'a> Writer<'a> {
    pub(super) fn new(
        repository: &'a ServerRepository,
        first_pack: PackId,
        manifest: ManifestWriter<Box<dyn NewObject>>,
        publisher: SyncSender<Publish>,
        compression: Compression,
    ) -> Self {
        let (arrived, suspects) = (Arrived::default(), Vec::new());
        let next_pack = first_pack;
        Writer {
            repository,
            publisher,
            manifest,
            arrived,
            pack: None,
            next_pack,
            stored_bytes: 0,
            referenced_bytes: 0,
            referenced: BTreeSet::new(),
            file: None,
            suspects,
            compression,
            merged: HashMap::new(),
            merge: ManifestMerge::default(),
            cutter: Cutter::default(),
            own: None,
        }
    }

    /// No server sends a `backup_manifest`: it is to be made.
    pub(super) fn with_own_manifest(self, own: Option<OwnManifest>) -> Self {
        Writer { own, ..self }
    }

    /// Writes until the stream ends.
    pub(super) fn run(mut self, items: Receiver<Item>) -> Result<Written, BackupError> {
        for item in items {
            match item {
                Item::Directory(line) => self.line(ManifestLine::Directory(line))?,
                Item::Symlink(line) => self.line(ManifestLine::Symlink(line))?,
                Item::Begin(kind) => self.file = Some(OpenFile::new(kind)),
                Item::Chunk(done) => self.chunk(done.recv().map_err(|_| BackupError::Broken)??)?,
                Item::Unchanged(chunks) => self.unchanged(chunks)?,
                Item::End(sent) => self.end_of_file(sent)?,
                Item::ManifestLine(line) => self.manifest_line(&line)?,
                Item::Claims(claims) => claims.iter().try_for_each(|claim| self.arrived.compare(claim))?,
                Item::ClaimsEnd => self.arrived.finish()?,
                Item::OwnManifest(ranges) => self.own_manifest(&ranges)?,
                // Whoever waits for it no more has failed, and says so itself.
                Item::Reached(told) => drop(told.send(())),
                Item::Finish => {
                    self.close_pack()?;
                    let (packs, stored_bytes) = (self.next_pack.number, self.stored_bytes);
                    return Ok(Written {
                        manifest: self.manifest,
                        packs,
                        stored_bytes,
                        referenced_bytes: self.referenced_bytes,
                        referenced: self.referenced,
                        suspects: self.suspects,
                    });
                }
            }
        }
        Err(BackupError::Broken)
    }

    fn line(&mut self, line: ManifestLine) -> Result<(), BackupError> {
        let failed = |error| self.repository.manifest_failed(self.next_pack.backup, &error).into();
        self.manifest.write(line).map_err(failed)
    }

    fn chunk(&mut self, done: Done) -> Result<(), BackupError> {
        let Done { raw_length, crc32c, bad_blocks, content } = done;
        let content = self.place(content)?;
        let file = self.file.as_mut().ok_or(BackupError::Broken)?;
        file.crc32c = crc32c::crc32c_combine(file.crc32c, crc32c, raw_length as usize);
        file.size += u64::from(raw_length);
        file.chunks.push(chunk_ref(raw_length, crc32c, content));
        file.bad_blocks.extend(bad_blocks);
        if file.chunks.len() == MAX_CHUNKS_PER_LINE { self.part_of_file() } else { Ok(()) }
    }

    /// Puts what is new of a chunk into a pack.
    fn place(&mut self, content: Content) -> Result<ChunkContent, BackupError> {
        let content = match content {
            Content::Zero => ChunkContent::Zero,
            Content::Anew(frame) => {
                ChunkContent::Stored { id: frame.id, base: self.store(&frame, false)?, sets: Vec::new() }
            }
            Content::Same(ChunkRef { content, .. }) => content,
            Content::Pages { id, base, keep: mut sets, pages, frame } => {
                sets.push(PageSet { place: self.store(&frame, true)?, pages });
                ChunkContent::Stored { id, base, sets }
            }
        };
        self.refer(&content);
        Ok(content)
    }

    /// Stores pieces of the manifest that is being made.
    fn store_own(&mut self, pieces: Vec<Piece>) -> Result<(), BackupError> {
        for piece in pieces {
            let Done { raw_length, crc32c, content, .. } = worker::anew(&piece.raw, self.compression)?;
            let content = self.place(content)?;
            self.own.as_mut().ok_or(BackupError::Broken)?.stored(chunk_ref(raw_length, crc32c, content));
        }
        Ok(())
    }

    fn own_manifest(&mut self, ranges: &[WalRange]) -> Result<(), BackupError> {
        let pieces = self.own.as_mut().ok_or(BackupError::Broken)?.finish(ranges);
        self.store_own(pieces)?;
        let own = self.own.take().ok_or(BackupError::Broken)?;
        self.line(ManifestLine::File(own.entry()?))
    }

    /// Counts what a chunk refers to in packs of other backups.
    fn refer(&mut self, content: &ChunkContent) {
        for place in content.places().filter(|place| place.source > 0) {
            self.referenced_bytes += u64::from(place.length);
            self.referenced.insert((place.source, place.pack));
        }
    }

    /// The open file goes on with these chunks, whose checksums are known.
    fn unchanged(&mut self, chunks: Vec<ChunkRef>) -> Result<(), BackupError> {
        for chunk in chunks {
            self.refer(&chunk.content);
            let file = self.file.as_mut().ok_or(BackupError::Broken)?;
            let crc32c = chunk.checksum().ok_or(BackupError::Broken)?;
            file.crc32c = crc32c::crc32c_combine(file.crc32c, crc32c, chunk.raw_length as usize);
            file.size += u64::from(chunk.raw_length);
            file.chunks.push(chunk);
            if file.chunks.len() == MAX_CHUNKS_PER_LINE {
                self.part_of_file()?;
            }
        }
        Ok(())
    }

    /// A line of the server's manifest of an incremental backup.
    fn manifest_line(&mut self, line: &[u8]) -> Result<(), BackupError> {
        let merged = &self.merged;
        let line = self.merge.line(line, |path| merged.get(path).cloned());
        let mut line = line.as_slice();
        while !line.is_empty() {
            if let Some(piece) = self.cutter.push(&mut line) {
                self.chunk(worker::anew(&piece.raw, self.compression)?)?;
            }
        }
        Ok(())
    }

    /// Writes a line for the chunks gathered so far, unless they are the file's last.
    fn part_of_file(&mut self) -> Result<(), BackupError> {
        let Some(file) = self.file.as_mut() else { return Ok(()) };
        match &file.kind {
            FileKind::Data(meta) if file.size < meta.size => {
                let chunks = std::mem::take(&mut file.chunks);
                let line = entry(meta, file.from, chunks, None);
                file.from = file.size;
                self.line(ManifestLine::File(line))
            }
            FileKind::Data(_) => Ok(()),
            FileKind::ServerManifest | FileKind::Config(..) => Err(BackupError::ManifestTooLarge),
        }
    }

    fn end_of_file(&mut self, sent: Option<Sent>) -> Result<(), BackupError> {
        if let Some(piece) = self.cutter.finish() {
            self.chunk(worker::anew(&piece.raw, self.compression)?)?;
        }
        let file = self.file.take().ok_or(BackupError::Broken)?;
        let OpenFile { kind, chunks, from, size, crc32c, bad_blocks } = file;
        match kind {
            FileKind::Data(meta) => {
                match sent {
                    None => self.arrived.note(meta.path.as_bytes(), meta.tablespace, size, crc32c),
                    Some(sent) => {
                        self.arrived.note(sent.path.as_bytes(), meta.tablespace, sent.size, sent.crc32c);
                        let merged = MergedFile { path: known_as(&meta.path, meta.tablespace), size, crc32c };
                        self.merged.insert(known_as(&sent.path, meta.tablespace), merged);
                    }
                }
                if let Some(own) = &mut self.own {
                    let pieces = own.file(&meta, size, crc32c);
                    self.store_own(pieces)?;
                }
                self.line(ManifestLine::File(entry(&meta, from, chunks, Some(crc32c))))?;
                if !bad_blocks.is_empty() && self.suspects.len() < BAD_KEPT {
                    let blocks = bad_blocks.into_iter().take(BAD_KEPT).collect();
                    self.suspects.push(BadPages { path: meta.path, tablespace: meta.tablespace, blocks });
                }
                Ok(())
            }
            FileKind::ServerManifest => {
                let path = EntryPath::new(b"backup_manifest").map_err(|_| BackupError::Broken)?;
                let meta = FileMeta { path, tablespace: None, mode: 0o600, size, modified_at: 0 };
                self.line(ManifestLine::File(entry(&meta, 0, chunks, Some(crc32c))))
            }
            FileKind::Config(source, missing) => {
                self.line(ManifestLine::Config(ConfigFile { source, size, chunks, missing }))
            }
        }
    }

    /// Puts a frame into the open pack.
    fn store(&mut self, frame: &Frame, page_set: bool) -> Result<Place, BackupError> {
        let pack = match &mut self.pack {
            Some(pack) => pack,
            none => {
                let id = self.next_pack;
                let object = self.repository.create_pack(id)?;
                none.insert(OpenPack { id, object, bytes: 0, index: PackIndex::default() })
            }
        };
        write(self.repository, pack, &frame.stored)?;
        // A frame is hardly longer than a chunk.
        let stored_length = frame.stored.len() as u32;
        let offset = pack.bytes - u64::from(stored_length);
        pack.index.push(&PackEntry {
            id: frame.id,
            offset,
            stored_length,
            raw_length: frame.raw_length,
            page_set,
            pages: frame.pages.clone(),
        });
        let place = Place { source: 0, pack: pack.id.number, offset, length: stored_length };
        if pack.bytes + CHUNK_BYTES as u64 > PACK_BYTES || pack.index.bytes() > INDEX_BYTES {
            self.close_pack()?;
        }
        Ok(place)
    }

    /// Ends the open pack and hands it over to be made durable.
    fn close_pack(&mut self) -> Result<(), BackupError> {
        let Some(mut pack) = self.pack.take() else { return Ok(()) };
        let end = pack.index.finish(pack.id, self.repository.system_identifier());
        let end = end.map_err(|source| BackupError::Local { action: "write the index of a pack", source })?;
        write(self.repository, &mut pack, &end)?;
        self.stored_bytes += pack.bytes;
        self.next_pack.number += 1;
        self.publisher.send((pack.id, pack.object)).map_err(|_| BackupError::Broken)
    }
}

impl OpenFile {
    fn new(kind: FileKind) -> Self {
        OpenFile { kind, chunks: Vec::new(), from: 0, size: 0, crc32c: 0, bad_blocks: Vec::new() }
    }
}

/// The last line of a file in the manifest, or one of those before.
pub(super) fn entry(meta: &FileMeta, from: u64, chunks: Vec<ChunkRef>, crc32c: Option<u32>) -> FileEntry {
    FileEntry {
        path: meta.path.clone(),
        tablespace: meta.tablespace,
        mode: meta.mode,
        size: meta.size,
        modified_at: meta.modified_at,
        from,
        chunks,
        crc32c: crc32c.map(|crc| format!("{crc:08x}")),
    }
}

/// The name that the server's manifest has for a file.
fn known_as(path: &EntryPath, tablespace: Option<u32>) -> String {
    match tablespace {
        Some(oid) => format!("pg_tblspc/{oid}/{path}"),
        None => path.to_string(),
    }
}

fn write(repository: &ServerRepository, pack: &mut OpenPack, bytes: &[u8]) -> Result<(), BackupError> {
    pack.object.write_all(bytes).map_err(|error| repository.pack_failed(pack.id, &error))?;
    pack.bytes += bytes.len() as u64;
    Ok(())
}

/// A chunk as the manifest names it.
fn chunk_ref(raw_length: u32, crc32c: u32, content: ChunkContent) -> ChunkRef {
    let crc32c = Some(crc32c).filter(|_| content != ChunkContent::Zero);
    ChunkRef { raw_length, crc32c, content }
}
