//! Records about tablespaces (`commands/tablespace.h`): of interest because replay makes the directory of a new one anew.

use super::EventKind;
use super::bytes::u32_at;

/// `XLOG_TBLSPC_CREATE`
const CREATE: u8 = 0x00;
/// `XLOG_TBLSPC_DROP`
const DROP: u8 = 0x10;

/// An operation that [`read`] understands.
#[inline]
pub(super) fn is_of_interest(operation: u8) -> bool {
    matches!(operation, CREATE | DROP)
}

/// Reads the main data of an operation of interest: the OID; of a new one (`xl_tblspc_create_rec`) also the location up to a
/// NUL.
pub(super) fn read(operation: u8, data: &[u8]) -> Option<EventKind> {
    match operation {
        CREATE => {}
        DROP => return Some(EventKind::TablespaceDrop { oid: u32_at(data, 0)? }),
        _ => return None,
    }
    let location = data.get(4..)?;
    let length = location.iter().position(|byte| *byte == 0)?;
    let location = String::from_utf8_lossy(&location[..length]).into_owned();
    Some(EventKind::TablespaceCreate { oid: u32_at(data, 0)?, location })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// OID and location are read; a location without its end is not made up.
    #[test]
    fn create() {
        let mut data = 16400_u32.to_le_bytes().to_vec();
        data.extend(b"/mnt/space\0\0");
        let expected = EventKind::TablespaceCreate { oid: 16400, location: "/mnt/space".to_owned() };
        assert_eq!(read(CREATE, &data), Some(expected));
        assert_eq!(read(CREATE, &data[..10]), None);
        assert_eq!(read(CREATE, &data[..3]), None);
        assert_eq!(read(DROP, &data), Some(EventKind::TablespaceDrop { oid: 16400 }));
        assert_eq!(read(0x20, &data), None);
    }
}
