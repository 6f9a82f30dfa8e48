//! The forms in which people write a moment: RFC 3339, PostgreSQL's output, `yesterday 14:25`, `5 min ago`.
//!
//! Every moment is resolved to whole microseconds in UTC. Nothing is guessed: a local time that a change of clocks
//! makes ambiguous or leaves out is refused with both candidates, digits beyond the microsecond are refused instead of
//! rounded, and a date alone is refused because it does not say which moment of the day. The zone in which the text is
//! read is the one it names, else the local one that the caller passes in.

use jiff::civil::{Date, DateTime, Time};
use jiff::tz::{AmbiguousOffset, Offset, TimeZone};
use jiff::{SignedDuration, Timestamp, ToSpan};

use crate::wal::PgTime;

/// What the reading of a moment depends on besides the text.
pub struct Surroundings<'a> {
    /// The present moment, for `today`, `yesterday`, `… ago` and a time of day alone.
    pub now: Timestamp,
    /// The zone of a time that names none.
    pub zone: TimeZone,
    /// Looks a zone up by its name in the IANA database, such as `Europe/Berlin`.
    pub lookup: &'a dyn Fn(&str) -> Option<TimeZone>,
}

/// A text that is not one moment.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum MomentError {
    /// No form fits.
    #[error("\"{0}\" is not a time that can be read")]
    Unreadable(String),
    /// A date without a time of day.
    #[error("\"{0}\" names a day, not a moment")]
    DayOnly(String),
    /// More digits than PostgreSQL keeps.
    #[error("\"{0}\" has digits beyond the microsecond, which PostgreSQL does not keep")]
    TooPrecise(String),
    /// A zone that is neither an offset, UTC, a name of the IANA database, nor an abbreviation of the local zone.
    #[error("\"{zone}\" in \"{text}\" is not a known time zone")]
    UnknownZone {
        /// The whole text.
        text: String,
        /// The part taken for a zone.
        zone: String,
    },
    /// The clocks were set back: the local time occurred twice.
    #[error("\"{text}\" occurred twice in {zone}: {first} and {second}")]
    Ambiguous {
        /// The whole text.
        text: String,
        /// The zone it was read in.
        zone: String,
        /// The earlier moment, with its offset.
        first: String,
        /// The later moment, with its offset.
        second: String,
    },
    /// The clocks were set forward: the local time did not occur.
    #[error("\"{text}\" did not occur in {zone}, where the clocks were set forward: {before} or {after}")]
    Skipped {
        /// The whole text.
        text: String,
        /// The zone it was read in.
        zone: String,
        /// The moment by the offset valid after the change (it lies before the change).
        before: String,
        /// The moment by the offset valid before the change (it lies after the change).
        after: String,
    },
    /// A time of day alone that has not come yet today.
    #[error("\"{0}\" lies in the future today")]
    NotYet(String),
}

/// Where a civil time is to be read.
enum Place {
    Zone(TimeZone),
    Fixed(Offset),
    /// An abbreviation of the local zone, such as CET, which also says which of two equal times is meant.
    Abbreviated(TimeZone, String),
}

/// Reads a moment.
///
/// # Errors
/// A text that is not one moment: [`MomentError`] says why, with the candidates where there are two.
pub fn parse(text: &str, surroundings: &Surroundings<'_>) -> Result<PgTime, MomentError> {
    let text = text.trim();
    let unreadable = || MomentError::Unreadable(text.to_owned());
    if text == "now" {
        return Ok(PgTime::from_timestamp(surroundings.now));
    }
    if let Some(ago) = text.strip_suffix("ago") {
        let duration = parse_duration(ago.trim()).ok_or_else(unreadable)?;
        let moment = surroundings.now.checked_sub(duration).map_err(|_| unreadable())?;
        return Ok(PgTime::from_timestamp(moment));
    }
    let words = Words::split(text);
    let (day, rest) = words.day(text)?;
    let (time, zone) = rest.time(text)?;
    let place = place(zone, text, surroundings)?;
    let local_now = match &place {
        Place::Zone(zone) | Place::Abbreviated(zone, _) => surroundings.now.to_zoned(zone.clone()).datetime(),
        Place::Fixed(offset) => offset.to_datetime(surroundings.now),
    };
    let date = match day {
        Day::Date(date) => date,
        Day::Today | Day::Unsaid => local_now.date(),
        Day::Yesterday => local_now.date().checked_sub(1.day()).map_err(|_| unreadable())?,
    };
    let moment = resolve(date.to_datetime(time), &place, text)?;
    if matches!(day, Day::Unsaid) && moment > surroundings.now {
        return Err(MomentError::NotYet(text.to_owned()));
    }
    Ok(PgTime::from_timestamp(moment))
}

