//! What `pitr copy` tells: what is to be copied, or what was.

use std::io::{self, Write};

use indicatif::HumanBytes;
use serde::Serialize;

use super::plan::Plan;
use super::work::Done;
use crate::command::Context;
use crate::config::Place;
use crate::report::Explain;
use crate::repository::RepositoryName;
use crate::wal::ClusterName;

/// Counts of what is lacking, and of what was copied.
#[derive(Serialize)]
pub(super) struct Outcome {
    cluster: ClusterName,
    from: RepositoryName,
    to: RepositoryName,
    lacking: Counts,
    copied: Counts,
    /// Bytes of the WAL files and packs that were copied.
    stored_bytes: u64,
    /// Nothing is lacking any more.
    complete: bool,
    problems: Vec<String>,
}

#[derive(Clone, Copy, Default, Serialize)]
struct Counts {
    wal_files: usize,
    packs: usize,
    backups: usize,
    roll_ups: usize,
}

impl Outcome {
    pub(super) fn new(cluster: &ClusterName, from: &Place, to: &Place, plan: &Plan) -> Outcome {
        let mut lacking = Counts::default();
        for part in &plan.servers {
            lacking.wal_files += part.wal.len();
            lacking.packs += part.packs.len();
            lacking.backups += part.backups.len();
            lacking.roll_ups += part.roll_ups.len();
        }
        Outcome {
            cluster: cluster.clone(),
            from: from.name.clone(),
            to: to.name.clone(),
            lacking,
            copied: Counts::default(),
            stored_bytes: 0,
            complete: plan.objects() == 0,
            problems: Vec::new(),
        }
    }

    pub(super) fn take(&mut self, done: &Done) {
        let Done { wal_files, packs, backups, roll_ups, stored_bytes, failures, interrupted } = done;
        self.copied = Counts { wal_files: *wal_files, packs: *packs, backups: *backups, roll_ups: *roll_ups };
        self.stored_bytes = *stored_bytes;
        self.complete = failures.is_empty() && !interrupted;
        self.problems = failures.iter().map(|failure| failure.report().what).collect();
    }

    pub(super) fn tell(&self, context: &Context, dry_run: bool) -> io::Result<()> {
        let mut out = context.stdout();
        if context.json {
            return out.json(self);
        }
        let Outcome { cluster, from, to, .. } = self;
        let words = |counts: &Counts| {
            let Counts { wal_files, packs, backups, roll_ups } = counts;
            format!("{wal_files} WAL files, {backups} backups in {packs} packs, {roll_ups} parts of the index")
        };
        let lacking = words(&self.lacking);
        match dry_run {
            true => {
                writeln!(out, "cluster {cluster}: repository {to} lacks {lacking} that {from} has; nothing was copied")?
            }
            false => {
                let (copied, size) = (words(&self.copied), HumanBytes(self.stored_bytes));
                writeln!(out, "cluster {cluster}: copied from {from} to {to}: {copied}; {size}")?;
            }
        }
        for problem in &self.problems {
            writeln!(out, "PROBLEM: {problem}")?;
        }
        if !dry_run && !self.complete {
            writeln!(out, "Not all of {lacking} is there now: run it again when the cause is mended.")?;
        }
        out.flush()
    }
}
