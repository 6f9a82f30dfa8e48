//! `--rate-limit`: a number with a unit, in the range that the server takes.

/// Kibibytes a second, 32 to 1048576 (`MAX_RATE_LOWER` and `MAX_RATE_UPPER` in `basebackup.h`).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct RateLimit(pub u32);

impl std::str::FromStr for RateLimit {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let expected = "a rate such as 50MB (a second), from 32kB to 1GB";
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        // As in PostgreSQL's own settings, kB and MB are multiples of 1024.
        let unit: u64 = match text[digits.len()..].trim_end_matches("/s") {
            "k" | "kB" | "K" | "KB" => 1,
            "M" | "MB" => 1024,
            "G" | "GB" => 1024 * 1024,
            _ => return Err(expected),
        };
        let kib = digits.parse::<u64>().ok().and_then(|number| number.checked_mul(unit));
        match kib.and_then(|kib| u32::try_from(kib).ok()) {
            Some(kib) if (32..=1_048_576).contains(&kib) => Ok(RateLimit(kib)),
            _ => Err(expected),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Units are PostgreSQL's, and what the server would refuse is refused here, before anything is done.
    #[test]
    fn units() {
        for (text, kib) in [("32kB", 32), ("50MB", 51_200), ("1GB", 1_048_576), ("10M", 10_240), ("64kB/s", 64)] {
            assert_eq!(text.parse(), Ok(RateLimit(kib)), "{text}");
        }
        for wrong in ["", "50", "31kB", "2GB", "-1MB", "1TB", "99999999999999999999MB", "MB"] {
            assert!(wrong.parse::<RateLimit>().is_err(), "{wrong}");
        }
    }
}
