//! Records of any content, laid out as a server would: with their lengths, links, page headers and checksums right, so that
//! mutations reach all who read records. The input is the major, then for each record its resource manager, its info byte, two
//! bytes of transaction, two of length, and its body.

#![no_main]

use everything::Everything;
use pitr::wal::{Completeness, SegmentName, SegmentScanner, WAL_PAGE_SIZE, check_segment_header};

#[path = "../everything.rs"]
mod everything;

/// Page magics of 13 to 18.
const MAGICS: [u16; 6] = [0xD106, 0xD10D, 0xD110, 0xD113, 0xD116, 0xD118];
const SEGMENT: u32 = 1 << 20;
/// The segment begins here.
const START: u64 = SEGMENT as u64;
const HEADER: usize = 24;

libfuzzer_sys::fuzz_target!(|input: &[u8]| {
    let Some((major, rest)) = input.split_first() else { return };
    let mut wal = Wal { magic: MAGICS[usize::from(*major) % MAGICS.len()], bytes: Vec::new(), previous: 0 };
    let written = wal.records(rest);
    wal.bytes.resize(wal.bytes.len().next_multiple_of(WAL_PAGE_SIZE).min(SEGMENT as usize), 0);
    let Ok(name) = "000000010000000000000001".parse::<SegmentName>() else { unreachable!("a good name") };
    if wal.bytes.is_empty() {
        return;
    }
    let header = check_segment_header(&wal.bytes, name, u64::from(SEGMENT)).expect("the header is right");
    let mut everything = Everything::new(header.major);
    let mut scanner = SegmentScanner::new(&header, Completeness::MayEnd);
    scanner.feed_to(&wal.bytes, &mut everything);
    everything.finish();
    assert_eq!(everything.records, written, "every record that was written is seen");
    assert_eq!(scanner.finish().damage, None);
});

/// WAL as a server writes it.
struct Wal {
    magic: u16,
    bytes: Vec<u8>,
    /// Where the last record begins.
    previous: u64,
}

impl Wal {
    /// Writes records until the input, or the segment, is at its end or switched. Returns how many.
    fn records(&mut self, mut input: &[u8]) -> usize {
        let mut written = 0;
        while let Some((head, rest)) = input.split_first_chunk::<6>() {
            let [manager, info, xid_low, xid_high, low, high] = *head;
            let length = usize::from(u16::from_le_bytes([low, high])).min(rest.len());
            let (body, rest) = rest.split_at(length);
            input = rest;
            // A segment and a record's room more than the largest record needs.
            if self.bytes.len() + length + 4 * HEADER + length / 100 > SEGMENT as usize {
                break;
            }
            let manager = if manager >= 128 && self.magic >= MAGICS[2] { manager } else { manager % 22 };
            self.record(manager, info, [xid_low, xid_high, 0, 0], body);
            written += 1;
            if manager == 0 && info & 0xF0 == 0x40 {
                break;
            }
        }
        written
    }

    fn record(&mut self, manager: u8, info: u8, xid: [u8; 4], body: &[u8]) {
        let length = u32::try_from(HEADER + body.len()).expect("less than a segment");
        let mut record = [length.to_le_bytes(), xid].concat();
        record.extend(self.previous.to_le_bytes());
        record.extend([info, manager, 0, 0]);
        let crc = crc32c::crc32c_append(crc32c::crc32c(body), &record);
        record.extend(crc.to_le_bytes());
        record.extend(body);
        self.bytes.resize(self.bytes.len().next_multiple_of(8), 0);
        let mut rest = &record[..];
        while !rest.is_empty() {
            if self.bytes.len().is_multiple_of(WAL_PAGE_SIZE) {
                let lacks = if rest.len() == record.len() { 0 } else { rest.len() };
                self.page_header(lacks);
            }
            if rest.len() == record.len() {
                self.previous = START + self.bytes.len() as u64;
            }
            let room = WAL_PAGE_SIZE - self.bytes.len() % WAL_PAGE_SIZE;
            let (part, further) = rest.split_at(room.min(rest.len()));
            self.bytes.extend(part);
            rest = further;
        }
    }

    /// `lacks`: bytes that are still to come of the record that goes on.
    fn page_header(&mut self, lacks: usize) {
        let first = self.bytes.is_empty();
        let flags = u16::from(lacks > 0) | u16::from(first) << 1;
        let address = START + self.bytes.len() as u64;
        self.bytes.extend([self.magic.to_le_bytes(), flags.to_le_bytes()].concat());
        self.bytes.extend(1_u32.to_le_bytes());
        self.bytes.extend(address.to_le_bytes());
        self.bytes.extend((lacks as u64).to_le_bytes());
        if first {
            self.bytes.extend(7_u64.to_le_bytes());
            self.bytes.extend([SEGMENT.to_le_bytes(), 8192_u32.to_le_bytes()].concat());
        }
    }
}