/// The day that a text names.
#[derive(Clone, Copy)]
enum Day {
    Date(Date),
    Today,
    Yesterday,
    Unsaid,
}

/// A text cut at blanks, and at the `T` of ISO 8601.
struct Words<'a>(Vec<&'a str>);

impl<'a> Words<'a> {
    fn split(text: &'a str) -> Self {
        let mut words: Vec<&str> = text.split_whitespace().collect();
        if let Some(first) = words.first().copied()
            && first.len() > 11
            && matches!(first.as_bytes()[10], b'T' | b't' | b'_')
            && first.is_char_boundary(10)
            && first.is_char_boundary(11)
        {
            words.splice(0..1, [&first[..10], &first[11..]]);
        }
        Words(words)
    }

    /// The day at the front, and what follows it. PostgreSQL's DateStyle "Postgres" puts the year last.
    fn day(mut self, text: &str) -> Result<(Day, Self), MomentError> {
        let unreadable = || MomentError::Unreadable(text.to_owned());
        let first = *self.0.first().ok_or_else(unreadable)?;
        let day = match first {
            "today" => Day::Today,
            "yesterday" => Day::Yesterday,
            _ if weekday(first) => {
                // `Sat Nov 21 14:25:03.123456 2026 CET`, or with the day before the month.
                let [_, one, two, _, year, ..] = self.0[..] else { return Err(unreadable()) };
                let (name, day) = if month(one).is_some() { (one, two) } else { (two, one) };
                let date = month(name).and_then(|month| date(year, month, day)).ok_or_else(unreadable)?;
                self.0.remove(4);
                self.0.drain(..3);
                return Ok((Day::Date(date), self));
            }
            _ if first.contains(':') => return Ok((Day::Unsaid, self)),
            _ => Day::Date(written_date(first).ok_or_else(unreadable)?),
        };
        self.0.remove(0);
        if self.0.is_empty() {
            return Err(MomentError::DayOnly(text.to_owned()));
        }
        Ok((day, self))
    }

    /// The time of day, and the zone written after it (empty: none).
    fn time(self, text: &str) -> Result<(Time, String), MomentError> {
        let unreadable = || MomentError::Unreadable(text.to_owned());
        let (first, zone_words) = self.0.split_first().ok_or_else(unreadable)?;
        let end = first.find(|c: char| !c.is_ascii_digit() && c != ':' && c != '.').unwrap_or(first.len());
        let (clock, glued) = first.split_at(end);
        let zone = match (glued, zone_words) {
            ("", []) => String::new(),
            ("", [zone]) => (*zone).to_owned(),
            (glued, []) => glued.to_owned(),
            _ => return Err(unreadable()),
        };
        Ok((clock_time(clock, text)?, zone))
    }
}

/// `14:25`, `14:25:03` or `14:25:03.123456`.
fn clock_time(clock: &str, text: &str) -> Result<Time, MomentError> {
    let unreadable = || MomentError::Unreadable(text.to_owned());
    let (whole, fraction) = clock.split_once('.').unwrap_or((clock, ""));
    let parts: Vec<&str> = whole.split(':').collect();
    let (hour, minute, second) = match parts[..] {
        [hour, minute] if fraction.is_empty() && !clock.ends_with('.') => (hour, minute, "0"),
        [hour, minute, second] => (hour, minute, second),
        _ => return Err(unreadable()),
    };
    if !fraction.bytes().all(|b| b.is_ascii_digit()) || clock.ends_with('.') {
        return Err(unreadable());
    }
    let (kept, beyond) = fraction.split_at(fraction.len().min(6));
    if beyond.bytes().any(|b| b != b'0') {
        return Err(MomentError::TooPrecise(text.to_owned()));
    }
    let micros: i32 = format!("{kept:0<6}").parse().map_err(|_| unreadable())?;
    let number = |part: &str| if (1..=2).contains(&part.len()) { part.parse::<i8>().ok() } else { None };
    match (number(hour), number(minute), number(second)) {
        (Some(hour), Some(minute), Some(second)) => {
            Time::new(hour, minute, second, micros * 1000).map_err(|_| unreadable())
        }
        _ => Err(unreadable()),
    }
}

