//! Damaged data pages: what the copy shows, held against what else is known.

use crate::manifest::BadPages;
use crate::replication::BackupEnd;

/// Who says whether pages that look damaged are.
pub(super) enum Judge {
    /// The server, which read them too.
    Server(Box<BackupEnd>),
    /// They were read again and again before they were suspected.
    Reread,
}

/// Which of the suspicious pages are damaged, and how many.
///
/// A page that the server wrote while it was read may be torn in the copy, and replay repairs it. The server reads a page
/// again before it complains, so what it does not complain about is no damage.
pub(super) fn confirmed(suspects: Vec<BadPages>, judge: &Judge) -> (Vec<BadPages>, u64) {
    let count = |bad: &[BadPages]| bad.iter().map(|pages| pages.blocks.len() as u64).sum::<u64>();
    let end = match judge {
        Judge::Server(end) => end,
        Judge::Reread => {
            let all = count(&suspects);
            return (suspects, all);
        }
    };
    if end.damage.is_none() {
        return (Vec::new(), 0);
    }
    let named = |pages: &BadPages| {
        let path = pages.path.to_string();
        end.warnings.iter().any(|warning| warning.message.contains(&format!("{path}\"")))
    };
    let (named, unnamed): (Vec<_>, Vec<_>) = suspects.into_iter().partition(named);
    // Servers may word their warnings as they like: if none names a file, all suspects count.
    let bad = if named.is_empty() { unnamed } else { named };
    let count = count(&bad).max(1);
    (bad, count)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunk::EntryPath;
    use crate::replication::ServerMessage;
    use crate::wal::{Lsn, TimelineId};

    fn suspects() -> Vec<BadPages> {
        ["base/5/16384", "base/5/1638"]
            .map(|path| BadPages {
                path: EntryPath::new(path.as_bytes()).expect("a good path"),
                tablespace: None,
                blocks: vec![1, 2],
            })
            .to_vec()
    }

    fn end(damage: bool, warning: &str) -> Judge {
        let message = |text: &str| ServerMessage { message: text.to_owned(), ..ServerMessage::default() };
        Judge::Server(Box::new(BackupEnd {
            stop_lsn: Lsn(1),
            timeline: TimelineId(1),
            warnings: vec![message(warning)],
            damage: damage.then(|| message("checksum verification failure during base backup")),
        }))
    }

    /// A torn page is no damage: only what the server complains about too counts, in whatever language it does.
    #[test]
    fn only_what_the_server_confirms() {
        assert_eq!(confirmed(suspects(), &end(false, "")), (vec![], 0));
        let named = end(true, "Pruefsumme falsch in Datei \"./base/5/16384\", Block 1");
        assert_eq!(confirmed(suspects(), &named), (suspects()[..1].to_vec(), 2));
        assert_eq!(confirmed(suspects(), &end(true, "?")), (suspects(), 4));
        assert_eq!(confirmed(vec![], &end(true, "?")), (vec![], 1));
        assert_eq!(confirmed(suspects(), &Judge::Reread), (suspects(), 4));
    }
}
