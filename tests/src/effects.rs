//! What handlers have written into a database: a table that takes everything, so that a second effect is seen.

use std::{collections::BTreeMap, path::Path, time::Duration};

use sqlx::{
    Connection, PgConnection, SqliteConnection,
    sqlite::{SqliteConnectOptions, SqliteJournalMode},
};

/// A database with the table `effects`, as `exactly_once_worker` fills it.
#[derive(Clone, Debug)]
pub struct Effects {
    /// What the worker is told.
    pub database: String,
    /// What the test's output calls it.
    pub name: &'static str,
}

impl Effects {
    /// In a file.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn in_sqlite(file: &Path) -> Self {
        let effects = Self { database: file.display().to_string(), name: "SQLite" };
        let mut connection = effects.sqlite().await.expect("a database");
        sqlx::raw_sql(TABLE).execute(&mut connection).await.expect("a table");
        connection.close().await.expect("closed");
        effects
    }

    /// In a schema of its own on a server.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn in_postgres(url: &str) -> Self {
        let schema = crate::queues::fresh("effects").replace(|c: char| !c.is_ascii_alphanumeric(), "_");
        let mut connection = PgConnection::connect(url).await.expect("a server");
        let create = sqlx::AssertSqlSafe(format!("CREATE SCHEMA {schema}"));
        sqlx::raw_sql(create).execute(&mut connection).await.expect("a schema");
        connection.close().await.expect("closed");
        let effects = Self { database: format!("{url}?options=-csearch_path%3D{schema}"), name: "PostgreSQL" };
        let mut connection = PgConnection::connect(&effects.database).await.expect("a connection");
        sqlx::raw_sql(TABLE).execute(&mut connection).await.expect("a table");
        connection.close().await.expect("closed");
        effects
    }

    /// How many effects there are; `None` while the database does not answer.
    pub async fn count(&self) -> Option<u64> {
        let count: Result<i64, _> =
            match tokio::time::timeout(PATIENCE, self.scalar("SELECT count(*) FROM effects")).await {
                Ok(count) => count,
                Err(_) => return None,
            };
        count.ok().map(|count| count.try_into().expect("a count"))
    }

    async fn scalar(&self, query: &'static str) -> Result<i64, sqlx::Error> {
        if self.is_postgres() {
            sqlx::query_scalar(query).fetch_one(&mut PgConnection::connect(&self.database).await?).await
        } else {
            sqlx::query_scalar(query).fetch_one(&mut self.sqlite().await?).await
        }
    }

    /// Each payload and how many effects it had.
    ///
    /// # Panics
    ///
    /// If the database does not answer.
    pub async fn by_payload(&self) -> BTreeMap<String, u64> {
        let query = "SELECT payload, count(*) FROM effects GROUP BY payload";
        let rows: Vec<(String, i64)> = if self.is_postgres() {
            let mut connection = PgConnection::connect(&self.database).await.expect("a connection");
            sqlx::query_as(query).fetch_all(&mut connection).await.expect("the effects")
        } else {
            let mut connection = self.sqlite().await.expect("a connection");
            sqlx::query_as(query).fetch_all(&mut connection).await.expect("the effects")
        };
        rows.into_iter().map(|(payload, count)| (payload, count.try_into().expect("a count"))).collect()
    }

    fn is_postgres(&self) -> bool {
        self.database.starts_with("postgres:")
    }

    async fn sqlite(&self) -> Result<SqliteConnection, sqlx::Error> {
        // As the log has it: a reader that would change the mode waits for every writer.
        let options = SqliteConnectOptions::new()
            .filename(&self.database)
            .create_if_missing(true)
            .journal_mode(SqliteJournalMode::Wal)
            .busy_timeout(PATIENCE);
        SqliteConnection::connect_with(&options).await
    }
}

const TABLE: &str = "CREATE TABLE effects (id TEXT, payload TEXT)";
const PATIENCE: Duration = Duration::from_secs(10);
