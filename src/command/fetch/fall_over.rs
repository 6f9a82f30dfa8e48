//! Falling over: the repositories of a cluster are asked one after the other, until one has the file.
//!
//! The next one is asked as soon as one says that it has no such file, or what it has is damaged, or it fails; and also when it
//! does not answer soon, without giving it up. A file is absent only if every repository says so for certain: if one cannot be asked,
//! or has a gap there, nobody can tell, and a recovery must not end. With one repository there is nothing to fall over to.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use super::delivery::{Delivery, Outcome};
use super::error::Answer;
use super::{FetchError, is_standby};
use crate::command::several::AWAY_FOR;
use crate::config::Place;
use crate::report::{self, Program, Severity};
use crate::repository::RepositoryName;

/// How long one is waited for before the next one is asked too.
const PATIENCE: Duration = Duration::from_secs(3);
const PATIENCE_OF_A_STANDBY: Duration = Duration::from_secs(1);

/// Delivers the file from the first repository that has it, or confirms that none has.
pub(super) fn attempt(delivery: &Arc<Delivery>) -> Result<Outcome, FetchError> {
    fall_over(delivery, |delivery, place| delivery.attempt_at(place), true)
}

/// As [`attempt`], but that a file is absent is not confirmed, and nothing is said.
pub(super) fn attempt_unconfirmed(delivery: &Arc<Delivery>) -> Result<Outcome, FetchError> {
    fall_over(delivery, |delivery, place| delivery.attempt_unconfirmed(place), false)
}

fn fall_over(
    delivery: &Arc<Delivery>,
    ask: fn(&Delivery, &Place) -> Result<Outcome, FetchError>,
    tell: bool,
) -> Result<Outcome, FetchError> {
    let mut places = delivery.server().config.repositories();
    if let [only] = places.as_slice() {
        return ask(delivery, only);
    }
    // Those that did not answer a moment ago are asked last.
    places.sort_by_key(|place| is_away(delivery, place));
    let patience = if is_standby(delivery.server()) { PATIENCE_OF_A_STANDBY } else { PATIENCE };
    let (said, heard) = mpsc::channel();
    let mut coming = places.into_iter();
    let mut asked: Vec<Place> = Vec::new();
    let mut answers: Vec<Answer> = Vec::new();
    let mut more = true;
    loop {
        match coming.next().filter(|_| more) {
            Some(place) => {
                asked.push(place.clone());
                let (said, delivery) = (said.clone(), Arc::clone(delivery));
                let work = move || {
                    // Nobody listens any more once another one has delivered.
                    let _ = said.send((place.name.clone(), ask(&delivery, &place)));
                };
                std::thread::Builder::new().spawn(work).map_err(FetchError::no_thread)?;
            }
            None => more = false,
        }
        if !more && answers.len() == asked.len() {
            return none_has_it(delivery, answers);
        }
        let answer = match more {
            true => heard.recv_timeout(patience).ok(),
            false => heard.recv().ok(),
        };
        match answer {
            Some((from, Ok(Outcome::Delivered))) => {
                delivered(delivery, &from, &asked, &answers, tell);
                return Ok(Outcome::Delivered);
            }
            Some((name, Ok(Outcome::Absent))) => answers.push(Answer { name, error: None }),
            Some((name, Err(error))) => answers.push(Answer { name, error: Some(Box::new(error)) }),
            // It does not answer soon: the next one is asked, while there is one.
            None => {}
        }
    }
}

fn is_away(delivery: &Delivery, place: &Place) -> bool {
    let spool = delivery.server().spool();
    spool.and_then(|spool| spool.away_since(&place.name)).is_some_and(|age| age < AWAY_FOR)
}

/// Every one has answered, and none has delivered.
fn none_has_it(delivery: &Delivery, answers: Vec<Answer>) -> Result<Outcome, FetchError> {
    if answers.iter().all(|answer| answer.error.is_none()) {
        return Ok(Outcome::Absent);
    }
    Err(FetchError::Several { file: delivery.file(), answers })
}

/// One has delivered: what is wrong with those that were asked before is told, and those that do not answer are left alone for a
/// while.
fn delivered(delivery: &Delivery, from: &RepositoryName, asked: &[Place], answers: &[Answer], tell: bool) {
    let spool = delivery.server().make_spool();
    for place in asked.iter().filter(|place| place.name != *from) {
        let answer = answers.iter().find(|answer| answer.name == place.name);
        let answers_well = answer.is_some_and(|answer| !answer.is_passing());
        let was_away = is_away(delivery, place);
        if !answers_well && !was_away {
            // Without the note the next call waits for it again.
            let _ = spool.as_ref().map(|spool| spool.note_away(&place.name));
        }
        if tell && (answers_well || !was_away) {
            report::fetch::fell_over(delivery.file(), &place.name, answer, from)
                .print(Program::Fetch, Severity::Warning);
        }
    }
    if let Some(spool) = spool {
        spool.note_back(from);
    }
}
