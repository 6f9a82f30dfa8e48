//! The border between two neighbouring segments of a timeline: does the later one go on where the earlier one ends?
//!
//! What a scan finds inside a segment proves the segment alone. [`Border`] is what a segment leaves for the one behind it,
//! small enough to be handed from one archiving call to the next: the beginning of the record that straddles the border,
//! and where the last record begins, which the next one must name as the one before it.
//!
//! Not everything that does not fit is damage. A server that was set back to an earlier state writes other WAL under the
//! same names, and `pg_resetwal` begins anew; all of its records hold, and none of them was hurt. So a mismatch comes
//! with the answer to another question: is the later segment evidently of the same history as the earlier one? Its records
//! tell: they name the record before them (`xl_prev`), and their checksums cover that.

use serde::{Deserialize, Serialize};

use super::{
    Borders, Damage, Event, Flaw, HeadPiece, Joined, Lsn, SegmentEnding, SegmentFacts, SegmentHeader, SegmentName,
    TailPiece,
};

/// What a segment leaves for the next one of its timeline.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct Border {
    /// The segment.
    segment: SegmentName,
    /// The pieces of a record that straddles its end, if they are known.
    pieces: Borders,
    /// Where the last record begins that ends in it.
    last_record: Option<Lsn>,
    /// Where that one ends.
    end: Lsn,
    ending: SegmentEnding,
}

/// Whether a segment goes on where the one before it ends.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Continuity {
    /// It does: the record over the border holds, and the next one follows it.
    Proved {
        /// What happened in the record over the border, if it is one of interest.
        event: Option<Event>,
    },
    /// That cannot be told: nothing is known of the segment before, or no record begins or ends behind the border.
    NotProved,
    /// Both are whole, and they are not neighbours: the server was set back, or its WAL was reset.
    OtherHistory,
    /// The two do not fit together.
    Broken {
        /// Where: everything before it was found good. It may lie in the segment before.
        damage: Damage,
        /// The later segment is evidently of the same history as the earlier one: one of them was damaged.
        same_history: bool,
    },
}

impl Border {
    /// The segment that it belongs to.
    #[must_use]
    pub fn segment(&self) -> SegmentName {
        self.segment
    }

    /// Takes the segment behind this border: how it continues `before`, and what it leaves itself. `before` counts only if it is
    /// the border of the segment before on the same timeline.
    #[must_use]
    pub fn pass(
        before: Option<&Border>,
        header: &SegmentHeader,
        facts: &SegmentFacts,
        head: Option<&HeadPiece>,
        tail: Option<&TailPiece>,
    ) -> (Continuity, Border) {
        let before = before.filter(|before| before.precedes(header));
        let mut pieces = before.map_or_else(Borders::new, |before| before.pieces.clone());
        let straddling = pieces.open_record();
        let joined = pieces.pass(head.cloned(), tail.cloned(), header.major);
        let last_record = facts.last_record.or(match joined {
            Joined::Proved { .. } => straddling,
            _ => None,
        });
        let continuity = before.map_or(Continuity::NotProved, |before| before.judge(joined, straddling, facts));
        let border = Border { segment: header.name, pieces, last_record, end: facts.end, ending: facts.ending };
        (continuity, border)
    }

    fn precedes(&self, header: &SegmentHeader) -> bool {
        let (ours, theirs) = (self.segment.number(header.segment_size), header.name.number(header.segment_size));
        let follows = ours.is_ok_and(|number| theirs.is_ok_and(|next| next == number.next()));
        follows && self.segment.timeline() == header.name.timeline()
    }

    fn judge(&self, joined: Joined, straddling: Option<Lsn>, facts: &SegmentFacts) -> Continuity {
        let named = facts.before_first_record;
        if named == Some(Lsn::INVALID) {
            // pg_resetwal: the first record of all.
            return Continuity::OtherHistory;
        }
        if self.ending == SegmentEnding::Unfinished {
            return self.judge_unfinished(named);
        }
        match joined {
            Joined::Proved { event, .. } if named.is_none() || named == straddling => Continuity::Proved { event },
            Joined::Overwritten => Continuity::Proved { event: None },
            Joined::Incomplete => Continuity::NotProved,
            Joined::Nothing if named.is_none() || self.last_record.is_none() => Continuity::NotProved,
            Joined::Nothing if named == self.last_record => Continuity::Proved { event: None },
            Joined::Proved { .. } | Joined::Nothing => Continuity::OtherHistory,
            Joined::Damaged(damage) => {
                let fits = matches!(damage.why, Flaw::Checksum { .. });
                let same_history = straddling.is_some() && (fits || named == straddling);
                Continuity::Broken { damage, same_history }
            }
        }
    }