/// `2026-11-21`, or `21.11.2026` (PostgreSQL's DateStyle "German"). Dates with slashes are not read: their order is
/// a matter of the reader's country.
fn written_date(text: &str) -> Option<Date> {
    let dashes: Vec<&str> = text.split('-').collect();
    let dots: Vec<&str> = text.split('.').collect();
    match (&dashes[..], &dots[..]) {
        ([year, month, day], _) => date(year, month.parse().ok()?, day),
        (_, [day, month, year]) => date(year, month.parse().ok()?, day),
        _ => None,
    }
}

fn date(year: &str, month: i8, day: &str) -> Option<Date> {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    if year.len() != 4 || !digits(year) || !digits(day) || day.len() > 2 {
        return None;
    }
    Date::new(year.parse().ok()?, month, day.parse().ok()?).ok()
}

fn month(text: &str) -> Option<i8> {
    const MONTHS: [&str; 12] = ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
    let at = MONTHS.iter().position(|month| *month == text)?;
    i8::try_from(at + 1).ok()
}

fn weekday(text: &str) -> bool {
    ["Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun"].contains(&text)
}

/// Understands what stands after the time of day.
fn place(zone: String, text: &str, surroundings: &Surroundings<'_>) -> Result<Place, MomentError> {
    let unknown = || MomentError::UnknownZone { text: text.to_owned(), zone: zone.clone() };
    if zone.is_empty() {
        return Ok(Place::Zone(surroundings.zone.clone()));
    }
    if ["Z", "z", "UTC", "GMT"].contains(&zone.as_str()) {
        return Ok(Place::Fixed(Offset::UTC));
    }
    if zone.starts_with(['+', '-']) {
        return offset(&zone).map(Place::Fixed).ok_or_else(unknown);
    }
    // PostgreSQL's log shows abbreviations. Most of them are used by several countries with different offsets, so
    // only those of the local zone are taken. (The IANA zone "CET" is another thing: it has summer time.)
    if zone.bytes().all(|b| b.is_ascii_uppercase()) {
        return Ok(Place::Abbreviated(surroundings.zone.clone(), zone));
    }
    (surroundings.lookup)(&zone).map(Place::Zone).ok_or_else(unknown)
}

/// `+01`, `+01:00`, `+0100`, and with seconds `+01:00:30`, as PostgreSQL prints the offsets of old times.
fn offset(text: &str) -> Option<Offset> {
    let (sign, digits) = text.split_at(1);
    let digits: String = match digits.len() {
        2 | 4 => digits.to_owned(),
        5 if digits.as_bytes()[2] == b':' => digits.replace(':', ""),
        8 if digits.as_bytes()[2] == b':' && digits.as_bytes()[5] == b':' => digits.replace(':', ""),
        _ => return None,
    };
    if !matches!(digits.len(), 2 | 4 | 6) || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return None;
    }
    let part = |at: usize| digits.get(at..at + 2).map_or(Some(0), |part| part.parse::<i32>().ok());
    let (hours, minutes, seconds) = (part(0)?, part(2)?, part(4)?);
    if hours > 15 || minutes > 59 || seconds > 59 {
        return None;
    }
    let total = hours * 3600 + minutes * 60 + seconds;
    Offset::from_seconds(if sign == "-" { -total } else { total }).ok()
}

