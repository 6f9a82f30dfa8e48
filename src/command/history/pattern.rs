//! Patterns of names on the command line: as in SQL, with `*` and `?`.
//!
//! `orders`, `public.orders`, `shop.public.orders`, `"Orders"`, `public.ord*`. As in `psql`, what is not quoted is folded to lower case,
//! and a name without a schema is looked for in all of them.

use std::str::FromStr;

use crate::wal::names::RelationName;

/// A pattern of one name.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NamePattern(Vec<Part>);

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Part {
    Letter(char),
    /// `?`
    AnyLetter,
    /// `*`
    Anything,
}

impl NamePattern {
    /// A pattern in which nothing is folded and only `*` and `?` are special.
    #[must_use]
    pub fn plain(text: &str) -> NamePattern {
        NamePattern(text.chars().map(Part::of).collect())
    }

    /// Whether it is the pattern of this name.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        // All prefixes of the pattern that fit what was read so far.
        let mut fits = vec![false; self.0.len() + 1];
        fits[0] = true;
        let spread = |fits: &mut Vec<bool>| {
            for (at, part) in self.0.iter().enumerate() {
                fits[at + 1] |= fits[at] && *part == Part::Anything;
            }
        };
        spread(&mut fits);
        for letter in name.chars() {
            let mut next = vec![false; fits.len()];
            for (at, part) in self.0.iter().enumerate() {
                match part {
                    Part::Anything => next[at] |= fits[at],
                    Part::AnyLetter => next[at + 1] |= fits[at],
                    Part::Letter(wanted) => next[at + 1] |= fits[at] && *wanted == letter,
                }
            }
            spread(&mut next);
            fits = next;
        }
        fits.last() == Some(&true)
    }
}

impl Part {
    fn of(letter: char) -> Part {
        match letter {
            '*' => Part::Anything,
            '?' => Part::AnyLetter,
            letter => Part::Letter(letter),
        }
    }
}

/// A pattern of relations: a name, its schema and its database, of which the last two may be left out.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RelationPattern {
    text: String,
    database: Option<NamePattern>,
    schema: Option<NamePattern>,
    name: NamePattern,
}

impl RelationPattern {
    /// It is a single name, and the pattern of this one; `*` stands for relations alone.
    #[must_use]
    pub fn is_alone(&self, name: &str) -> bool {
        self.schema.is_none() && self.name.0 != [Part::Anything] && self.name.matches(name)
    }

    /// It says in which schema.
    #[must_use]
    pub fn names_schema(&self) -> bool {
        self.schema.is_some()
    }

    /// Whether a relation is meant. A TOAST table goes by the name of the table that it belongs to.
    #[must_use]
    pub fn matches(&self, relation: &RelationName) -> bool {
        let (schema, name) = match &relation.toast_of {
            Some((schema, name)) => (schema, name),
            None => (&relation.schema, &relation.name),
        };
        let database = |wanted: &NamePattern| relation.database.as_ref().is_some_and(|name| wanted.matches(name));
        self.name.matches(name)
            && self.schema.as_ref().is_none_or(|wanted| wanted.matches(schema))
            && self.database.as_ref().is_none_or(database)
    }
}

impl std::fmt::Display for RelationPattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.text)
    }
}

impl FromStr for RelationPattern {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let mut names = names(text).ok_or_else(|| format!("a quotation mark is missing in {text}"))?;
        let wrong = || format!("{text} is not NAME, SCHEMA.NAME or DATABASE.SCHEMA.NAME");
        let name = names.pop().filter(|name| !name.0.is_empty()).ok_or_else(wrong)?;
        let (schema, database) = (names.pop(), names.pop());
        if names.is_empty() {
            Ok(RelationPattern { text: text.to_owned(), database, schema, name })
        } else {
            Err(wrong())
        }
    }
}

/// The names between the dots. `None` if a quotation does not end.
fn names(text: &str) -> Option<Vec<NamePattern>> {
    let mut names = vec![NamePattern(Vec::new())];
    let mut quoted = false;
    let mut letters = text.chars().peekable();
    while let Some(letter) = letters.next() {
        let last = &mut names.last_mut()?.0;
        match letter {
            '"' if quoted && letters.peek() == Some(&'"') => {
                letters.next();
                last.push(Part::Letter('"'));
            }
            '"' => quoted = !quoted,
            letter if quoted => last.push(Part::Letter(letter)),
            '.' => names.push(NamePattern(Vec::new())),
            letter => last.extend(letter.to_lowercase().map(Part::of)),
        }
    }
    (!quoted).then_some(names)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::wal::names::RelationKind;

    fn relation(database: &str, schema: &str, name: &str) -> RelationName {
        RelationName {
            database_oid: 5,
            database: Some(database.to_owned()),
            schema: schema.to_owned(),
            name: name.to_owned(),
            oid: 16384,
            kind: RelationKind::Table,
            temporary: false,
            file: None,
            toast_of: None,
        }
    }

    /// Promise: a pattern means what SQL means by a name, and nothing beside it.
    #[test]
    fn as_in_sql() {
        let orders = relation("shop", "public", "orders");
        let odd = relation("shop", "Old.Data", "Or\"ders*");
        for (pattern, matches_orders, matches_odd) in [
            ("orders", true, false),
            ("ORDERS", true, false),
            ("\"Orders\"", false, false),
            ("public.orders", true, false),
            ("private.orders", false, false),
            ("shop.public.orders", true, false),
            ("other.public.orders", false, false),
            ("ord*", true, false),
            ("o?ders", true, false),
            ("o?der", false, false),
            ("*", true, true),
            ("*s*s*", false, false),
            ("\"ord*\"", false, false),
            ("\"Old.Data\".\"Or\"\"ders*\"", false, true),
            ("pub*.*e*s", true, false),
        ] {
            let read: RelationPattern = pattern.parse().expect("a pattern");
            assert_eq!((read.matches(&orders), read.matches(&odd)), (matches_orders, matches_odd), "{pattern}");
        }
        for wrong in ["", "\"orders", "a.b.c.d", "public."] {
            assert!(wrong.parse::<RelationPattern>().is_err(), "{wrong}");
        }
    }
}
