//! The `BASE_BACKUP` command in the grammars of both generations (`repl_gram.y`; manual, "Streaming Replication Protocol").

use std::time::Duration;

use super::ReplicationError;

/// What to ask the server for.
#[derive(Clone, Debug)]
pub struct BaseBackupOptions {
    /// Stored in `backup_label`; at most 1000 bytes of one line.
    pub label: String,
    /// Checkpoint at once (more I/O) instead of spread out (up to `checkpoint_timeout` until the first byte).
    pub fast_checkpoint: bool,
    /// Longest wait for the checkpoint, and so for the first byte.
    pub checkpoint_wait: Duration,
    /// Upper limit in KiB a second, 32 to 1048576.
    pub rate_limit_kib: Option<u32>,
    /// Let the server verify page checksums, if the cluster has them.
    pub verify_checksums: bool,
    /// Ask for size estimates (the server walks all files first) and progress messages (15 and later).
    pub progress: bool,
    /// Send `tablespace_map` instead of symbolic links under `pg_tblspc`. A server that starts with one makes the links
    /// anew with the *original* paths, so a restore to other places must edit it.
    pub tablespace_map: bool,
    /// Send only what has changed since the backup whose manifest was uploaded in this session (17 and later).
    pub incremental: bool,
}

impl Default for BaseBackupOptions {
    /// A fast checkpoint, verification, no rate limit, no progress, links.
    fn default() -> Self {
        BaseBackupOptions {
            label: "pitr".to_owned(),
            fast_checkpoint: true,
            checkpoint_wait: Duration::from_secs(2 * 3600),
            rate_limit_kib: None,
            verify_checksums: true,
            progress: false,
            tablespace_map: false,
            incremental: false,
        }
    }
}

impl BaseBackupOptions {
    /// A label that would break `backup_label` is not sent.
    pub(super) fn check_label(&self) -> Result<(), ReplicationError> {
        if self.label.len() > 1000 || self.label.chars().any(char::is_control) {
            let reason = "it has to be one line of at most 1000 bytes".to_owned();
            return Err(ReplicationError::Argument { what: "backup label", reason });
        }
        Ok(())
    }
}

/// The command, as the grammar of the server's version wants it (`repl_gram.y`).
pub(super) fn command(options: &BaseBackupOptions, major: u16) -> Result<String, ReplicationError> {
    let refuse = |what, reason: &str| Err(ReplicationError::Argument { what, reason: reason.to_owned() });
    if major < 13 {
        return refuse("server version", "base backups need PostgreSQL 13 or later");
    }
    options.check_label()?;
    if options.rate_limit_kib.is_some_and(|rate| !(32..=1_048_576).contains(&rate)) {
        return refuse("rate limit", "the server takes 32 kB/s to 1 GB/s");
    }
    if options.incremental && major < 17 {
        return refuse("incremental backup", "servers send what has changed from PostgreSQL 17 on");
    }
    let label = options.label.replace('\'', "''");
    Ok(if major < 15 { command_until_14(options, &label) } else { command_from_15(options, &label) })
}

fn command_until_14(options: &BaseBackupOptions, label: &str) -> String {
    let mut words = vec![format!("BASE_BACKUP LABEL '{label}' NOWAIT MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C'")];
    let mut add = |wanted: bool, word: &str| words.extend(wanted.then(|| word.to_owned()));
    add(options.fast_checkpoint, "FAST");
    add(options.progress, "PROGRESS");
    add(options.tablespace_map, "TABLESPACE_MAP");
    add(!options.verify_checksums, "NOVERIFY_CHECKSUMS");
    words.extend(options.rate_limit_kib.map(|rate| format!("MAX_RATE {rate}")));
    words.join(" ")
}

fn command_from_15(options: &BaseBackupOptions, label: &str) -> String {
    let on_off = |on: bool| if on { "on" } else { "off" };
    let mut list = vec![
        format!("LABEL '{label}'"),
        format!("CHECKPOINT '{}'", if options.fast_checkpoint { "fast" } else { "spread" }),
        "WAIT off, WAL off, MANIFEST 'yes', MANIFEST_CHECKSUMS 'CRC32C'".to_owned(),
        format!("PROGRESS {}", on_off(options.progress)),
        format!("TABLESPACE_MAP {}", on_off(options.tablespace_map)),
        format!("VERIFY_CHECKSUMS {}", on_off(options.verify_checksums)),
    ];
    list.extend(options.incremental.then(|| "INCREMENTAL on".to_owned()));
    list.extend(options.rate_limit_kib.map(|rate| format!("MAX_RATE {rate}")));
    format!("BASE_BACKUP ({})", list.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Each generation gets its own grammar, with the label quoted.
    #[test]
    fn commands() {
        let options = BaseBackupOptions { label: "it's".into(), rate_limit_kib: Some(32), ..Default::default() };
        assert_eq!(
            command(&options, 14).unwrap(),
            "BASE_BACKUP LABEL 'it''s' NOWAIT MANIFEST 'yes' MANIFEST_CHECKSUMS 'CRC32C' FAST MAX_RATE 32"
        );
        assert_eq!(
            command(&options, 15).unwrap(),
            "BASE_BACKUP (LABEL 'it''s', CHECKPOINT 'fast', WAIT off, WAL off, MANIFEST 'yes', \
             MANIFEST_CHECKSUMS 'CRC32C', PROGRESS off, TABLESPACE_MAP off, VERIFY_CHECKSUMS on, MAX_RATE 32)"
        );
    }

    /// What the server would refuse, or what would break `backup_label`, is not sent.
    #[test]
    fn refused_options() {
        let refused = |options: BaseBackupOptions, major| command(&options, major).is_err();
        assert!(refused(BaseBackupOptions { label: "a\nSTART WAL LOCATION: 0/0".into(), ..Default::default() }, 15));
        assert!(refused(BaseBackupOptions { rate_limit_kib: Some(31), ..Default::default() }, 15));
        assert!(refused(BaseBackupOptions::default(), 12));
        assert!(refused(BaseBackupOptions { incremental: true, ..Default::default() }, 16));
        let incremental = BaseBackupOptions { incremental: true, ..Default::default() };
        assert!(command(&incremental, 17).unwrap().ends_with(", INCREMENTAL on)"));
    }
}
