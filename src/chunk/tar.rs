//! The tar stream of `BASE_BACKUP`: bytes pushed in, entries and their data out.
//!
//! Layer 2: pure, bounded (512 bytes of state), no copy of file data. It reads what PostgreSQL writes (`tarCreateHeader`
//! in `src/port/tar.c`: POSIX ustar without a name prefix, sizes of 8 GiB and more in base-256, `2` for links of
//! tablespaces) and refuses everything else, since the server is the only author and another type of entry would be a
//! fault or an attack. Servers before 15 leave out the zero blocks at the end, so the end of the stream between two
//! entries is a good end.
//!
//! ```
//! use pitr::chunk::tar::{TarEvent, TarParser};
//!
//! let mut parser = TarParser::new();
//! let mut input: &[u8] = &[0; 1024]; // An archive without entries.
//! while let Some(event) = parser.next(&mut input)? {
//!     match event {
//!         TarEvent::Entry(entry) => println!("{} of {} bytes", entry.path, entry.size_bytes),
//!         TarEvent::Data(bytes) => println!("{} bytes more", bytes.len()),
//!         TarEvent::End => println!("that entry is complete"),
//!     }
//! }
//! parser.finish()?;
//! # Ok::<(), pitr::chunk::tar::TarError>(())
//! ```

use super::{EntryPath, PathError};

/// Bytes in a header, and what entries are padded to.
const BLOCK: usize = 512;

/// The largest size taken for a file: what a signed 64-bit length can say with padding.
const MAX_SIZE: u64 = i64::MAX as u64 - BLOCK as u64;

/// What a tar stream holds next.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TarEvent<'a> {
    /// An entry begins.
    Entry(TarEntry),
    /// Bytes of the entry's content, as many as the input held; never empty.
    Data(&'a [u8]),
    /// The entry's content is complete. Comes for every entry, also for one without content.
    End,
}

/// One entry of the archive.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct TarEntry {
    /// Its name, a leading `./` and a trailing `/` left off.
    pub path: EntryPath,
    /// What it is.
    pub kind: TarKind,
    /// Permission bits, 0 to 0o7777.
    pub mode: u32,
    /// Bytes of content; 0 for anything but a file.
    pub size_bytes: u64,
    /// Last modification, in seconds since the Unix epoch.
    pub modified_at: i64,
}

/// The types of entry that a server sends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum TarKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (of a tablespace) and where it points, as given: usually absolute, not checked.
    Symlink(Vec<u8>),
}

