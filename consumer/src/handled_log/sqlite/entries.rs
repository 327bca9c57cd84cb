//! The statements: each is about a whole batch, is the same for batches of all sizes, and thus prepared once.

use std::fmt::Write as _;

use correio_guarantees::{Admission, Fence, HandledId, Standing};
use sqlx::SqliteConnection;

use crate::handled_log::{
    cleaning,
    stored::{Source, stored},
};

/// The rows of a batch as JSON, `[[source, "id in hexadecimal", fence], …]`, in the order of the index; and at which place of
/// the batch each of them was.
pub(super) struct Batch {
    json: String,
    places: Vec<usize>,
}

impl Batch {
    /// `None` if a source has no number.
    pub(super) fn new<'a>(
        ids: impl Iterator<Item = (&'a HandledId, Option<Fence>)>,
        number: impl Fn(&HandledId) -> Option<i64>,
    ) -> Option<Self> {
        let rows = ids.enumerate().map(|(place, (id, fence))| Some((number(id)?, stored(&id.id), fence, place)));
        let mut rows = rows.collect::<Option<Vec<_>>>()?;
        rows.sort_unstable_by(|one, other| (one.0, &one.1).cmp(&(other.0, &other.1)));
        let mut json = String::with_capacity(rows.len() * 80);
        for (source, id, fence, _) in &rows {
            let _ = write!(json, "{}[{source},\"", if json.is_empty() { '[' } else { ',' });
            for byte in id {
                json.push(char::from(HEX[usize::from(byte >> 4)]));
                json.push(char::from(HEX[usize::from(byte & 15)]));
            }
            let _ = match fence {
                Some(fence) => write!(json, "\",{}]", fence.0.cast_signed()),
                None => write!(json, "\",null]"),
            };
        }
        json.push_str(if json.is_empty() { "[]" } else { "]" });
        Some(Self { json, places: rows.into_iter().map(|(_, _, _, place)| place).collect() })
    }

    fn count(&self) -> u64 {
        self.places.len() as u64
    }

    /// From the order of the rows to that of the batch.
    fn in_its_order<T: Copy>(&self, of_rows: &[T]) -> Vec<T> {
        let mut placed: Vec<(usize, T)> = self.places.iter().copied().zip(of_rows.iter().copied()).collect();
        placed.sort_unstable_by_key(|(place, _)| *place);
        placed.into_iter().map(|(_, answer)| answer).collect()
    }
}

/// The time, and the time up to which what was handled is past its retention.
#[derive(Clone, Copy)]
pub(super) struct Horizon {
    pub(super) now: i64,
    pub(super) past: i64,
}

/// The number of a source, given now if it has none.
pub(super) async fn number(connection: &mut SqliteConnection, source: &Source) -> Result<i64, sqlx::Error> {
    let (subscription, origin) = source;
    let text = origin.as_ref().map_or("", |origin| origin.as_str());
    // Most are there, and asking writes nothing.
    for attempt in 0..2 {
        let found: Option<(i64,)> = sqlx::query_as(
            "SELECT source FROM correio_sources WHERE subscription = ?1 AND has_origin = ?2 AND origin = ?3",
        )
        .bind(&**subscription)
        .bind(origin.is_some())
        .bind(text)
        .fetch_optional(&mut *connection)
        .await?;
        match found {
            Some((number,)) => return Ok(number),
            None if attempt > 0 => break,
            None => {}
        }
        sqlx::query("INSERT OR IGNORE INTO correio_sources (subscription, has_origin, origin) VALUES (?1, ?2, ?3)")
            .bind(&**subscription)
            .bind(origin.is_some())
            .bind(text)
            .execute(&mut *connection)
            .await?;
    }
    Err(sqlx::Error::RowNotFound)
}

/// Claims what is free, or is this claim's already, until then.
pub(super) async fn admit(
    connection: &mut SqliteConnection,
    batch: &Batch,
    until: i64,
    horizon: Horizon,
) -> Result<Vec<Admission>, sqlx::Error> {
    let claimed = sqlx::query(
        "INSERT INTO correio_handled (source, id, fence, lease_until, at)
         SELECT value ->> 0, unhex(value ->> 1), value ->> 2, ?2, NULL FROM json_each(?1) WHERE true
         ON CONFLICT (source, id) DO UPDATE SET fence = excluded.fence, lease_until = excluded.lease_until, at = NULL
         WHERE CASE WHEN at IS NULL THEN fence = excluded.fence OR lease_until <= ?3 ELSE at <= ?4 END",
    )
    .bind(&*batch.json)
    .bind(until)
    .bind(horizon.now)
    .bind(horizon.past)
    .execute(&mut *connection)
    .await?;
    if claimed.rows_affected() == batch.count() {
        return Ok(vec![Admission::Fresh; batch.places.len()]);
    }
    let rows = rows(connection, batch).await?;
    let answers: Vec<_> = rows
        .iter()
        .map(|row| match row {
            Row { at: Some(_), .. } => Admission::AlreadyHandled,
            Row { by_this_one: true, .. } => Admission::Fresh,
            Row { .. } => Admission::InFlight,
        })
        .collect();
    Ok(batch.in_its_order(&answers))
}

