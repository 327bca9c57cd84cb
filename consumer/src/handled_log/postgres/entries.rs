//! The statements: each is about a whole batch, and is one round trip.
//!
//! Rows are locked in one order, that of the index, so that two batches wait for each other and never in a circle.

use correio_guarantees::{Admission, Fence, HandledId, Standing};
use sqlx::PgConnection;

use crate::handled_log::{
    cleaning,
    stored::{Source, stored},
};

/// The rows of a batch in the order of the index, and at which place of the batch each of them was.
#[derive(Default)]
pub(super) struct Batch {
    sources: Vec<i64>,
    ids: Vec<Vec<u8>>,
    fences: Vec<Option<i64>>,
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
        let mut batch = Self::default();
        for (source, id, fence, place) in rows {
            batch.sources.push(source);
            batch.ids.push(id);
            batch.fences.push(fence.map(|fence| fence.0.cast_signed()));
            batch.places.push(place);
        }
        Some(batch)
    }

    /// `usual` for all but these rows, counted from 1.
    fn answers<T: Copy>(&self, usual: T, others: impl IntoIterator<Item = (i64, T)>) -> Vec<T> {
        let mut answers = vec![usual; self.places.len()];
        for (row, answer) in others {
            let place = usize::try_from(row - 1).ok().and_then(|row| self.places.get(row));
            if let Some(slot) = place.and_then(|place| answers.get_mut(*place)) {
                *slot = answer;
            }
        }
        answers
    }
}

/// The number of a source, given now if it has none.
pub(super) async fn number(connection: &mut PgConnection, source: &Source) -> Result<i64, sqlx::Error> {
    let (subscription, origin) = source;
    let text = origin.as_ref().map_or("", |origin| origin.as_str());
    // Most are there, and asking writes nothing. One that another process gives it now is seen the second time.
    for statement in [KNOWN_NUMBER, NEW_NUMBER, KNOWN_NUMBER] {
        let number: Option<(i64,)> = sqlx::query_as(statement)
            .bind(subscription.as_bytes())
            .bind(origin.is_some())
            .bind(text.as_bytes())
            .fetch_optional(&mut *connection)
            .await?;
        if let Some((number,)) = number {
            return Ok(number);
        }
    }
    Err(sqlx::Error::RowNotFound)
}

/// Claims what is free, or is this claim's already, for so long.
pub(super) async fn admit(
    connection: &mut PgConnection,
    batch: &Batch,
    lease: i64,
    retention: i64,
) -> Result<Vec<Admission>, sqlx::Error> {
    let others: Vec<(i64, bool)> = sqlx::query_as(ADMIT)
        .bind(&batch.sources)
        .bind(&batch.ids)
        .bind(retention)
        .bind(&batch.fences)
        .bind(lease.min(LONGEST))
        .fetch_all(connection)
        .await?;
    Ok(batch.answers(Admission::Fresh, others.into_iter().map(not_fresh)))
}

/// Remembers as handled what nobody else has claimed or handled.
pub(super) async fn remember(
    connection: &mut PgConnection,
    batch: &Batch,
    retention: i64,
) -> Result<Vec<Standing>, sqlx::Error> {
    let others: Vec<(i64,)> = sqlx::query_as(REMEMBER)
        .bind(&batch.sources)
        .bind(&batch.ids)
        .bind(retention)
        .bind(&batch.fences)
        .fetch_all(connection)
        .await?;
    Ok(batch.answers(Standing::Stood, others.into_iter().map(|(row,)| (row, Standing::TakenOver))))
}

/// Frees what these claims hold.
pub(super) async fn abandon(connection: &mut PgConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    sqlx::query(ABANDON).bind(&batch.sources).bind(&batch.ids).bind(&batch.fences).execute(connection).await?;
    Ok(())
}

/// Enters as handled, by nobody's claim, what is free.
pub(super) async fn enter(
    connection: &mut PgConnection,
    batch: &Batch,
    retention: i64,
) -> Result<Vec<Admission>, sqlx::Error> {
    let others: Vec<(i64, bool)> =
        sqlx::query_as(ENTER).bind(&batch.sources).bind(&batch.ids).bind(retention).fetch_all(connection).await?;
    Ok(batch.answers(Admission::Fresh, others.into_iter().map(not_fresh)))
}

/// Takes out what was entered by nobody's claim.
pub(super) async fn take_out(connection: &mut PgConnection, batch: &Batch) -> Result<(), sqlx::Error> {
    sqlx::query(TAKE_OUT).bind(&batch.sources).bind(&batch.ids).execute(connection).await?;
    Ok(())
}

/// Removes the oldest rows up to the first that is not past its time; how many that were.
pub(super) async fn remove_oldest(connection: &mut PgConnection, retention: i64) -> Result<u64, sqlx::Error> {
    let removed = sqlx::query(REMOVE_OLDEST).bind(retention).bind(cleaning::STEP).execute(connection).await?;
    Ok(removed.rows_affected())
}

fn not_fresh((row, handled): (i64, bool)) -> (i64, Admission) {
    (row, if handled { Admission::AlreadyHandled } else { Admission::InFlight })
}

const KNOWN_NUMBER: &str =
    "SELECT source FROM correio_sources WHERE subscription = $1 AND has_origin = $2 AND origin = $3";
const NEW_NUMBER: &str = "INSERT INTO correio_sources (subscription, has_origin, origin) VALUES ($1, $2, $3)
     ON CONFLICT DO NOTHING RETURNING source";