/// The one moment at which the clocks of the place showed this time.
fn resolve(civil: DateTime, place: &Place, text: &str) -> Result<Timestamp, MomentError> {
    let unreadable = || MomentError::Unreadable(text.to_owned());
    let at = |offset: Offset| offset.to_timestamp(civil).map_err(|_| unreadable());
    match place {
        Place::Fixed(offset) => at(*offset),
        Place::Zone(zone) => match zone.to_ambiguous_timestamp(civil).offset() {
            AmbiguousOffset::Unambiguous { offset } => at(offset),
            AmbiguousOffset::Fold { before, after } => Err(MomentError::Ambiguous {
                text: text.to_owned(),
                zone: zone_name(zone),
                first: with_offset(at(before)?, before),
                second: with_offset(at(after)?, after),
            }),
            AmbiguousOffset::Gap { before, after } => Err(MomentError::Skipped {
                text: text.to_owned(),
                zone: zone_name(zone),
                before: with_offset(at(after)?, before),
                after: with_offset(at(before)?, after),
            }),
        },
        Place::Abbreviated(zone, abbreviation) => {
            let candidates = match zone.to_ambiguous_timestamp(civil).offset() {
                AmbiguousOffset::Unambiguous { offset } => vec![offset],
                AmbiguousOffset::Fold { before, after } | AmbiguousOffset::Gap { before, after } => vec![before, after],
            };
            for offset in candidates {
                let moment = at(offset)?;
                if zone.to_offset_info(moment).abbreviation() == abbreviation {
                    return Ok(moment);
                }
            }
            Err(MomentError::UnknownZone { text: text.to_owned(), zone: abbreviation.clone() })
        }
    }
}

/// A zone's name for people.
#[must_use]
pub fn zone_name(zone: &TimeZone) -> String {
    zone.iana_name().unwrap_or("the local time zone").to_owned()
}

/// A moment as a person in an offset writes it; it can be given back to [`parse`].
fn with_offset(moment: Timestamp, offset: Offset) -> String {
    let zoned = moment.to_zoned(TimeZone::fixed(offset));
    zoned.strftime("%Y-%m-%d %H:%M:%S%.f%:z").to_string()
}

/// A moment in a zone for people, with offset: `2026-11-21 15:25:03.123456+01:00`.
#[must_use]
pub fn in_zone(time: PgTime, zone: &TimeZone) -> String {
    let moment = time.to_timestamp();
    with_offset(moment, zone.to_offset(moment))
}

/// A moment in UTC, and in the zone if its clocks show something else then.
#[must_use]
pub fn in_both(time: PgTime, zone: &TimeZone) -> String {
    let utc = format!("{} UTC", in_zone(time, &TimeZone::UTC).trim_end_matches("+00:00"));
    if zone.to_offset(time.to_timestamp()).is_zero() {
        return utc;
    }
    format!("{utc} ({} {})", in_zone(time, zone), zone_name(zone))
}