/// Remembers as handled what nobody else has claimed or handled.
pub(super) async fn remember(
    connection: &mut SqliteConnection,
    batch: &Batch,
    horizon: Horizon,
) -> Result<Vec<Standing>, sqlx::Error> {
    let remembered = sqlx::query(
        "INSERT INTO correio_handled (source, id, fence, lease_until, at)
         SELECT value ->> 0, unhex(value ->> 1), value ->> 2, ?2, ?2 FROM json_each(?1) WHERE true
         ON CONFLICT (source, id) DO UPDATE
         SET fence = excluded.fence, at = CASE WHEN at > ?3 THEN at ELSE excluded.at END
         WHERE fence = excluded.fence OR at <= ?3",
    )
    .bind(&*batch.json)
    .bind(horizon.now)
    .bind(horizon.past)
    .execute(&mut *connection)
    .await?;
    if remembered.rows_affected() == batch.count() {
        return Ok(vec![Standing::Stood; batch.places.len()]);
    }
    let rows = rows(connection, batch).await?;
    let standings: Vec<_> =
        rows.iter().map(|row| if row.by_this_one { Standing::Stood } else { Standing::TakenOver }).collect();
    Ok(batch.in_its_order(&standings))
}

/// Frees what these claims hold.
pub(super) async fn abandon(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM correio_handled WHERE n IN (
             SELECT h.n FROM json_each(?1) AS b
             CROSS JOIN correio_handled AS h ON h.source = b.value ->> 0 AND h.id = unhex(b.value ->> 1)
             WHERE h.at IS NULL AND h.fence = b.value ->> 2)",
    )
    .bind(&*batch.json)
    .execute(connection)
    .await?;
    Ok(())
}

/// Enters as handled, by nobody's claim, what is free. The connection has the write lock.
pub(super) async fn enter(
    connection: &mut SqliteConnection,
    batch: &Batch,
    horizon: Horizon,
) -> Result<Vec<Admission>, sqlx::Error> {
    let rows = rows(connection, batch).await?;
    let answers: Vec<_> = rows
        .iter()
        .map(|row| match row {
            Row { at: Some(at), .. } if *at > horizon.past => Admission::AlreadyHandled,
            Row { at: None, lease_until: Some(until), .. } if *until > horizon.now => Admission::InFlight,
            Row { .. } => Admission::Fresh,
        })
        .collect();
    sqlx::query(
        "INSERT INTO correio_handled (source, id, fence, lease_until, at)
         SELECT value ->> 0, unhex(value ->> 1), NULL, ?2, ?2 FROM json_each(?1) WHERE true
         ON CONFLICT (source, id) DO UPDATE SET fence = NULL, lease_until = excluded.lease_until, at = excluded.at
         WHERE CASE WHEN at IS NULL THEN lease_until <= ?2 ELSE at <= ?3 END",
    )
    .bind(&*batch.json)
    .bind(horizon.now)
    .bind(horizon.past)
    .execute(connection)
    .await?;
    Ok(batch.in_its_order(&answers))
}

/// Takes out what was entered by nobody's claim.
pub(super) async fn take_out(connection: &mut SqliteConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    sqlx::query(
        "DELETE FROM correio_handled WHERE n IN (
             SELECT h.n FROM json_each(?1) AS b
             CROSS JOIN correio_handled AS h ON h.source = b.value ->> 0 AND h.id = unhex(b.value ->> 1)
             WHERE h.fence IS NULL)",
    )
    .bind(&*batch.json)
    .execute(connection)
    .await?;
    Ok(())
}

/// Whether there is something to remove.
pub(super) async fn is_oldest_past(connection: &mut SqliteConnection, horizon: Horizon) -> Result<bool, sqlx::Error> {
    let oldest: Option<(i64,)> =
        sqlx::query_as("SELECT coalesce(at, lease_until) FROM correio_handled ORDER BY n LIMIT 1")
            .fetch_optional(connection)
            .await?;
    Ok(oldest.is_some_and(|(since,)| since <= horizon.past))
}

/// Removes the oldest rows up to the first that is not past its time; how many that were.
pub(super) async fn remove_oldest(connection: &mut SqliteConnection, horizon: Horizon) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query(
        "WITH oldest AS MATERIALIZED (
             SELECT n, coalesce(at, lease_until) <= ?1 AS past FROM correio_handled ORDER BY n LIMIT ?2)
         DELETE FROM correio_handled
         WHERE n IN (SELECT n FROM oldest WHERE n < coalesce((SELECT min(n) FROM oldest WHERE NOT past), n + 1))",
    )
    .bind(horizon.past)
    .bind(cleaning::STEP)
    .execute(connection)
    .await?;
    Ok(removed.rows_affected())
}

#[derive(Clone, Copy, Default)]
struct Row {
    by_this_one: bool,
    /// `None` if there is no row.
    lease_until: Option<i64>,
    at: Option<i64>,
}

/// What stands there about each of the batch, in the order of its rows.
async fn rows(connection: &mut SqliteConnection, batch: &Batch) -> Result<Vec<Row>, sqlx::Error> {
    let found: Vec<(i64, bool, i64, Option<i64>)> = sqlx::query_as(
        "SELECT b.key, h.fence IS b.value ->> 2, h.lease_until, h.at FROM json_each(?1) AS b
         CROSS JOIN correio_handled AS h ON h.source = b.value ->> 0 AND h.id = unhex(b.value ->> 1)",
    )
    .bind(&*batch.json)
    .fetch_all(connection)
    .await?;
    let mut rows = vec![Row::default(); batch.places.len()];
    for (key, by_this_one, lease_until, at) in found {
        if let Some(row) = usize::try_from(key).ok().and_then(|key| rows.get_mut(key)) {
            *row = Row { by_this_one, lease_until: Some(lease_until), at };
        }
    }
    Ok(rows)
}

const HEX: &[u8; 16] = b"0123456789abcdef";