/// A stream that is not the tar of a PostgreSQL server.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum TarError {
    /// The sum over a header's bytes is not the one it carries.
    #[error("a header's checksum does not match")]
    Checksum,
    /// Not a ustar header.
    #[error("a header is not in ustar format")]
    Magic,
    /// A number field holds something else.
    #[error("the {0} in a header is not a number in range")]
    Number(&'static str),
    /// An absolute name, one with `..`, and so on.
    #[error(transparent)]
    Path(#[from] PathError),
    /// An entry of a type that a server never sends.
    #[error("\"{path}\" has the entry type {kind:?}, which a server does not send")]
    Kind {
        /// The entry.
        path: EntryPath,
        /// The type flag.
        kind: char,
    },
    /// A directory or link with content.
    #[error("\"{0}\" is no file but has content")]
    Content(EntryPath),
    /// Something other than zero blocks after the end mark.
    #[error("there is data after the end of the archive")]
    AfterEnd,
    /// The stream ends inside an entry.
    #[error("the stream ends inside an entry")]
    Truncated,
}

/// What the parser waits for.
#[derive(Debug)]
enum State {
    /// A header, of which so many bytes are in the buffer.
    Header { filled: usize },
    /// Content, then so many bytes of padding.
    Content { left: u64, padding: usize },
    /// The end of an entry must be told.
    Ending { padding: usize },
    /// Bytes to pass over before the next header.
    Padding { left: usize },
    /// After a zero block: nothing but zero bytes may follow.
    AtEnd,
}

/// Parser of one tar archive; see the module's example.
#[derive(Debug)]
pub struct TarParser {
    state: State,
    header: [u8; BLOCK],
}

impl Default for TarParser {
    fn default() -> Self {
        Self::new()
    }
}

impl TarParser {
    /// A parser at the beginning of an archive.
    #[must_use]
    pub fn new() -> Self {
        TarParser { state: State::Header { filled: 0 }, header: [0; BLOCK] }
    }

    /// Takes bytes off the front of `input` until something can be told; `None` when more input is needed.
    ///
    /// # Errors
    /// Anything that a server does not send. The parser must not be used after an error.
    pub fn next<'a>(&mut self, input: &mut &'a [u8]) -> Result<Option<TarEvent<'a>>, TarError> {
        loop {
            match &mut self.state {
                State::Header { filled } => {
                    let taken = take(input, BLOCK - *filled);
                    self.header[*filled..*filled + taken.len()].copy_from_slice(taken);
                    *filled += taken.len();
                    if *filled < BLOCK {
                        return Ok(None);
                    }
                    if self.header.iter().all(|&b| b == 0) {
                        self.state = State::AtEnd;
                        continue;
                    }
                    let entry = parse_header(&self.header)?;
                    let padding = (entry.size_bytes.wrapping_neg() % BLOCK as u64) as usize;
                    self.state = State::Content { left: entry.size_bytes, padding };
                    return Ok(Some(TarEvent::Entry(entry)));
                }
                State::Content { left: 0, padding } => self.state = State::Ending { padding: *padding },
                State::Content { left, .. } => {
                    let most = usize::try_from(*left).unwrap_or(usize::MAX);
                    let data = take(input, most);
                    *left -= data.len() as u64;
                    return Ok((!data.is_empty()).then_some(TarEvent::Data(data)));
                }
                State::Ending { padding } => {
                    self.state = State::Padding { left: *padding };
                    return Ok(Some(TarEvent::End));
                }
                State::Padding { left: 0 } => self.state = State::Header { filled: 0 },
                State::Padding { left } => {
                    let skipped = take(input, *left).len();
                    *left -= skipped;
                    if skipped == 0 {
                        return Ok(None);
                    }
                }
                State::AtEnd => {
                    return if take(input, usize::MAX).iter().all(|&b| b == 0) {
                        Ok(None)
                    } else {
                        Err(TarError::AfterEnd)
                    };
                }
            }
        }
    }

    /// Makes sure that the archive ended between two entries.
    ///
    /// # Errors
    /// [`TarError::Truncated`].
    pub fn finish(&self) -> Result<(), TarError> {
        match self.state {
            State::Header { filled: 0 } | State::Padding { left: 0 } | State::AtEnd => Ok(()),
            _ => Err(TarError::Truncated),
        }
    }
}

/// Takes at most `most` bytes off the front.
fn take<'a>(input: &mut &'a [u8], most: usize) -> &'a [u8] {
    let (taken, rest) = input.split_at(most.min(input.len()));
    *input = rest;
    taken
}

fn parse_header(header: &[u8; BLOCK]) -> Result<TarEntry, TarError> {
    if number(&header[148..156], "checksum")? != checksum(header) {
        return Err(TarError::Checksum);
    }
    if &header[257..263] != b"ustar\0" {
        return Err(TarError::Magic);
    }
    let path = entry_path(until_nul(&header[..100]), until_nul(&header[345..500]))?;
    let kind = match header[156] {
        b'0' | 0 => TarKind::File,
        b'5' => TarKind::Directory,
        b'2' => TarKind::Symlink(until_nul(&header[157..257]).to_vec()),
        other => return Err(TarError::Kind { path, kind: char::from(other) }),
    };
    let size_bytes = number(&header[124..136], "size")?;
    if size_bytes > MAX_SIZE {
        return Err(TarError::Number("size"));
    }
    if size_bytes > 0 && kind != TarKind::File {
        return Err(TarError::Content(path));
    }
    let mode = number(&header[100..108], "mode")?;
    let mode = u32::try_from(mode).ok().filter(|&mode| mode <= 0o7777).ok_or(TarError::Number("mode"))?;
    let modified_at = i64::try_from(number(&header[136..148], "time")?).map_err(|_| TarError::Number("time"))?;
    Ok(TarEntry { path, kind, mode, size_bytes, modified_at })
}

/// The name without the `./` that the server puts before `pg_wal/archive_status` and the `/` after directories and links.
fn entry_path(name: &[u8], prefix: &[u8]) -> Result<EntryPath, TarError> {
    if !prefix.is_empty() {
        return Err(PathError([prefix, b"/", name].concat()).into());
    }
    let name = name.strip_prefix(b"./").unwrap_or(name);
    Ok(EntryPath::new(name.strip_suffix(b"/").unwrap_or(name))?)
}

fn until_nul(field: &[u8]) -> &[u8] {
    field.split(|&b| b == 0).next().unwrap_or(field)
}