/// A duration in the forms of `humantime` that have one length only: weeks, days (24 hours), hours, minutes, seconds and
/// below. Months and years are refused, and with them `M`, which is too easily written for minutes.
fn parse_duration(text: &str) -> Option<SignedDuration> {
    let units = text.split(|c: char| !c.is_ascii_alphabetic()).filter(|unit| !unit.is_empty());
    let calendar = |unit: &str| unit == "M" || unit.starts_with("mo") || unit.starts_with('y');
    if units.into_iter().any(calendar) {
        return None;
    }
    let duration = humantime::parse_duration(text).ok()?;
    if duration.subsec_nanos() % 1000 != 0 {
        return None;
    }
    SignedDuration::try_from(duration).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Result<String, MomentError> {
        let lookup = |name: &str| TimeZone::get(name).ok();
        let zone = TimeZone::get("Europe/Berlin").expect("in the database");
        let now = "2026-11-21T14:30:00.5Z".parse().expect("a timestamp");
        parse(text, &Surroundings { now, zone, lookup: &lookup }).map(|time| time.to_string())
    }

    /// Every form that a person at a terminal or PostgreSQL itself writes is read to the microsecond.
    #[test]
    fn forms() {
        for (text, expected) in [
            ("2026-11-21T14:25:03.123456Z", "2026-11-21T14:25:03.123456Z"),
            ("2026-11-21t14:25:03.123456+00:00", "2026-11-21T14:25:03.123456Z"),
            ("2026-11-21 14:25:03.123456+01", "2026-11-21T13:25:03.123456Z"),
            ("2026-11-21 14:25:03.1-0530", "2026-11-21T19:55:03.100000Z"),
            ("2026-11-21 14:25:03 +01:00", "2026-11-21T13:25:03.000000Z"),
            ("2026-11-21 14:25:03.123 UTC", "2026-11-21T14:25:03.123000Z"),
            ("2026-11-21 14:25:03.123 CET", "2026-11-21T13:25:03.123000Z"),
            ("2026-11-21 14:25:03 America/New_York", "2026-11-21T19:25:03.000000Z"),
            ("2026-07-21 14:25", "2026-07-21T12:25:00.000000Z"),
            ("2026-11-21 14:25:03.123456000", "2026-11-21T13:25:03.123456Z"),
            ("21.11.2026 14:25:03.5 CET", "2026-11-21T13:25:03.500000Z"),
            ("Sat Nov 21 14:25:03.123456 2026 CET", "2026-11-21T13:25:03.123456Z"),
            ("Sat 21 Nov 14:25:03 2026 UTC", "2026-11-21T14:25:03.000000Z"),
            ("yesterday 14:25", "2026-11-20T13:25:00.000000Z"),
            ("yesterday 14:25 UTC", "2026-11-20T14:25:00.000000Z"),
            ("today 9:00", "2026-11-21T08:00:00.000000Z"),
            ("14:25", "2026-11-21T13:25:00.000000Z"),
            ("14:25:00.000001Z", "2026-11-21T14:25:00.000001Z"),
            ("5 min ago", "2026-11-21T14:25:00.500000Z"),
            ("2 hours ago", "2026-11-21T12:30:00.500000Z"),
            ("1h 30m ago", "2026-11-21T13:00:00.500000Z"),
            ("3days ago", "2026-11-18T14:30:00.500000Z"),
            (" now ", "2026-11-21T14:30:00.500000Z"),
        ] {
            assert_eq!(read(text).as_deref(), Ok(expected), "{text:?}");
        }
    }

    /// What is not one moment is refused with its reason; nothing is rounded and nothing is guessed.
    #[test]
    fn refused() {
        let text = |text: &str| text.to_owned();
        assert_eq!(
            read("2026-11-21 14:25:03.1234567Z"),
            Err(MomentError::TooPrecise(text("2026-11-21 14:25:03.1234567Z")))
        );
        assert_eq!(read("2026-11-21"), Err(MomentError::DayOnly(text("2026-11-21"))));
        assert_eq!(read("yesterday"), Err(MomentError::DayOnly(text("yesterday"))));
        assert_eq!(read("18:00"), Err(MomentError::NotYet(text("18:00"))));
        for unknown in ["2026-11-21 14:25 IST", "2026-07-21 14:25 CET", "14:25 Mars/Olympus", "14:25+1", "14:25+99"] {
            assert!(matches!(read(unknown), Err(MomentError::UnknownZone { .. })), "{unknown:?}: {:?}", read(unknown));
        }
        for wrong in [
            "",
            "tomorrow 9:00",
            "11/12/2026 14:25",
            "2026-13-01 14:25",
            "2026-02-29 14:25",
            "2026-11-21 24:00",
            "2026-11-21 14:25:60",
            "2026-11-21 14",
            "2026-11-21 14:25.5",
            "2026-11-21 14:25:03.",
            "26-11-21 14:25",
            "2 months ago",
            "5M ago",
            "ago",
            "5 ago",
            "1ns ago",
            "14:25 UTC UTC",
            "2026-11-21Té",
            "+2026-11-21 14:25",
        ] {
            assert!(matches!(read(wrong), Err(MomentError::Unreadable(_))), "{wrong:?}: {:?}", read(wrong));
        }
    }

    /// When the clocks change, the two moments that could be meant are shown in a form that can be given back.
    #[test]
    fn changes_of_clocks() {
        let Err(MomentError::Ambiguous { first, second, .. }) = read("2026-10-25 02:30") else {
            panic!("the clocks were set back that night");
        };
        assert_eq!((first.as_str(), second.as_str()), ("2026-10-25 02:30:00+02:00", "2026-10-25 02:30:00+01:00"));
        assert_eq!(read(&first).as_deref(), Ok("2026-10-25T00:30:00.000000Z"));
        assert_eq!(read(&second).as_deref(), Ok("2026-10-25T01:30:00.000000Z"));
        assert_eq!(read("2026-10-25 02:30 CEST").as_deref(), Ok("2026-10-25T00:30:00.000000Z"));
        assert_eq!(read("2026-10-25 02:30 CET").as_deref(), Ok("2026-10-25T01:30:00.000000Z"));

        let Err(MomentError::Skipped { before, after, .. }) = read("2026-03-29 02:30") else {
            panic!("the clocks were set forward that night");
        };
        assert_eq!((before.as_str(), after.as_str()), ("2026-03-29 01:30:00+01:00", "2026-03-29 03:30:00+02:00"));
    }
}
