//! What an error says is to become of its message.

use std::{error::Error, fmt, time::Duration};

use correio_guarantees::{Failure, Ruling};

use crate::handler::{BoxError, with_sources};

/// Lets the place where an error arises say what is to become of the message:
///
/// ```
/// use correio_consumer::{BoxError, Bytes, OnError};
/// # async fn reserve(_: &str) -> Result<(), std::io::Error> { Ok(()) }
///
/// async fn reserve_stock(body: Bytes) -> Result<(), BoxError> {
///     // It will be no better the next time: parked at once, with the error.
///     let order = std::str::from_utf8(&body).or_dead_letter()?;
///     // The warehouse restarts at night: not before ten minutes have passed.
///     reserve(order).await.or_retry_after(std::time::Duration::from_secs(600))?;
///     Ok(())
/// }
/// ```
///
/// An error that says nothing is retried by the schedule. What a transactional handler wrote is undone in every case.
pub trait OnError<T>: Sized {
    /// On an error the message is tried again, not before this much time, or the schedule's longest delay, if that is
    /// shorter; parked with the error when no retry is left.
    ///
    /// # Errors
    ///
    /// The error, with that ruling.
    fn or_retry_after(self, delay: Duration) -> Result<T, RuledError>;

    /// On an error the message is parked at once, with the error: no retry would help.
    ///
    /// # Errors
    ///
    /// The error, with that ruling.
    fn or_dead_letter(self) -> Result<T, RuledError>;

    /// On an error the message is dropped, and the error is the reason: it is not worth parking.
    ///
    /// # Errors
    ///
    /// The error, with that ruling.
    fn or_drop(self) -> Result<T, RuledError>;
}

impl<T, E: Into<BoxError>> OnError<T> for Result<T, E> {
    fn or_retry_after(self, delay: Duration) -> Result<T, RuledError> {
        self.map_err(|error| RuledError { error: error.into(), ruling: Ruling::RetryAfter(delay) })
    }

    fn or_dead_letter(self) -> Result<T, RuledError> {
        self.map_err(|error| RuledError { error: error.into(), ruling: Ruling::DeadLetter })
    }

    fn or_drop(self) -> Result<T, RuledError> {
        self.map_err(|error| RuledError { error: error.into(), ruling: Ruling::Drop })
    }
}

/// An error that says what is to become of its message; made by [`OnError`]. The ruling holds also where this is the source of another
/// error; of several, the outermost.
#[derive(Debug)]
pub struct RuledError {
    error: BoxError,
    ruling: Ruling,
}

impl RuledError {
    /// What is to become of the message.
    #[must_use]
    pub fn ruling(&self) -> Ruling {
        self.ruling
    }
}

impl fmt::Display for RuledError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.error.fmt(f)
    }
}

impl Error for RuledError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        Some(self.error.as_ref())
    }
}

/// The failure that an error is.
pub(crate) fn failed(error: &(dyn Error + 'static)) -> Failure {
    let text = with_sources(error);
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(ruled) = error.downcast_ref::<RuledError>() {
            return Failure::Ruled { error: text, ruling: ruled.ruling };
        }
        next = error.source();
    }
    Failure::Handler { error: text }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, thiserror::Error)]
    #[error("order 7 is not to be had")]
    struct Outer(#[source] RuledError);

    fn refused<T>() -> Result<T, &'static str> {
        Err("no stock")
    }

    #[test]
    fn the_ruling_of_an_error_is_found_wherever_it_stands_and_its_text_stays_whole() {
        let ruled = |ruling| Failure::Ruled { error: "no stock".into(), ruling };
        let of = |result: Result<(), RuledError>| failed(&result.unwrap_err());
        let minute = Duration::from_secs(60);
        assert_eq!(of(refused().or_retry_after(minute)), ruled(Ruling::RetryAfter(minute)));
        assert_eq!(of(refused().or_dead_letter()), ruled(Ruling::DeadLetter));
        assert_eq!(of(refused().or_drop()), ruled(Ruling::Drop));
        let outer = Outer(refused::<()>().or_drop().unwrap_err());
        let error = "order 7 is not to be had: no stock".to_owned();
        assert_eq!(failed(&outer), Failure::Ruled { error, ruling: Ruling::Drop });
        let again = failed(&Err::<(), _>(outer).or_dead_letter().unwrap_err());
        assert!(matches!(again, Failure::Ruled { ruling: Ruling::DeadLetter, .. }), "the outermost: {again:?}");
        assert!(refused::<u8>().or(Ok::<_, &str>(1)).or_drop().is_ok());
    }
}
