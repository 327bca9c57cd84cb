//! The URL of a server, read without a word of it in the log.

use sqlx::postgres::PgConnectOptions;

/// What a URL says.
///
/// A parameter that sqlx does not know is refused: sqlx would log its value, which may be a secret (`sslpassword`, or a misspelt
/// `password`), and go on without it.
///
/// # Errors
///
/// If the text is no URL or a parameter is not known. No value of a parameter is repeated.
pub(super) fn options(url: &str) -> Result<PgConnectOptions, sqlx::Error> {
    refuse_unknown(url).map_err(|refusal| sqlx::Error::Configuration(refusal.into()))?;
    url.parse()
}

fn refuse_unknown(url: &str) -> Result<(), String> {
    let without_fragment = url.split_once('#').map_or(url, |(before, _)| before);
    let Some((_, query)) = without_fragment.split_once('?') else { return Ok(()) };
    let mut after_password = false;
    for parameter in query.split('&').filter(|parameter| !parameter.is_empty()) {
        let (name, value) = parameter.split_once('=').map_or((parameter, None), |(name, value)| (name, Some(value)));
        if !is_known(name) {
            // A password with a `?`, `&` or `@` that is not escaped is cut there, and its rest would be taken for a name.
            let may_be_secret = after_password || value.is_none() || query.contains('@') || !is_plain(name);
            let which =
                if may_be_secret { "a parameter of the URL".to_owned() } else { format!("`{name}` in the URL") };
            return Err(format!(
                "{which} is not known: remove it, or correct its spelling. Known are {} and options[NAME]; `?`, `&`, `#` and `@` \
                 in a password are written %3F, %26, %23 and %40",
                KNOWN.join(", ")
            ));
        }
        after_password |= name == "password";
    }
    Ok(())
}

/// As sqlx compares them. A name that is escaped without need is not known: it is still not logged.
fn is_known(name: &str) -> bool {
    KNOWN.contains(&name) || ["options[", "options%5B", "options%5b"].iter().any(|option| name.starts_with(option))
}

fn is_plain(name: &str) -> bool {
    name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_' || byte == b'-')
}

/// What sqlx-postgres 0.9 takes from a URL.
const KNOWN: [&str; 18] = [
    "sslmode",
    "ssl-mode",
    "sslrootcert",
    "ssl-root-cert",
    "ssl-ca",
    "sslcert",
    "ssl-cert",
    "sslkey",
    "ssl-key",
    "statement-cache-capacity",
    "host",
    "hostaddr",
    "port",
    "dbname",
    "user",
    "password",
    "application_name",
    "options",
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::PostgresLog;

    fn refusal(url: &str) -> String {
        options(url).expect_err(url).to_string()
    }

    #[tokio::test]
    async fn a_parameter_that_is_not_known_is_refused_by_its_name_and_its_value_is_not_repeated() {
        for (url, name) in [
            ("postgres://db/orders?sslpassword=SECRET", "`sslpassword`"),
            ("postgres://db/orders?sslmode=prefer&pasword=SECRET", "`pasword`"),
            ("postgres://db/orders?Password=SECRET", "a parameter"),
            ("postgres://db/orders?%70asword=SECRET", "a parameter"),
        ] {
            let refused = PostgresLog::connect(url).await.expect_err(url).to_string();
            assert!(refused.contains(name) && refused.contains("correct its spelling"), "{refused}");
            assert!(!refused.contains("SECRET"), "{refused}");
        }
    }

    #[test]
    fn the_rest_of_a_password_that_is_not_escaped_is_not_taken_for_a_name() {
        for url in [
            "postgres://ana:se?cret@db/orders",
            "postgres://ana:se?cret=x@db/orders",
            "postgres://db/orders?password=se&cret",
            "postgres://db/orders?password=se&cret=x",
            "postgres://db/orders?cret",
        ] {
            let refused = refusal(url);
            assert!(refused.starts_with("error with configuration: a parameter of the URL is not known"), "{refused}");
            assert!(!refused.contains("cret"), "{refused}");
        }
    }

    #[test]
    fn what_sqlx_knows_is_taken() {
        for known in KNOWN {
            let value = match known {
                "sslmode" | "ssl-mode" => "prefer",
                "hostaddr" => "127.0.0.1",
                _ => "5432",
            };
            assert!(options(&format!("postgres://db/orders?{known}={value}")).is_ok(), "{known}");
        }
        assert!(options("postgres://ana:secret@db/orders?&options[geqo]=off&options%5Bjit%5D=off#top?x=y").is_ok());
        let given = options("postgres://ana:secret@db:99/orders?user=bob@corp").unwrap();
        assert_eq!((given.get_username(), given.get_port()), ("bob@corp", 99));
    }
}
