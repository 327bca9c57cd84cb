//! A delay in the words that a delay queue's name has for it.

use std::time::Duration;

/// `500ms`, `1s`, `90s`, `2m`: in the largest unit that says it exactly, to the millisecond.
#[must_use]
pub fn delay_name(delay: Duration) -> String {
    match delay.as_millis() {
        ms if ms % 60_000 == 0 => format!("{}m", ms / 60_000),
        ms if ms % 1_000 == 0 => format!("{}s", ms / 1_000),
        ms => format!("{ms}ms"),
    }
}

/// A text that is no delay.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("“{text}” is no delay: write a whole number and its unit, such as 500ms, 30s, 5m, 2h or 1d")]
pub struct InvalidDelay {
    /// The text.
    pub text: String,
}

/// Reads a delay as its queue's name has it, and in hours and days.
///
/// # Errors
///
/// [`InvalidDelay`] if it is no whole number with a unit.
pub fn parse_delay(text: &str) -> Result<Duration, InvalidDelay> {
    let (number, unit) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let millis: Option<u64> = match unit {
        "ms" => Some(1),
        "s" => Some(1_000),
        "m" => Some(60_000),
        "h" => Some(3_600_000),
        "d" => Some(86_400_000),
        _ => None,
    };
    millis
        .zip(number.parse().ok())
        .and_then(|(millis, number)| millis.checked_mul(number))
        .map(Duration::from_millis)
        .ok_or_else(|| InvalidDelay { text: text.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_are_named_in_their_largest_exact_unit() {
        let name = |ms| delay_name(Duration::from_millis(ms));
        assert_eq!(
            [name(500), name(1_000), name(90_000), name(120_000), name(1_001)],
            ["500ms", "1s", "90s", "2m", "1001ms"]
        );
    }

    #[test]
    fn a_delay_is_read_as_it_is_named() {
        for ms in [1, 500, 1_000, 1_001, 90_000, 120_000, 86_400_000] {
            let delay = Duration::from_millis(ms);
            assert_eq!(parse_delay(&delay_name(delay)), Ok(delay));
        }
        assert_eq!((parse_delay("2h"), parse_delay("1d")), (parse_delay("120m"), parse_delay("24h")));
    }

    #[test]
    fn what_is_no_delay_is_said() {
        for text in
            ["", "5", "s", "1.5s", "-1s", "+1s", "1 s", "1S", "1s2", "99999999999999999999s", "999999999999999999d"]
        {
            assert_eq!(parse_delay(text), Err(InvalidDelay { text: text.to_owned() }), "{text}");
        }
    }
}
