//! `pitr`: a WAL archive and point-in-time recovery agent for PostgreSQL.
//!
//! The archive knows what happened when. It reads the WAL it stores, so it can say before a restore begins whether a
//! moment can be reached, which commit comes last before it, and what would be lost after it.
//!
//! # The four roads
//!
//! ```text
//! archive  pg_wal/%f ─► pitr-wal-push ─► wal: is it what its name says? what happened in it?
//!                                          └► codec ─► repository                     exit 0 = durable
//!
//! backup   server ─► replication ─► chunk: tar to chunks ─┬► packs in the repository
//!          or its files ─► pgdata: read in parallel ──────┘
//!                                          └► manifest, written last: the backup exists
//!
//! restore  catalog + WAL ─► recovery: target ─► plan ─► shown, asked
//!                                          └► pgdata: files checked, pg_control last, recovery settings
//!                                               └► PostgreSQL ─► pitr-wal-fetch %f ─► repository
//!
//! history  repository: WAL of a timeline ─► wal::activity: commits, names, rows ─► pitr log, pitr find
//! ```
//!
//! # Layers
//!
//! Each module uses only those above it in this list; `tests/tidy` checks that. A reader can begin at the top and never
//! meets anything unexplained.
//!
//! 1. **Domain.** [`wal`]: positions, names, pages, records, timelines, `pg_control`. [`recovery`]: targets, windows,
//!    plans. Pure: no I/O, no clock.
//! 2. **Formats.** [`codec`]: a stored WAL file. [`chunk`] and [`manifest`]: a stored base backup. [`catalog`]: what is
//!    known without reading all of it. Bytes to types and back. `docs/FORMAT.md` has the byte tables.
//! 3. **Storage.** [`durable`]: the only place that syncs. [`storage`]: named objects written once. [`repository`]: what
//!    they are called and what must hold. [`spool`]: what one call leaves for the next on the same host.
//! 4. **Drivers.** [`replication`]: PostgreSQL's replication protocol. [`pgdata`]: reading and laying out a data directory.
//! 5. **Commands.** [`config`], one module of [`command`] for each verb, and [`report`], which turns every error into
//!    what happened, what it means, what to do next, and an exit status. The programs only call them.
//!
//! # Threads, not tasks
//!
//! `pitr-wal-push` and `pitr-wal-fetch` live for milliseconds and run once a segment: they start no runtime. Backup and
//! restore are pipelines whose stages compress and hash; their stages are threads joined by bounded channels, so that
//! memory does not grow with the database. A store that needs an asynchronous client keeps its runtime to itself,
//! behind the blocking [`storage::Storage`].
//!
//! # What must always hold
//!
//! 1. Exit 0 of `pitr-wal-push` means durable in the repository.
//! 2. Nothing stored is ever overwritten or silently dropped.
//! 3. A restore ends at the asked moment or fails with a reason; it never opens a database early.
//! 4. Killing any process at any instruction loses nothing that was promised and leaves nothing that needs hands.
//! 5. Memory is bounded, and does not grow with the database or the archive.
//! 6. The repository can be read with standard tools, for ever.

pub mod catalog;
pub mod chunk;
pub mod codec;
pub mod command;
pub mod config;
pub mod durable;
pub mod manifest;
pub mod pgdata;
pub mod recovery;
pub mod replication;
pub mod report;
pub mod repository;
pub mod spool;
pub mod storage;
pub mod wal;