// A row that is in somebody's open transaction cannot be seen, and to insert it would be to wait for that transaction's end. The
// lock that is tried for first tells; it is the whole database's, and other schemas have logs of their own. Of those that were
// not free the last part says why, as far as was committed when the statement began: what was handled only since then is in
// flight, and asked for again.
const ADMIT: &str = "
    WITH time AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now,
               set_config('synchronous_commit', 'off', true)),
    asked AS MATERIALIZED (
        SELECT *, pg_try_advisory_xact_lock(
            hashtextextended(encode(id, 'hex') || (SELECT 'correio_handled'::regclass::oid), source)) AS alone
        FROM unnest($1::bigint[], $2::bytea[], $4::bigint[]) WITH ORDINALITY AS a (source, id, fence, row)),
    claimed AS (
        INSERT INTO correio_handled AS h (source, id, fence, lease_until, at)
        SELECT source, id, fence, (SELECT now FROM time) + $5, NULL FROM asked WHERE alone ORDER BY row
        ON CONFLICT (source, id) DO UPDATE SET fence = excluded.fence, lease_until = excluded.lease_until, at = NULL
        WHERE CASE WHEN h.at IS NULL THEN h.fence = excluded.fence OR h.lease_until <= (SELECT now FROM time)
                   ELSE h.at <= (SELECT now FROM time) - $3 END
        RETURNING source, id)
    SELECT a.row, coalesce(h.at > (SELECT now FROM time) - $3, false)
    FROM asked AS a LEFT JOIN correio_handled AS h ON h.source = a.source AND h.id = a.id
    WHERE (a.source, a.id) NOT IN (SELECT source, id FROM claimed)";

const ENTER: &str = "
    WITH time AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now),
    asked AS MATERIALIZED (
        SELECT *, pg_try_advisory_xact_lock(
            hashtextextended(encode(id, 'hex') || (SELECT 'correio_handled'::regclass::oid), source)) AS alone
        FROM unnest($1::bigint[], $2::bytea[]) WITH ORDINALITY AS a (source, id, row)),
    entered AS (
        INSERT INTO correio_handled AS h (source, id, fence, lease_until, at)
        SELECT source, id, NULL, (SELECT now FROM time), (SELECT now FROM time) FROM asked WHERE alone ORDER BY row
        ON CONFLICT (source, id) DO UPDATE SET fence = NULL, lease_until = excluded.lease_until, at = excluded.at
        WHERE CASE WHEN h.at IS NULL THEN h.lease_until <= (SELECT now FROM time)
                   ELSE h.at <= (SELECT now FROM time) - $3 END
        RETURNING source, id)
    SELECT a.row, coalesce(h.at > (SELECT now FROM time) - $3, false)
    FROM asked AS a LEFT JOIN correio_handled AS h ON h.source = a.source AND h.id = a.id
    WHERE (a.source, a.id) NOT IN (SELECT source, id FROM entered)";

const REMEMBER: &str = "
    WITH time AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now),
    asked AS MATERIALIZED (
        SELECT * FROM unnest($1::bigint[], $2::bytea[], $4::bigint[]) WITH ORDINALITY AS a (source, id, fence, row)),
    remembered AS (
        INSERT INTO correio_handled AS h (source, id, fence, lease_until, at)
        SELECT source, id, fence, (SELECT now FROM time), (SELECT now FROM time) FROM asked ORDER BY row
        ON CONFLICT (source, id) DO UPDATE SET fence = excluded.fence,
            at = CASE WHEN h.at > (SELECT now FROM time) - $3 THEN h.at ELSE excluded.at END
        WHERE h.fence = excluded.fence OR h.at <= (SELECT now FROM time) - $3
        RETURNING source, id)
    SELECT a.row FROM asked AS a WHERE (a.source, a.id) NOT IN (SELECT source, id FROM remembered)";

const ABANDON: &str = "
    WITH durability AS MATERIALIZED (SELECT set_config('synchronous_commit', 'off', true)),
    given_up AS MATERIALIZED (
        SELECT h.n FROM durability, unnest($1::bigint[], $2::bytea[], $3::bigint[]) AS a (source, id, fence)
        JOIN correio_handled AS h ON h.source = a.source AND h.id = a.id AND h.fence = a.fence AND h.at IS NULL
        ORDER BY h.source, h.id FOR UPDATE OF h)
    DELETE FROM correio_handled WHERE n IN (SELECT n FROM given_up)";

const TAKE_OUT: &str = "
    DELETE FROM correio_handled AS h USING unnest($1::bigint[], $2::bytea[]) AS a (source, id)
    WHERE h.source = a.source AND h.id = a.id AND h.fence IS NULL";

// What somebody else has locked is not waited for, and taken the next time.
const REMOVE_OLDEST: &str = "
    WITH time AS MATERIALIZED (
        SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint AS now,
               set_config('synchronous_commit', 'off', true)),
    oldest AS MATERIALIZED (
        SELECT n, coalesce(at, lease_until) <= (SELECT now FROM time) - $1 AS past
        FROM correio_handled ORDER BY n LIMIT $2),
    removed AS MATERIALIZED (
        SELECT h.n FROM correio_handled AS h
        WHERE h.n IN (SELECT n FROM oldest WHERE n < coalesce((SELECT min(n) FROM oldest WHERE NOT past), n + 1))
          AND coalesce(h.at, h.lease_until) <= (SELECT now FROM time) - $1
        FOR UPDATE SKIP LOCKED)
    DELETE FROM correio_handled WHERE n IN (SELECT n FROM removed)";

/// 100 years, in microseconds: the sum with a time is still one.
const LONGEST: i64 = 100 * 365 * 24 * 60 * 60 * 1_000_000;