    /// The segment before ended early, and this one was written all the same. A standby that archives what it has received of a
    /// timeline which it then leaves (`archive_mode = always`) has no further segment of it.
    fn judge_unfinished(&self, named: Option<Lsn>) -> Continuity {
        if named.is_none() || named == self.last_record {
            return Continuity::NotProved;
        }
        // The record that is named stood behind the last one that can be read.
        let same_history = named >= Some(self.end);
        Continuity::Broken { damage: Damage { lsn: self.end, why: Flaw::RecordMissing }, same_history }
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{MAJORS, segments};
    use super::super::{Completeness, SegmentNo, SegmentScan, WAL_PAGE_SIZE, scan_segment};
    use super::*;

    type Segment = (SegmentHeader, Vec<u8>);

    fn scanned((header, raw): &Segment) -> SegmentScan {
        scan_segment(raw, header, Completeness::Complete)
    }

    fn pass(before: Option<&Border>, segment: &Segment) -> (Continuity, Border) {
        let scan = scanned(segment);
        assert_eq!(scan.damage, None, "{}", segment.0.name);
        Border::pass(before, &segment.0, &scan.facts, scan.head.as_ref(), scan.tail.as_ref())
    }

    /// Neighbours of one major whose common border a record straddles.
    fn straddled(major: u16) -> (Segment, Segment) {
        let all = segments(major);
        let straddled = |pair: &&[Segment]| {
            pair[0].0.name.number(pair[0].0.segment_size).map(SegmentNo::next)
                == pair[1].0.name.number(pair[1].0.segment_size)
                && scanned(&pair[0]).tail.is_some()
        };
        let pair = all.windows(2).find(straddled).expect("a fixture has a record over a border");
        (pair[0].clone(), pair[1].clone())
    }

    /// What servers wrote is proved from border to border, also after the border went through a note; without the border before
    /// nothing is said.
    #[test]
    fn whole() {
        for major in MAJORS {
            let mut before: Option<Border> = None;
            for segment in segments(major) {
                let (continuity, border) = pass(before.as_ref(), &segment);
                // The record that began earlier goes on: it is proved where it ends.
                let middle = scanned(&segment).head.is_some_and(|head| !head.is_last());
                let expected = before.is_some() && !middle;
                assert_eq!(matches!(continuity, Continuity::Proved { .. }), expected, "{major}: {continuity:?}");
                assert_eq!(pass(None, &segment).0, Continuity::NotProved);
                let json = serde_json::to_string(&border).expect("text");
                let back: Border = serde_json::from_str(&json).expect("the same");
                assert_eq!(back, border);
                before = Some(back);
            }
        }
    }

    /// A flipped bit in either piece of the record over the border is found, and known to be damage of one history.
    #[test]
    fn flipped_bits() {
        for major in MAJORS {
            let (one, two) = straddled(major);
            let tail = scanned(&one).tail.expect("a tail");
            let begins = usize::try_from(tail.start.0 - one.0.start.0).expect("in the segment");
            let places = (begins + 4..one.1.len()).filter(|at| at % WAL_PAGE_SIZE >= 24);
            for at in { places }.step_by(7) {
                let mut bad = one.clone();
                bad.1[at] ^= 0x10;
                let scan = scanned(&bad);
                if scan.damage.is_some() {
                    continue;
                }
                let border = pass(None, &bad).1;
                let (continuity, _) = pass(Some(&border), &two);
                assert!(
                    matches!(continuity, Continuity::Broken { same_history: true, .. }),
                    "{major} {at}: {continuity:?}"
                );
            }
            let border = pass(None, &one).1;
            let head = scanned(&two).head.expect("a head");
            let length = (head.length as usize).min(WAL_PAGE_SIZE - 40);
            for at in (40..40 + length).step_by(3) {
                let mut bad = two.clone();
                bad.1[at] ^= 1;
                let (continuity, _) = pass(Some(&border), &bad);
                assert!(
                    matches!(continuity, Continuity::Broken { same_history: true, .. }),
                    "{major} {at}: {continuity:?}"
                );
            }
        }
    }

    /// A segment whose last records never reached the disk, though the next segment did.
    #[test]
    fn lost_end() {
        for major in MAJORS {
            let (mut one, two) = straddled(major);
            let last = scanned(&one).facts.last_record.expect("a record");
            let at = usize::try_from(last.0 - one.0.start.0).expect("in the segment");
            one.1[at..].fill(0);
            assert_eq!(scanned(&one).facts.ending, SegmentEnding::Unfinished);
            let border = pass(None, &one).1;
            let (continuity, _) = pass(Some(&border), &two);
            assert!(matches!(continuity, Continuity::Broken { same_history: true, .. }), "{major}: {continuity:?}");
        }
    }

    /// Segments of other places and of other servers are no neighbours: never damage of one history.
    #[test]
    fn strangers() {
        let (one, two) = straddled(15);
        let border = pass(None, &one).1;
        assert_eq!(pass(Some(&border), &one).0, Continuity::NotProved);
        let lacks = scanned(&two).head.map(|head| head.remaining);
        for major in MAJORS.into_iter().filter(|major| *major != 15) {
            // Servers that did the same may have the same lengths at the same places.
            let others = segments(major).into_iter().skip(1);
            for stranger in others.filter(|other| scanned(other).head.map(|head| head.remaining) != lacks) {
                let scan = scanned(&stranger);
                let mut header = stranger.0;
                header.name = two.0.name;
                let tail = scan.tail.as_ref();
                let (continuity, _) = Border::pass(Some(&border), &header, &scan.facts, scan.head.as_ref(), tail);
                let kin =
                    matches!(continuity, Continuity::Proved { .. } | Continuity::Broken { same_history: true, .. });
                assert!(!kin, "{major}: {continuity:?}");
            }
        }
    }
}
