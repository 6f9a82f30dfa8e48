//! Records about databases (`dbcommands_xlog.h`): made and removed.

use super::bytes::u32_at;
use super::{EventKind, PostgresMajor};

/// What an operation does. 15 brought a second way to create a database, and moved the number of `DROP`.
enum Operation {
    Copy,
    Create,
    Drop,
}

impl Operation {
    fn of(operation: u8, major: PostgresMajor) -> Option<Self> {
        match (operation, major.0 >= 15) {
            (0x00, _) => Some(Operation::Copy),
            (0x10, true) => Some(Operation::Create),
            (0x10, false) | (0x20, true) => Some(Operation::Drop),
            _ => None,
        }
    }
}

/// An operation that [`read`] may understand.
#[inline]
pub(super) fn is_of_interest(operation: u8) -> bool {
    operation <= 0x20
}

/// Reads the main data of an operation of interest.
pub(super) fn read(operation: u8, data: &[u8], major: PostgresMajor) -> Option<EventKind> {
    let oid = u32_at(data, 0)?;
    Some(match Operation::of(operation, major)? {
        Operation::Copy => {
            EventKind::DatabaseCreate { oid, tablespace: u32_at(data, 4)?, copy_of: Some(u32_at(data, 8)?) }
        }
        Operation::Create => EventKind::DatabaseCreate { oid, tablespace: u32_at(data, 4)?, copy_of: None },
        Operation::Drop => EventKind::DatabaseDrop { oid },
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The same number is a removal before 15, and a creation from then on.
    #[test]
    fn numbers_moved() {
        let data: Vec<u8> = [5_u32, 1663, 1, 1663].iter().flat_map(|word| word.to_le_bytes()).collect();
        let copied = EventKind::DatabaseCreate { oid: 5, tablespace: 1663, copy_of: Some(1) };
        let made = EventKind::DatabaseCreate { oid: 5, tablespace: 1663, copy_of: None };
        let dropped = EventKind::DatabaseDrop { oid: 5 };
        for (operation, before, since) in
            [(0x00, Some(&copied), Some(&copied)), (0x10, Some(&dropped), Some(&made)), (0x20, None, Some(&dropped))]
        {
            assert_eq!(read(operation, &data, PostgresMajor(14)).as_ref(), before, "{operation:#x}");
            assert_eq!(read(operation, &data, PostgresMajor(15)).as_ref(), since, "{operation:#x}");
        }
        assert_eq!(read(0x00, &data[..10], PostgresMajor(15)), None);
    }
}