/// Sum of the header's bytes, the checksum's own taken as spaces (`tarChecksum`).
fn checksum(header: &[u8; BLOCK]) -> u64 {
    let sum = |bytes: &[u8]| bytes.iter().map(|&b| u64::from(b)).sum::<u64>();
    sum(&header[..148]) + 8 * u64::from(b' ') + sum(&header[156..])
}

/// An octal number with blanks or NULs around it, or a big-endian one where the first bit is set (`read_tar_number`).
fn number(field: &[u8], what: &'static str) -> Result<u64, TarError> {
    let wrong = || TarError::Number(what);
    if field[0] & 0x80 != 0 {
        if field[0] != 0x80 {
            return Err(wrong());
        }
        return field[1..]
            .iter()
            .try_fold(0u64, |value, &b| Some(value.checked_mul(256)? + u64::from(b)))
            .ok_or_else(wrong);
    }
    let blank = |b: &u8| *b == b' ' || *b == 0;
    let start = field.iter().position(|b| !blank(b)).ok_or_else(wrong)?;
    let digits = field[start..].split(blank).next().unwrap_or_default();
    if !field[start + digits.len()..].iter().all(blank) {
        return Err(wrong());
    }
    let octal = |value: u64, b: &u8| matches!(b, b'0'..=b'7').then(|| value * 8 + u64::from(b - b'0'));
    digits.iter().try_fold(0u64, octal).ok_or_else(wrong)
}

