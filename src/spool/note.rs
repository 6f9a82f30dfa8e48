//! Notes that carry a value: a title, the hash of what comes behind it, and JSON. Written without a sync: torn or damaged, a note is
//! none.

use std::io;

use serde::Serialize;
use serde::de::DeserializeOwned;

/// The text of a note.
pub(super) fn encode(title: &str, value: &impl Serialize) -> io::Result<Vec<u8>> {
    let json = serde_json::to_vec(value)?;
    let mut bytes = format!("{title}{}\n", blake3::hash(&json).to_hex()).into_bytes();
    bytes.extend_from_slice(&json);
    Ok(bytes)
}

/// A note that is one line of many, without the line's end: JSON has none inside.
pub(super) fn encode_line(title: &str, value: &impl Serialize) -> io::Result<Vec<u8>> {
    let mut bytes = encode(title, value)?;
    bytes[title.len() + 64] = b' ';
    Ok(bytes)
}

/// Reads a line; `None` unless every byte of it is as it was written.
pub(super) fn decode_line<T: DeserializeOwned>(title: &str, line: &[u8]) -> Option<T> {
    let mut bytes = line.to_vec();
    let separator = bytes.get_mut(title.len() + 64).filter(|byte| **byte == b' ')?;
    *separator = b'\n';
    decode(title, &bytes)
}

/// Reads a note; `None` unless every byte of it is as it was written.
pub(super) fn decode<T: DeserializeOwned>(title: &str, bytes: &[u8]) -> Option<T> {
    let (hash, json) = bytes.strip_prefix(title.as_bytes())?.split_at_checked(64)?;
    let json = json.strip_prefix(b"\n")?;
    if blake3::hash(json).to_hex().as_bytes() != hash {
        return None;
    }
    serde_json::from_slice(json).ok()
}