/// Entry point for fuzzing: parses `bytes` in pieces of the size that their first byte gives, and checks what must hold for
/// any input: data never exceeds the size told, and every entry ends before the next begins.
pub fn fuzz(bytes: &[u8]) {
    let piece = usize::from(bytes.first().copied().unwrap_or(0)) + 1;
    let mut parser = TarParser::new();
    let mut open: Option<u64> = None;
    for mut input in bytes.get(1..).unwrap_or_default().chunks(piece) {
        loop {
            match parser.next(&mut input) {
                Ok(Some(TarEvent::Entry(entry))) => {
                    assert!(open.replace(entry.size_bytes).is_none(), "an entry began inside another");
                }
                Ok(Some(TarEvent::Data(data))) => {
                    let left = open.as_mut().and_then(|left| left.checked_sub(data.len() as u64));
                    assert!(left.is_some() && !data.is_empty(), "data without an entry, or too much of it");
                    open = left;
                }
                Ok(Some(TarEvent::End)) => assert_eq!(open.take(), Some(0), "an entry ended early"),
                Ok(None) => break,
                Err(_) => return,
            }
        }
        assert!(input.is_empty(), "input was left over");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A header as `tarCreateHeader` lays it out.
    fn header(name: &[u8], kind: u8, size: u64, link: &[u8]) -> [u8; BLOCK] {
        let mut block = [0; BLOCK];
        block[..name.len()].copy_from_slice(name);
        block[100..108].copy_from_slice(b"0000600 ");
        block[108..116].copy_from_slice(b"0000145 ");
        block[116..124].copy_from_slice(b"0000145 ");
        if size < 1 << 33 {
            block[124..136].copy_from_slice(format!("{size:011o} ").as_bytes());
        } else {
            block[124] = 0x80;
            block[128..136].copy_from_slice(&size.to_be_bytes());
        }
        block[136..148].copy_from_slice(b"15061432360 ");
        block[156] = kind;
        block[157..157 + link.len()].copy_from_slice(link);
        block[257..265].copy_from_slice(b"ustar\x0000");
        seal(&mut block);
        block
    }

    fn seal(block: &mut [u8; BLOCK]) {
        let sum = checksum(block);
        block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    }

    /// Everything a parser tells, data joined; input in pieces of `piece` bytes.
    fn parse(bytes: &[u8], piece: usize) -> Result<Vec<(TarEntry, Vec<u8>)>, TarError> {
        let mut parser = TarParser::new();
        let mut entries = Vec::new();
        for mut input in bytes.chunks(piece) {
            while let Some(event) = parser.next(&mut input)? {
                match event {
                    TarEvent::Entry(entry) => entries.push((entry, Vec::new())),
                    TarEvent::Data(data) => entries.last_mut().expect("an entry is open").1.extend_from_slice(data),
                    TarEvent::End => {}
                }
            }
        }
        parser.finish().map(|()| entries)
    }

    fn archive() -> Vec<u8> {
        let mut bytes = Vec::new();
        bytes.extend(header(b"backup_label", b'0', 700, b""));
        bytes.extend([b'x'; 700]);
        bytes.extend([0; 324]);
        bytes.extend(header(b"./pg_wal/archive_status/", b'5', 0, b""));
        bytes.extend(header(b"pg_tblspc/16384/", b'2', 0, b"/srv/ts"));
        bytes.extend(header(b"empty", b'0', 0, b""));
        bytes
    }

    /// The same entries come out however the stream is cut into messages, with and without zero blocks at the end
    /// (13 and 14 leave them out).
    #[test]
    fn entries_in_any_pieces() {
        for end in [0, 1024] {
            let bytes = [archive(), vec![0; end]].concat();
            for piece in [1, 7, 511, 512, 513, 4096] {
                let entries = parse(&bytes, piece).expect("a good archive");
                let names: Vec<String> = entries.iter().map(|(entry, _)| entry.path.to_string()).collect();
                assert_eq!(names, ["backup_label", "pg_wal/archive_status", "pg_tblspc/16384", "empty"]);
                assert_eq!(entries[0].1, [b'x'; 700]);
                assert_eq!((entries[0].0.mode, entries[0].0.modified_at), (0o600, 0o15061432360));
                assert_eq!(entries[2].0.kind, TarKind::Symlink(b"/srv/ts".to_vec()));
            }
        }
    }

    /// Files over 8 GiB come with base-256 sizes.
    #[test]
    fn sizes_in_base_256() {
        let block = header(b"core", b'0', 3 << 33, b"");
        let mut input = &block[..];
        let event = TarParser::new().next(&mut input).expect("a good header");
        assert!(matches!(event, Some(TarEvent::Entry(entry)) if entry.size_bytes == 3 << 33));
        let block = header(b"core", b'0', u64::MAX, b"");
        assert_eq!(TarParser::new().next(&mut &block[..]), Err(TarError::Number("size")));
    }

    /// Names that lead out of the directory never reach the backup.
    #[test]
    fn hostile_names() {
        for name in [&b"/etc/passwd"[..], b"../x", b"a/../../x", b"", b"./", b"a//b"] {
            assert!(
                matches!(parse(&header(name, b'0', 0, b""), 512), Err(TarError::Path(_))),
                "{}",
                name.escape_ascii()
            );
        }
        let mut prefixed = header(b"x", b'0', 0, b"");
        prefixed[345..347].copy_from_slice(b"..");
        seal(&mut prefixed);
        assert!(matches!(parse(&prefixed, 512), Err(TarError::Path(_))));
    }

    /// Devices, long names and content behind links are not what a server sends.
    #[test]
    fn foreign_entries() {
        for kind in [b'1', b'3', b'x', b'L', b'g'] {
            assert!(matches!(parse(&header(b"x", kind, 0, b""), 512), Err(TarError::Kind { .. })));
        }
        assert!(matches!(parse(&header(b"x", b'2', 5, b"y"), 512), Err(TarError::Content(_))));
        let mut no_magic = header(b"x", b'0', 0, b"");
        no_magic[257] = b'U';
        seal(&mut no_magic);
        assert_eq!(parse(&no_magic, 512), Err(TarError::Magic));
    }

    /// Any flipped bit of a header is noticed (an ASCII sum catches every single one), any cut inside an entry too.
    #[test]
    fn damage_is_noticed() {
        let good = archive();
        for bit in 0..BLOCK * 8 {
            let mut bytes = good.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            // Blanks and terminators of the checksum field itself carry nothing.
            let entries = parse(&bytes, 4096);
            assert!(entries.is_err() || entries == parse(&good, 4096), "bit {bit}");
        }
        for length in 0..good.len() {
            let whole = [0, 512 + 1024, 512 + 1536, 512 + 2048, 1212 + 324];
            let result = parse(&good[..length], 4096);
            assert_eq!(result.is_ok(), whole.contains(&length), "{length}");
        }
        let behind = [archive(), vec![0; 512], header(b"x", b'0', 0, b"").to_vec()].concat();
        assert_eq!(parse(&behind, 4096), Err(TarError::AfterEnd));
    }

    proptest::proptest! {
        /// No input whatever makes the parser panic or tell something impossible.
        #[test]
        fn any_input(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..3000), flips in proptest::collection::vec((0usize..2600, 0u8..8), 0..4)) {
            fuzz(&bytes);
            let mut near = [vec![200], archive()].concat();
            for (at, bit) in flips {
                if let Some(byte) = near.get_mut(at) { *byte ^= 1 << bit; }
            }
            fuzz(&near);
        }
    }
}
